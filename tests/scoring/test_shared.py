"""What the shared paths read, keep and leave alone; that they are exact is said in tests/invariants/test_paths.py."""

import copy
import math
from typing import Any, NamedTuple

import pytest
import torch

from aft.scoring.attention import packed_rows
from aft.scoring.groups import Group
from aft.scoring.naive import token_logprobs
from aft.scoring.shared import shared_sums, two_pass_backward

GROUPS = [
    Group([2, 3, 4], [[5, 6, 7, 1], [8, 1], [5, 6, 7, 1], [9]]),  # two equal ones, and one of a single token
    Group([10, 11, 12, 13, 14], [[15, 16, 17, 18, 1]]),  # nobody to share with
    Group([2, 3, 4], [[8, 1], [20, 21, 22, 23, 24, 25, 1]]),  # the first group's prompt again
]
PROMPTS = 3 + 5 + 3


class Pass(NamedTuple):
    read: list[int]  # token ids that the layers were given
    positions: list[int]
    graph: bool


@pytest.fixture
def model(tiny_model) -> Any:
    return copy.deepcopy(tiny_model("llama"))


@pytest.fixture
def passes(model) -> list[Pass]:
    """What each call of the model reads."""
    seen: list[Pass] = []

    def remember(_: Any, args: Any, given: dict[str, Any]) -> None:
        if "spans" in given:
            seen.append(
                Pass(given["input_ids"][0].tolist(), given["position_ids"][0].tolist(), torch.is_grad_enabled())
            )

    model.register_forward_pre_hook(remember, with_kwargs=True)
    return seen


def naive_sums(model: Any, groups: list[Group]) -> torch.Tensor:
    pairs = [(group.prompt, response) for group in groups for response in group.responses]
    return token_logprobs(model, [p for p, _ in pairs], [r for _, r in pairs]).sums_R


