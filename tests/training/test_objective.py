"""The loss of a part of a step: exact zeros where no gradient is needed, and parts that add up to the whole."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.alignment.losses import CONSTRAINTS, TERMS
from aft.training.examples import Example
from aft.training.objective import Totals, needs_gradient, objective_loss
from aft.training.settings import Objective

objectives = st.one_of(
    st.builds(
        Objective,
        term=st.sampled_from([*TERMS]),
        constraint=st.sampled_from(CONSTRAINTS),
        imitate=st.sampled_from(["reference", "positives"]),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
        beta=st.sampled_from([-0.3, 0.15, 1.0]),
    ),
    st.just(Objective()),
)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """One or two targets, up to five candidates, ranks of any levels, and whatever a term may read of them."""

    def responses(least: int, most: int) -> list[list[int]]:
        return [[7] * n for n in draw(st.lists(st.integers(1, 9), min_size=least, max_size=most))]

    targets, candidates = responses(1, 2), responses(0, 5)
    n = len(candidates)
    ranks = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    reference, behaviour = (draw(st.lists(st.floats(-5, 0), min_size=n, max_size=n)) for _ in range(2))
    rewards = draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n))
    return Example("q", [2, 3], targets, candidates, ranks, reference, (), rewards, behaviour)


batches = st.lists(examples(), min_size=1, max_size=5)


def random_sums(batch: list[Example], seed: int) -> torch.Tensor:
    """Log-probabilities of about -1.5 per token."""
    lengths = [len(response) for example in batch for response in example.group.responses]
    made = torch.Generator().manual_seed(seed)
    return -(torch.rand(len(lengths), generator=made, dtype=torch.float64) * 3 + 0.01) * torch.tensor(lengths)


@settings(max_examples=120, deadline=None)
@given(batch=batches, objective=objectives, seed=st.integers(0, 99))
def test_no_gradient_where_none_is_needed(batch, objective, seed):
    """Exactly zero, not just small: what has no graph adds nothing."""
    needed = needs_gradient(batch, objective)
    sums = random_sums(batch, seed).requires_grad_()
    loss, metrics = objective_loss(sums, batch, objective, Totals.of(batch))
    (gradient,) = torch.autograd.grad(loss, sums)
    assert len(needed) == len(sums)
    assert not gradient[[not one for one in needed]].any()
    assert not any(value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_what_is_said_to_be_needed_is(term, constraint):
    """Ranks 0, 1, 2, 2 with nearly equal scores: each candidate that is named has a gradient, so none is named in vain.

    Only the lowest of a question have none, and only if the lower role is detached. Of single responses, two are right
    and two wrong: the second of rank 1, and one of the lowest rank.
    """
    rewards = [1.0, 0.0, 1.0, 0.0]
    batch = [Example("q", [2], [[7]], [[7, 7]] * 4, [0, 1, 2, 2], [-1.0] * 4, (), rewards, [-0.98] * 4)]
    objective = Objective(term=term, constraint=constraint)
    free = constraint in ("none", "boundary")
    expected = [True, True, True, free, free]
    if TERMS[term].family == "pointwise":
        expected = [True, True, constraint != "detached", True, free]
    assert needs_gradient(batch, objective) == expected
    sums = torch.tensor([-1.0, -2.00, -1.98, -1.96, -1.94], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(objective_loss(sums, batch, objective, Totals.of(batch))[0], sums)
    assert (gradient != 0).tolist() == expected


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_wrong_response_without_anything_better_is_pushed_down_by_no_constraint(constraint):
    """All wrong: there is no boundary, and its only rank is the lowest."""
    batch = [Example("q", [2], [[7]], [[7], [7]], [0, 0], rewards=[0.0, 0.0])]
    objective = Objective(term="redi", constraint=constraint)
    expected = [True, *[constraint == "none"] * 2]
    assert needs_gradient(batch, objective) == expected
    sums = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(objective_loss(sums, batch, objective, Totals.of(batch))[0], sums)
    assert (gradient != 0).tolist() == expected


def test_without_candidates_only_the_targets_are_needed():
    """One rank only is the question's lowest, too."""
    batch = [Example("q", [2], [[7], [8]]), Example("r", [2], [[7]], [[9], [8]], [1, 1])]
    assert needs_gradient(batch, Objective()) == [True] * 5
    assert needs_gradient(batch, Objective(term="aft", constraint="detached")) == [True, True, True, False, False]


def test_what_has_no_weight_needs_no_gradient_beside_what_has_one():
    """But where nothing else has one, so that a pass with such examples alone can go backwards."""
    batch = [Example("q", [2], [[7]], [[7], [8]], [0, 1], [-1.0] * 2), Example("r", [2], [[7]])]
    objective = Objective(term="dpo", constraint="detached", vft_weight=0)
    assert needs_gradient(batch, objective) == [False, True, False, True]


# --- parts of a step --------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(batch=batches, objective=objectives, seed=st.integers(0, 99), cuts=st.sets(st.integers(1, 4)))
def test_parts_add_up_to_the_whole(batch, objective, seed, cuts):
    """Loss, gradient and every metric, wherever the step is split; the means over responses as well."""
    totals = Totals.of(batch)
    sums = random_sums(batch, seed).requires_grad_()
    loss, metrics = objective_loss(sums, batch, objective, totals)
    (gradient,) = torch.autograd.grad(loss, sums)

    bounds = [0, *sorted(cut for cut in cuts if cut < len(batch)), len(batch)]
    added, told, place = torch.tensor(0.0, dtype=torch.float64), dict.fromkeys(metrics, 0.0), 0
    for first, last in itertools.pairwise(bounds):
        part = batch[first:last]
        n = sum(len(example.group.responses) for example in part)
        share, its_metrics = objective_loss(sums[place : place + n], part, objective, totals)
        added, place = added + share, place + n
        for name, value in its_metrics.items():
            told[name] += float(value)
    torch.testing.assert_close(added, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(added, sums)[0], gradient, rtol=1e-12, atol=1e-12)
    assert told == pytest.approx({name: float(value) for name, value in metrics.items()}, rel=1e-12, abs=1e-12)


