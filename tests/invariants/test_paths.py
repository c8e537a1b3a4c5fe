"""Every path gives the scores, the loss and the gradient of the naive one, for every model and objective."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.alignment.losses import CONSTRAINTS, TERMS, alignment_loss
from aft.scoring import head, paths
from aft.scoring.groups import Group
from aft.training import objective as objective_module
from aft.training.examples import Example
from aft.training.objective import Totals, needs_gradient, objective_loss
from aft.training.settings import Objective

KINDS = ("llama", "qwen2", "qwen3", "gpt2", "mistral", "mixed")
BOUNDARY = Objective(term="aft", constraint="boundary", weight=0.7)
DETACHED = Objective(term="aft", constraint="detached", weight=0.7)
FAST: list[
    tuple[paths.Path, int, bool, int | None]
] = [  # path, token budget, whether it is told which responses need a gradient, logits at a time
    ("shared", 10_000, False, None),
    ("shared", 10_000, True, None),
    ("shared", 9, True, None),  # most of what needs no gradient is scored response by response
    ("shared", 10_000, True, 3 * 64),  # the head runs at three places at a time
    ("two_pass", 10_000, False, None),
    ("two_pass", 60, False, None),  # 43 tokens of prompts: 17 are left for responses
    ("two_pass", 1, False, None),  # response by response
    ("two_pass", 60, False, 3 * 64),
]


class Result(NamedTuple):
    sums_R: torch.Tensor
    loss: torch.Tensor
    gradients: dict[str, torch.Tensor]

    @property
    def largest(self) -> float:
        """The largest entry of the gradient of the whole model."""
        return max(float(gradient.abs().max()) for gradient in self.gradients.values())


Way = tuple[paths.Path, int]  # path, token budget
WAYS: list[Way] = [("shared", 10_000), ("shared", 9), ("two_pass", 60)]


def run(
    model: Any,
    path: paths.Path,
    groups: Sequence[Group],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    needed: Sequence[bool] | None = None,
    budget: int = 10_000,
) -> Result:
    """One backward pass on a path, from no gradient at all."""
    seen = []

    def remember(sums_R: torch.Tensor) -> torch.Tensor:
        seen.append(sums_R.detach().clone())
        return loss_of(sums_R)

    model.zero_grad()
    with paths.mode(model, path):
        loss = paths.backward(model, path, groups, needed, remember, budget)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    (sums_R,) = seen
    return Result(sums_R, loss, {name: gradient.clone() for name, gradient in gradients.items()})


def run_examples(
    model: Any, path: paths.Path, examples: list[Example], objective: Objective, told: bool = True, budget: int = 10_000
) -> Result:
    groups, totals = [example.group for example in examples], Totals.of(examples)
    needed = needs_gradient(examples, objective) if told else None
    return run(model, path, groups, lambda sums: objective_loss(sums, examples, objective, totals)[0], needed, budget)


def difference(one: Result, other: Result) -> float:
    """The largest difference of two gradients, relative to the largest entry of the second."""
    gaps = [float((one.gradients[name] - expected).abs().max()) for name, expected in other.gradients.items()]
    return max(gaps) / other.largest


def assert_equal(found: Result, expected: Result, tolerance: float) -> None:
    torch.testing.assert_close(found.sums_R, expected.sums_R, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.loss, expected.loss, rtol=tolerance, atol=tolerance)
    assert found.gradients.keys() == expected.gradients.keys()
    assert difference(found, expected) <= tolerance


# --- in float64: the paths are the same function ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", [BOUNDARY, DETACHED], ids=lambda objective: objective.label)
def test_all_paths_are_equal_for_every_model(kind, objective, make_model, examples, monkeypatch):
    model = make_model(kind, exact=True)
    expected = run_examples(model, "naive", examples, objective)
    assert expected.loss.dtype == torch.float64 and expected.largest > 0.01
    for path, budget, told, logits in FAST:
        with monkeypatch.context() as patch:
            patch.setattr(head, "_MOST_LOGITS", logits or 2**25)
            assert_equal(run_examples(model, path, examples, objective, told, budget), expected, 1e-10)


RATED = "pro, rated"
WIDE = {"gspo": {"epsilon": 0.9}}  # a few responses are inside


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("term", [*TERMS, RATED])
def test_all_objectives_are_equal_on_all_paths(term, constraint, make_model, examples, monkeypatch):
    """Ratings fall by .4 with each rank; one question lacks one, so that it takes none (NaN)."""
    model = make_model("llama", exact=True)
    imitate = "positives" if term == "aft" else "reference"
    objective = Objective(
        term="pro" if term == RATED else term,
        constraint=constraint,
        weight=1.3,
        imitate=imitate,
        constants=WIDE.get(term, {}),
    )
    if term == RATED:
        ratings = torch.full((len(examples), 5), torch.nan, dtype=torch.float64)
        for row, example in enumerate(examples):
            ratings[row, : len(example.ranks)] = torch.tensor([2 - 0.4 * rank for rank in example.ranks])
        ratings[-1, 1] = torch.nan
        rated = functools.partial(alignment_loss, ratings_Q_K=ratings)
        monkeypatch.setattr(objective_module, "alignment_loss", rated)
    expected = run_examples(model, "naive", examples, objective)
    plain = run_examples(model, "naive", examples, Objective())
    assert difference(expected, plain) > 0.01, "else the term would not be tested"
    for path, budget in WAYS:
        assert_equal(run_examples(model, path, examples, objective, True, budget), expected, 1e-10)


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=9)  # few different ones: equal responses are frequent
weighted = st.lists(st.tuples(tokens, st.sampled_from([-2.0, 0.0, 0.0, 1.0, 3.0])), max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(tokens, weighted), min_size=1, max_size=4).filter(lambda rows: any(r for _, r in rows)),
    budget=st.integers(1, 60),
    path=st.sampled_from(["shared", "two_pass"]),
    kind=st.sampled_from(["llama", "mixed"]),
    curved=st.booleans(),
)
def test_any_groups_and_weights(rows, budget, path, kind, curved, exact_models):
    """Loss = sum of weight x sum of log-probabilities (or its square / 100); the weight 0 needs no gradient."""
    model = exact_models[kind]
    groups = [Group(prompt, [response for response, _ in responses]) for prompt, responses in rows]
    weights = torch.tensor([weight for _, responses in rows for _, weight in responses], dtype=torch.float64)

    def loss_of(sums_R: torch.Tensor) -> torch.Tensor:
        return (weights * (sums_R**2 / 100 if curved else sums_R)).sum()

    expected = run(model, "naive", groups, loss_of)
    found = run(model, path, groups, loss_of, [bool(weight) for weight in weights], budget)
    torch.testing.assert_close(found.sums_R, expected.sums_R, rtol=1e-10, atol=1e-10)
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=0, atol=1e-10 * max(1.0, expected.largest))


@pytest.fixture(scope="module")
def exact_models(make_model):
    return {kind: make_model(kind, exact=True) for kind in ("llama", "mixed")}


# --- in the precisions of training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_float32_loses_no_more_than_the_naive_path(kind, make_model, examples):
    """Against float64: at most three times what the naive path itself loses, or 1e-6 of the largest entry."""
    exact = run_examples(make_model(kind, exact=True), "naive", examples, BOUNDARY)
    model = make_model(kind)
    naive = run_examples(model, "naive", examples, BOUNDARY)
    assert naive.loss.dtype == torch.float32
    allowed = max(3 * difference(naive, exact), 1e-6)
    assert allowed < 2e-5
    for path, budget in WAYS:
        found = run_examples(model, path, examples, BOUNDARY, True, budget)
        torch.testing.assert_close(found.sums_R.double(), exact.sums_R, rtol=2e-6, atol=2e-5)
        assert difference(found, exact) <= allowed


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_agrees_to_its_precision(kind, make_model, examples, device):
    """A step of bfloat16 is 2^-8 = .4 %: the gradients of two paths differ by 2 % of their norm at most.

    Either is nearer to the other than to float64, and about as far from it: at most half as far again. No weight is
    left without its gradient: autocast keeps casts of weights, those of a pass without a graph as well.
    """
    exact = run_examples(make_model(kind, exact=True), "naive", examples, DETACHED)
    model = make_model(kind)
    with torch.autocast(device, dtype=torch.bfloat16):
        expected = run_examples(model, "naive", examples, DETACHED)
    for path, budget in WAYS:
        with torch.autocast(device, dtype=torch.bfloat16):
            found = run_examples(model, path, examples, DETACHED, True, budget)
        assert found.sums_R.dtype == torch.float32
        torch.testing.assert_close(found.sums_R, expected.sums_R, rtol=2e-2, atol=0.1)
        torch.testing.assert_close(found.loss, expected.loss, rtol=2e-2, atol=0)
        assert distance(found, expected) <= min(2e-2, distance(expected, exact))
        assert difference(found, exact) <= 1.5 * difference(expected, exact)


def distance(one: Result, other: Result) -> float:
    """The norm of the difference of two gradients, relative to the norm of the second."""
    flat, expected = (
        torch.cat([result.gradients[name].double().flatten() for name in other.gradients]) for result in (one, other)
    )
    return float((flat - expected).norm() / expected.norm())


# --- with what else training may do -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "mixed"])
def test_gradient_checkpointing_changes_nothing(kind, make_model, examples):
    model = make_model(kind, exact=True)
    expected = run_examples(model, "naive", examples, DETACHED)
    ways: list[Way] = [("naive", 10_000), *WAYS]
    calls: list[None] = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(None))
    without = []
    for path, budget in ways:
        calls.clear()
        run_examples(model, path, examples, DETACHED, True, budget)
        without.append(len(calls))
    model.train()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    for (path, budget), before in zip(ways, without, strict=True):
        calls.clear()
        found = run_examples(model, path, examples, DETACHED, True, budget)
        assert_equal(found, expected, 1e-10)
        assert len(calls) > before, "no layer was computed again"


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_two_passes_are_exact_with_dropout(kind, checkpointing, make_model, examples):
    """The loss of a seed is a function of the weights; along any direction its central difference is the gradient.

    With a step of 1e-5 the difference errs by about 1e-10. The second pass must repeat the random numbers of the first.
    """
    model = make_model(kind, exact=True).train()
    if kind == "llama":
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.3
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    objective = Objective(term="aft")  # nothing is held constant in it

    def at(seed: int) -> Result:
        torch.manual_seed(seed)
        return run_examples(model, "two_pass", examples, objective, budget=60)

    with torch.random.fork_rng(devices=[]):
        found = at(1)
        state = torch.get_rng_state()
        assert float(at(1).loss) == float(found.loss) and torch.equal(torch.get_rng_state(), state)
        assert abs(at(2).loss - found.loss) > 1e-3, "else there would be no dropout"
        torch.manual_seed(0)
        direction = {name: torch.randn_like(weights) for name, weights in model.named_parameters()}
        expected = sum(float((found.gradients[name] * direction[name]).sum()) for name in direction)

        def moved(step: float) -> float:
            with torch.no_grad():
                for name, weights in model.named_parameters():
                    weights.add_(direction[name], alpha=step)
            return float(at(1).loss)

        up, down = moved(1e-5), moved(-2e-5)
    assert (up - down) / 2e-5 == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_adapters_get_the_same_gradients(precision, make_model, examples, device):
    """LoRA on queries and values: the frozen weights get no gradient, the adapters the same one on every path."""
    peft = pytest.importorskip("peft")
    exact = precision == "float64"
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = peft.get_peft_model(make_model("llama", exact), config, autocast_adapter_dtype=False)
    assert paths.choose_path(model, "auto") == "shared"
    autocast = contextlib.nullcontext if exact else functools.partial(torch.autocast, device, dtype=torch.bfloat16)
    with autocast():
        expected = run_examples(model, "naive", examples, DETACHED)
    assert len(expected.gradients) == 2 * 2 * 2 and expected.largest > 1e-3
    for path, budget in WAYS:
        with autocast():
            found = run_examples(model, path, examples, DETACHED, True, budget)
        assert difference(found, expected) <= (1e-10 if exact else 2e-2)
        assert all(weights.grad is None for weights in model.parameters() if not weights.requires_grad)


# --- thoughts that are read and not scored ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "mixed", "gpt2"])
@pytest.mark.parametrize("objective", [BOUNDARY, DETACHED], ids=lambda objective: objective.label)
def test_what_is_not_scored_is_left_out_on_all_paths(kind, objective, make_model, examples, monkeypatch):
    """All but one, none and half of the tokens of each response in turn are read only.

    The naive path reads them as a part of the prompt. Whatever gradient the others have, none is of a token left out.
    """
    model, marked = make_model(kind, exact=True), []
    for example in examples:
        lengths = [len(response) for response in example.group.responses]
        marked.append(replace(example, unscored=[(n - 1, 0, n // 2)[i % 3] for i, n in enumerate(lengths)]))
    expected = run_examples(model, "naive", marked, objective)
    everything = run_examples(model, "naive", examples, objective)
    assert abs(float(expected.loss - everything.loss)) > 0.01
    responses = [(e.prompt, *part) for e in marked for part in e.group.parts]
    moved = [Group([*prompt, *response[:first]], [response[first:]]) for prompt, response, first in responses]
    torch.testing.assert_close(run(model, "naive", moved, torch.sum).sums_R, expected.sums_R, rtol=0, atol=1e-10)
    for path, budget, told, logits in FAST:
        with monkeypatch.context() as patch:
            patch.setattr(head, "_MOST_LOGITS", logits or 2**25)
            assert_equal(run_examples(model, path, marked, objective, told, budget), expected, 1e-10)