def test_uniform_logits_by_hand(model):
    """With all output weights 0 each token costs log 64: 4, 2, 4, 1, 5, 2 and 7 of them, in the order of the groups."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
    with packed_rows(model):
        sums = shared_sums(model, GROUPS)
    torch.testing.assert_close(sums, -math.log(64) * torch.tensor([4.0, 2, 4, 1, 5, 2, 7]))


def test_one_pass_reads_each_prompt_and_each_distinct_response_once(model, passes):
    """All but the last token of a response, at the positions after its prompt; a lone one right behind its prompt."""
    with packed_rows(model):
        sums = shared_sums(model, GROUPS)
    (only,) = passes
    assert only.graph and sums.requires_grad
    prompts = [2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 2, 3, 4]
    assert only.read == [*prompts, 5, 6, 7, 8, 8, 20, 21, 22, 23, 24, 25]
    assert only.positions == [*range(3), *range(9), *range(3), 3, 4, 5, 3, 3, *range(3, 9)]
    assert sums[0] == sums[2], "equal responses of a question have the same score"
    torch.testing.assert_close(sums, naive_sums(model, GROUPS), rtol=1e-6, atol=2e-5)


def test_what_needs_no_gradient_is_read_without_a_graph(model, passes):
    """[8, 1] of the first group only: its pass is the prompts and one token; the rest follows, 6 tokens at a time.

    Short ones first: [8] and [5, 6, 7] are 4 tokens, [15, 16, 17, 18] would be two too many, and the last is 6.
    """
    needed = [False, True, False, False, False, False, False]
    expected = naive_sums(model, GROUPS)
    with packed_rows(model):
        sums = shared_sums(model, GROUPS, needed, 6)
        assert [(len(one.read), one.graph) for one in passes] == [
            (PROMPTS + 1, True),
            (4, False),
            (4, False),
            (6, False),
        ]
        assert passes[0].read[-1] == 8 and passes[1].read == [8, 5, 6, 7]
        torch.testing.assert_close(sums, expected, rtol=1e-6, atol=2e-5)
        wanted, *rest = [torch.autograd.grad(sums[i], model.lm_head.weight, retain_graph=True)[0] for i in (1, 4)]
    assert wanted.any() and not any(gradient.any() for gradient in rest)


def test_a_response_is_needed_if_one_of_its_equals_is(model, passes):
    """The third is the first again: both have the gradient."""
    needed = [False, False, True, False, False, False, False]
    with packed_rows(model):
        sums = shared_sums(model, GROUPS, needed, 100)
        assert passes[0].read[PROMPTS:] == [5, 6, 7]
        one, other = (torch.autograd.grad(sums[i], model.lm_head.weight, retain_graph=True)[0] for i in (0, 2))
    assert one.any() and torch.equal(one, other)


def test_without_gradients_nothing_has_a_graph(model, passes):
    """All at once without a budget; with one of 7, prompts first (at once: they are kept), then 4, 4 and 6 tokens."""
    with packed_rows(model), torch.no_grad():
        whole = shared_sums(model, GROUPS)
        assert [one.graph for one in passes] == [False] and len(passes[0].read) == PROMPTS + 3 + 1 + 4 + 1 + 6
        passes.clear()
        parts = shared_sums(model, GROUPS, None, 7)
    assert [len(one.read) for one in passes] == [PROMPTS, 1 + 1 + 3, 4, 6]
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=2e-5)
    assert not whole.requires_grad and not parts.requires_grad


@pytest.mark.parametrize(("budget", "rest"), [(PROMPTS + 7, [5, 4, 6]), (PROMPTS + 15, [15]), (1, [1, 1, 3, 4, 6])])
def test_two_passes_hold_the_prompts_and_the_budget(model, passes, budget, rest):
    """The prompts once, with their graph; then the responses twice, first without a graph: 1 + 1 + 3 + 4 + 6 tokens."""
    with packed_rows(model):
        loss = two_pass_backward(model, GROUPS, torch.sum, budget)
    assert [(len(one.read), one.graph) for one in passes] == [
        (PROMPTS, True),
        *[(n, False) for n in rest],
        *[(n, True) for n in rest],
    ]
    torch.testing.assert_close(loss, naive_sums(model, GROUPS).sum().detach(), rtol=1e-6, atol=2e-5)
    assert not loss.requires_grad


def test_what_has_no_weight_is_not_read_again(model, passes):
    """Only [8, 1] of the first group, alone in its chunk, counts in the loss; and [9], which the prompt predicts."""
    with packed_rows(model):
        two_pass_backward(model, GROUPS, lambda sums: sums[1] + sums[3], 1)
    assert [len(one.read) for one in passes] == [PROMPTS, 1, 1, 3, 4, 6, 1]
    assert passes[-1].read == [8] and passes[-1].graph


def test_responses_of_one_token_need_no_second_pass(model, passes):
    groups = [Group([2, 3, 4], [[5], [6]]), Group([7], [[8]])]
    with packed_rows(model):
        two_pass_backward(model, groups, lambda sums: sums @ torch.tensor([1.0, -2.0, 3.0]), 100)
    found = model.model.embed_tokens.weight.grad.clone()
    assert [one.read for one in passes] == [[2, 3, 4, 7]]
    model.zero_grad()
    (naive_sums(model, groups) @ torch.tensor([1.0, -2.0, 3.0])).backward()
    torch.testing.assert_close(found, model.model.embed_tokens.weight.grad, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_added_to_what_is_there(model):
    """As autograd does it, so that the passes of a step add up."""
    weight = model.model.layers[0].self_attn.k_proj.weight
    with packed_rows(model):
        two_pass_backward(model, GROUPS, torch.sum, 20)
        once = weight.grad.clone()
        two_pass_backward(model, GROUPS, torch.sum, 20)
    assert once.any()
    torch.testing.assert_close(weight.grad, 2 * once)


def test_two_passes_run_the_backward_that_they_are_given(model):
    """Once for each chunk of responses, and last for the prompts: the trainer's own backward, with its scaling."""
    calls = []

    def run(loss: torch.Tensor) -> None:
        calls.append(loss.shape)
        loss.backward()

    with packed_rows(model):
        two_pass_backward(model, GROUPS, torch.sum, 1, run)
    assert calls == [torch.Size([])] * 6, "five responses of more than one token, and the prompts"


@pytest.mark.parametrize("loss_of", [torch.sum, lambda sums: sums[1]], ids=["all", "first chunk only"])
def test_the_random_numbers_go_on_as_after_one_pass(tiny_model, loss_of):
    """With dropout (.1 of GPT-2), what follows draws what it would without a second pass, which may skip chunks."""
    model = copy.deepcopy(tiny_model("gpt2")).train()
    with torch.random.fork_rng(devices=[]), packed_rows(model):
        torch.manual_seed(0)
        with torch.no_grad():
            shared_sums(model, GROUPS, None, 1)  # the same reads in the same order
        expected = torch.rand(3)
        torch.manual_seed(0)
        two_pass_backward(model, GROUPS, loss_of, 1)
        assert torch.equal(torch.rand(3), expected)


def test_a_group_without_responses_is_read_for_nothing(model):
    with packed_rows(model), torch.no_grad():
        some = shared_sums(model, [Group([2, 3], []), GROUPS[1]])
        torch.testing.assert_close(some, shared_sums(model, GROUPS[1:2]), rtol=1e-6, atol=2e-5)


def test_a_model_in_its_usual_mode_is_refused(tiny_model):
    """Its own attention would pass over the spans, and every response would see all others."""
    with pytest.raises(RuntimeError, match="not in the mode of packed_rows"):
        shared_sums(tiny_model("llama"), [Group([2, 3], [[4], [5, 6]])])