def step() -> tuple[list[Example], torch.Tensor]:
    """Two comparable questions, one with one rank only, one without candidates."""
    batch = [
        Example("a", [2], [[7, 7]], [[7], [7, 7], [7]], [0, 1, 1]),
        Example("b", [2], [[7]], [[7, 7], [7]], [1, 1]),
        Example("c", [2], [[7]], [[7], [7], [7, 7]], [2, 2, 5]),
        Example("d", [2], [[7, 7, 7]]),
    ]
    return batch, torch.tensor([-1.0, -1, -4, -3, -2.0, -9, -9, -3.0, -2, -4, -12, -6.0], dtype=torch.float64)


def test_the_whole_by_hand():
    """Targets: 1 + 2 + 3 + 6 = 12 nats for 2 + 1 + 1 + 3 = 7 tokens.

    Scores of a: -1 above -2 and -3; of c: -2 and -4 above -6. RRHF: no pair is in the wrong order, so 0. Positives:
    (-1 - 2 - 4) / 3; negatives: (-2 - 3 - 6) / 3; margins: -1 + 2.5 and -3 + 6.
    """
    batch, sums = step()
    loss, metrics = objective_loss(sums, batch, Objective(term="rrhf"), Totals.of(batch))
    assert Totals.of(batch) == Totals(target_tokens=7, targets=4, questions=4, comparable=2, positives=3, negatives=3)
    expected = {
        **{"vft_term": 12 / 7, "alignment_term": 0.0, "constraint_term": 0.0},
        **{"score_positive": -7 / 3, "score_negative": -11 / 3, "margin": 2.25},
    }
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected)
    assert float(loss) == pytest.approx(12 / 7)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("mean", (6 / 2 + 8 / 1 + 3 / 3) / 3), ("sum", (6 + 8 + 3) / 3), ("pro", (6 + 8) / 3)],
)
def test_right_samples_weigh_as_much_as_the_reference(reduction, expected):
    """Two targets of 2 tokens and 1 and one of 3: each a third of the mean, whatever its length and its question.

    In PRO's reduction the question with two ranked candidates counts (2 - 1)^2, the other one has nothing to rank.
    """
    batch = [Example("a", [2], [[7, 7], [7]], [[7], [8]], [0, 1]), Example("b", [2], [[7, 7, 7]])]
    objective = Objective(term="aft", imitate="positives", vft_reduction=reduction)
    sums = torch.tensor([-6.0, -8, -1, -2, -3], dtype=torch.float64)
    _, metrics = objective_loss(sums, batch, objective, Totals.of(batch))
    assert float(metrics["vft_term"]) == pytest.approx(expected)


def test_the_weight_and_the_questions_without_a_pair():
    """AFT of a: log[1 + e^-1 + e^-2], of c: log[1 + e^-4 + e^-2]; b and d add 0 to the mean over four questions."""
    batch, sums = step()
    loss, _ = objective_loss(sums, batch, Objective(term="aft", weight=0.5), Totals.of(batch))
    term = math.log(1 + math.exp(-1) + math.exp(-2)) + math.log(1 + math.exp(-4) + math.exp(-2))
    assert float(loss) == pytest.approx(12 / 7 + 0.5 * term / 4)


def test_reference_scores_are_those_of_their_candidates():
    """DPO with beta .1 on c: upper scores -2 and -4 above -6, less -1, -5 and -2; hand-made pairs of its own."""
    batch, sums = step()
    c = batch[2]
    part = [Example(c.question_id, c.prompt, c.targets, c.candidates, c.ranks, [-1.0, -5.0, -2.0])]
    loss, _ = objective_loss(sums[7:11], part, Objective(term="dpo"), Totals.of(part))
    gaps = [(-2 + 1) - (-6 + 2), (-4 + 5) - (-6 + 2)]
    assert float(loss) == pytest.approx(3.0 + sum(math.log(1 + math.exp(-0.1 * gap)) for gap in gaps))


def test_maximum_likelihood_alone_has_no_alignment_metrics():
    batch, sums = step()
    loss, metrics = objective_loss(sums, batch, Objective(), Totals.of(batch))
    told: dict[str, Any] = metrics
    assert set(told) == {"vft_term"} and float(loss) == float(told["vft_term"]) == pytest.approx(12 / 7)


def test_ratings_that_float32_cannot_tell_apart_keep_their_ranks():
    """tau = 1e-9 (Eq. 21), so that log[1 + e^(tau s_2 - tau s_1)] is ln 2 (Eq. 20); in float32 1 - 1e-9 is 1."""
    example = Example("q", [2, 3], [[7]], [[7], [7, 7]], [0, 1], ratings=[1.0, 1.0 - 1e-9])
    objective = Objective(term="pro", feedback="ranking", vft_weight=0)
    sums = torch.tensor([-2.0, -1.0, -4.0])
    loss, _ = objective_loss(sums, [example], objective, Totals.of([example]))
    assert float(loss) == pytest.approx(math.log(2), abs=1e-6)
