"""Which path a model is given, how groups are shared out over passes, and what is refused by name."""

import copy
import logging
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from aft.errors import ModelError
from aft.scoring import paths, shared
from aft.scoring.groups import Group
from aft.scoring.naive import token_logprobs
from aft.scoring.paths import choose_path, padding, plan, score, why_not_packed

KINDS = ("llama", "gpt2", "qwen2", "mistral")


def unsupported(kind: str) -> Any:
    """Tiny models whose attention is more than dot products of queries and keys, or that have none."""
    from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, MambaConfig, MptConfig

    configs = {
        "MambaForCausalLM": lambda: MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4),
        "BloomForCausalLM": lambda: BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2),
        "MptForCausalLM": lambda: MptConfig(vocab_size=64, d_model=16, n_layers=1, n_heads=2),
        "Gemma2ForCausalLM": lambda: Gemma2Config(
            **{"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8},
            **{"num_attention_heads": 2, "num_key_value_heads": 1, "attn_logit_softcapping": 2.0},
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(configs[kind]())


# --- the choice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_shared_prompts_wherever_they_are_exact(tiny_model, kind, caplog):
    """And what is asked for if it can be had; nothing is said of it."""
    model = tiny_model(kind)
    assert why_not_packed(model) is None
    assert choose_path(model, "auto") == "shared"
    assert choose_path(model, "shared") == "shared"
    assert choose_path(model, "two_pass") == "two_pass"
    assert choose_path(model, "naive") == "naive"
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MambaForCausalLM", "layers of the kind linear_attention"),  # a state instead of keys and values
        ("BloomForCausalLM", "attention"),  # ALiBi
        ("MptForCausalLM", "attention"),  # ALiBi
        ("Gemma2ForCausalLM", "attention"),  # attention scores are capped
    ],
)
def test_models_without_packed_rows_are_named(name, reason, caplog):
    """`auto` takes the naive path and says why; what is forced is refused with the way out; the model stays so."""
    model = unsupported(name)
    before = model.config._attn_implementation
    with caplog.at_level(logging.WARNING):
        assert choose_path(model, "auto") == "naive"
    assert name in caplog.text and reason in caplog.text
    for wanted in ("shared", "two_pass"):
        with pytest.raises(ModelError, match=rf"{name} cannot be scored on the path '{wanted}': .*{reason}.*auto"):
            choose_path(model, wanted)
    assert choose_path(model, "naive") == "naive"
    assert model.config._attn_implementation == before


def test_a_model_that_errs_on_the_trial_is_refused(tiny_model, monkeypatch):
    """Its own word is not enough: a sum that is off by 1e-3 shows, and so does an exception."""
    model = copy.deepcopy(tiny_model("llama"))
    right = paths.shared_sums
    monkeypatch.setattr(paths, "shared_sums", lambda *given, **options: right(*given, **options) + 1e-3)
    assert "differ by 0.001 on a trial" in str(why_not_packed(model))
    with pytest.raises(ModelError, match=r"differ by 0\.001"):
        choose_path(model, "shared")

    def fail(*_: Any) -> None:
        raise IndexError

    monkeypatch.setattr(paths, "shared_sums", fail)
    assert why_not_packed(model) == "its attention fails on packed rows (IndexError)"
    assert model.config._attn_implementation == "sdpa"


def test_large_sums_may_be_rounded_more(tiny_model, monkeypatch):
    """A real model finds the trial's tokens absurd: SmolLM2's sums of -76 differ by 8e-5 on a processor and by 1.4e-4
    on a GPU, which is rounding; 2e-6 of a sum is that, 1e-4 of it is a fault."""
    model = copy.deepcopy(tiny_model("llama"))
    shared, naive = paths.shared_sums, paths._naive_sums
    monkeypatch.setattr(paths, "_naive_sums", lambda *given: 20 * naive(*given))
    for off, is_rounding in ((2e-6, True), (1e-4, False)):
        scaled = partial(lambda off, *given, **options: 20 * (1 + off) * shared(*given, **options), off)
        monkeypatch.setattr(paths, "shared_sums", scaled)
        assert (why_not_packed(model) is None) == is_rounding


@pytest.mark.parametrize("window", [6, 40])
def test_the_trial_sees_a_window_that_is_left_out(tiny_model, window, monkeypatch):
    """The prompt of the trial outgrows it, so that attention to all of it gives other numbers."""
    from aft.scoring.attention import SpanAttention

    model = copy.deepcopy(tiny_model("mistral"))
    model.config.sliding_window = window
    assert why_not_packed(model) is None
    right = SpanAttention.__call__

    def forgetful(self: Any, *given: Any, **options: Any) -> torch.Tensor:
        return right(self, *given, **options | {"sliding_window": None})

    monkeypatch.setattr(SpanAttention, "__call__", forgetful)
    assert "on a trial" in str(why_not_packed(model))
    assert why_not_packed(copy.deepcopy(tiny_model("llama"))) is None


@pytest.mark.parametrize("training", [True, False])
def test_the_trial_leaves_no_trace(tiny_model, training):
    """Neither in the mode, nor in the gradients; dropout (of GPT-2: 0.1) would make the two paths differ."""
    model = copy.deepcopy(tiny_model("gpt2")).train(training)
    assert why_not_packed(model) is None
    assert model.training is training and all(module.training is training for module in model.modules())
    assert all(weights.grad is None and weights.requires_grad for weights in model.parameters())


def test_the_training_mode_comes_back_after_an_error_too(tiny_model, monkeypatch):
    model = copy.deepcopy(tiny_model("llama")).train()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(paths, "shared_sums", stop)
    with pytest.raises(KeyboardInterrupt):
        why_not_packed(model)
    assert model.training and model.config._attn_implementation == "sdpa"


# --- the plan ---------------------------------------------------------------------------------------------------------

lists = st.lists(st.integers(0, 5), min_size=1, max_size=12)
groups_of = st.lists(st.builds(Group, lists, st.lists(lists, max_size=4)), max_size=7)


def test_plans_by_hand():
    """Costs of 5, 5, 9 and 2 under 10: the first two fill a pass; 9 + 2 are too many. Under 8 the third is too large.

    Naive, with a prompt for each response: 5, 4 + 4, 8 + 5 + 5 and 2. Two passes: prompts 3, 3, 4, 1 in half of 14.
    """
    groups = [
        Group([1, 2, 3], [[4, 5]]),
        Group([1, 2, 3], [[4], [5]]),
        Group([1, 2, 3, 4], [[5, 6, 7, 8], [9], [9]]),
        Group([1], [[2]]),
    ]
    assert [group.cost for group in groups] == [5, 5, 9, 2]
    assert plan(groups, "shared", 10) == [("shared", [0, 1]), ("shared", [2]), ("shared", [3])]
    assert plan(groups, "shared", 8) == [("shared", [0]), ("shared", [1]), ("two_pass", [2]), ("shared", [3])]
    assert plan(groups, "naive", 13) == [("naive", [0, 1]), ("naive", [2]), ("naive", [3])]
    assert plan(groups, "two_pass", 14) == [("two_pass", [0, 1]), ("two_pass", [2, 3])]
    assert plan([], "shared", 8) == []


@given(groups_of, st.sampled_from(["naive", "shared", "two_pass"]), st.integers(1, 60))
def test_every_group_once_in_order_and_within_the_budget(groups, path, budget):
    planned = plan(groups, path, budget)
    assert [number for _, numbers in planned for number in numbers] == list(range(len(groups)))
    for how, numbers in planned:
        some = [groups[number] for number in numbers]
        if path == "shared":
            cost = sum(group.cost for group in some)
            assert how == ("two_pass" if cost > budget else "shared")
            assert how == "shared" or len(some) == 1
        elif path == "two_pass":
            assert how == "two_pass"
            assert len(some) == 1 or sum(len(group.prompt) for group in some) <= budget / 2
        else:
            assert how == "naive"
            rows = [len(group.prompt) + len(response) for group in some for response in group.responses]
            assert len(some) == 1 or sum(rows) <= budget


def test_padding_by_hand():
    """Rows of 5, 4 and 5 tokens: at most 5 wide, together or question by question, one is padded; none if shared."""
    groups = [Group([1, 2, 3], [[4, 5], [6]]), Group([1, 2, 3, 4], [[5]])]
    assert padding(groups, [("naive", [0, 1])]) == pytest.approx(1 / 15)
    assert padding(groups, [("naive", [0]), ("naive", [1])]) == pytest.approx(1 / 15)  # 2 x 5 for 9, 5 for 5
    assert padding(groups, [("naive", [1])]) == padding(groups, [("shared", [0, 1])]) == padding(groups, []) == 0


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["naive", "shared", "two_pass"])
@pytest.mark.parametrize("budget", [1, 12, 1000])
def test_scores_are_means_in_the_groups_order(tiny_model, path, budget):
    """Whatever the budget; without a graph, and the model's attention is its own afterwards."""
    model = tiny_model("qwen2")
    groups = [
        Group([2, 3, 4, 5], [[6, 7, 1], [8, 1], [6, 7, 1]]),
        Group([9], [[10]]),
        Group([11, 12], [[13, 14, 15, 16, 17, 18, 19, 20, 1], [21]]),
    ]
    pairs = [(group.prompt, response) for group in groups for response in group.responses]
    with torch.no_grad():
        expected = token_logprobs(model, [p for p, _ in pairs], [r for _, r in pairs]).scores_R
    found = score(model, path, groups, budget)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=5e-6)
    assert not found.requires_grad and model.config._attn_implementation == "sdpa"


def test_score_holds_no_more_than_the_budget(tiny_model):
    """A group of 4 + 5 x 6 tokens under 13: its prompt, then two of [5 read of 6] at a time, and one."""
    model = copy.deepcopy(tiny_model("llama"))
    read = []
    model.model.register_forward_pre_hook(
        lambda _, args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    score(model, "shared", [Group([2, 3, 4, 5], [[n, 7, 8, 9, 10, 1] for n in range(20, 25)])], 13)
    assert read == [4, 10, 10, 5]


def test_positions_that_depend_on_the_length_are_refused():
    """The prompt alone is read at other frequencies than with its response."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    shape: dict[str, Any] = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, rope_parameters=rope))
    assert why_not_packed(model) == "its rotary positions depend on the length of the input"


def test_the_trial_sees_a_memory_that_is_wrong(tiny_model, monkeypatch):
    """A model that calls attention twice in a layer would leave the keys of one call only."""
    original = shared._detached
    monkeypatch.setattr(shared, "_detached", lambda memory: {i: (0.5 * k, v) for i, (k, v) in original(memory).items()})
    assert "differ by" in str(why_not_packed(tiny_model("llama")))
