"""Terms of pairs and of single responses: against plain loops in double precision, and at their known limits."""

import math
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings

from aft.alignment.losses import CONSTRAINTS, TERMS, alignment_loss

BETA = 0.15  # the boundary's margin
OTHER = {  # constants unlike the published ones
    **{"dpo_pairs": {"beta": 0.7}, "irpo": {"beta": 0.3, "alpha": 0.4}, "ipo": {"beta": 0.6}},
    **{"simpo": {"beta": 1.3, "gamma": 0.2}, "dpop": {"beta": 0.2, "lam": 3.0}, "apo_zero": {"beta": 0.5}},
    **{"redi": {"alpha": 0.3}, "topr": {"baseline": 0.25}, "gspo": {"epsilon": 0.05}},
}
PUBLISHED = {
    **{"dpo_pairs": {"beta": 0.1}, "irpo": {"beta": 0.1, "alpha": 1.0}, "ipo": {"beta": 0.1}},
    **{"simpo": {"beta": 2.0, "gamma": 1.0}, "dpop": {"beta": 0.3, "lam": 50.0}, "apo_zero": {"beta": 0.1}},
    **{"redi": {"alpha": 0.8}, "topr": {"baseline": 0.0}, "gspo": {"epsilon": 0.2}},
}
POINTWISE = ("apo_zero", "redi", "topr", "gspo")


@dataclass(frozen=True)
class Response:
    """One response of a question; scores are means over its tokens."""

    score: float
    rank: int
    right: bool
    length: int
    reference: float
    behaviour: float

    @property
    def sum(self) -> float:
        return self.score * self.length

    @property
    def log_ratio(self) -> float:
        return self.sum - self.reference * self.length


Batch = list[list[Response]]
Slopes = tuple[float, float, float]  # value, slope in the score of the better one, in that of the worse one


def compute(batch: Batch, term: str, **settings: Any) -> tuple[float, list[list[float]]]:
    """The loss of a ragged batch in float64, and its gradient in every score."""
    most = max(1, *map(len, batch))

    def column(name: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        values = torch.zeros(len(batch), most, dtype=dtype)
        for row, question in zip(values, batch, strict=True):
            row[: len(question)] = torch.tensor([getattr(response, name) for response in question], dtype=dtype)
        return values

    mask = torch.arange(most) < torch.tensor([[len(question)] for question in batch])
    scores = column("score").requires_grad_()
    loss, _ = alignment_loss(
        *(scores, column("rank", torch.int64), mask),
        term=term,
        lengths_Q_K=column("length", torch.int64),
        rewards_Q_K=column("right", torch.bool),
        reference_scores_Q_K=column("reference"),
        behaviour_scores_Q_K=column("behaviour"),
        **settings,
    )
    (gradient,) = torch.autograd.grad(loss, scores)
    assert not gradient[~mask].any()
    return loss.item(), [row[: len(question)].tolist() for row, question in zip(gradient, batch, strict=True)]


# --- plain loops, from the formulas -----------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def minus_log_sigmoid(x: float) -> float:
    return math.log1p(math.exp(-x)) if x >= 0 else math.log1p(math.exp(x)) - x


def of_pair(better: Response, worse: Response, term: str, c: dict[str, float]) -> Slopes:
    if term == "ipo":
        gap = (better.score - better.reference) - (worse.score - worse.reference) - 1 / (2 * c["beta"])
        return gap**2, 2 * gap, -2 * gap
    if term == "simpo":
        x = c["beta"] * (better.score - worse.score) - c["gamma"]
        slope = c["beta"] * sigmoid(-x)
        return minus_log_sigmoid(x), -slope, slope
    fall = c["lam"] * max(0.0, -better.log_ratio) if term == "dpop" else 0.0
    steeper = 1 + c["lam"] if term == "dpop" and better.log_ratio < 0 else 1.0
    x = c["beta"] * (better.log_ratio - worse.log_ratio - fall)
    slope, alpha = c["beta"] * sigmoid(-x), c["alpha"] if term == "irpo" else 0.0
    return minus_log_sigmoid(x) - alpha * better.score, -slope * steeper * better.length - alpha, slope * worse.length


def of_point(y: Response, question: list[Response], term: str, c: dict[str, float]) -> tuple[float, float]:
    """Value, and slope in the score."""
    if term == "apo_zero":
        p = sigmoid(c["beta"] * y.log_ratio)
        slope = c["beta"] * p * (1 - p) * y.length
        return (1 - p, -slope) if y.right else (p, slope)
    if term == "redi":
        return (-y.score, -1.0) if y.right else (c["alpha"] * y.score, c["alpha"])
    rewards = [1 if other.right else -1 for other in question]
    reward = 1 if y.right else -1
    if term == "topr":
        taper = 1.0 if y.right else math.exp(min(0.0, y.sum - y.behaviour * y.length))
        weight = -taper * (reward - c["baseline"])
        return weight * y.sum, weight * y.length
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((other - mean) ** 2 for other in rewards) / len(rewards))
    advantage = (reward - mean) / std if std else 0.0
    ratio = math.exp(y.score - y.behaviour)
    clipped = min(max(ratio, 1 - c["epsilon"]), 1 + c["epsilon"])
    if ratio * advantage <= clipped * advantage:
        return -ratio * advantage, -ratio * advantage
    return -clipped * advantage, 0.0


def constrained(slope: float, y: Response, question: list[Response], constraint: str) -> float:
    """The slope in the score of a worse response."""
    above = [other.score for other in question if other.rank < y.rank]
    if constraint == "detached" or (constraint == "detached_lowest" and y.rank == max(o.rank for o in question)):
        return 0.0
    if constraint == "boundary":
        if not above:  # nothing that it could be held below
            return 0.0
        return slope if y.score > min(above) - BETA else -abs(slope)
    return slope


def twin(question: list[Response], term: str, constraint: str, c: dict[str, float]) -> tuple[float, list[float]]:
    value, gradient = 0.0, [0.0] * len(question)
    if term in POINTWISE:
        for i, y in enumerate(question):
            own, slope = of_point(y, question, term, c)
            value += own / len(question)
            gradient[i] += (slope if y.right else constrained(slope, y, question, constraint)) / len(question)
        return value, gradient
    pairs = [(i, j) for i in range(len(question)) for j in range(len(question)) if question[i].rank < question[j].rank]
    for i, j in pairs:
        own, upper, lower = of_pair(question[i], question[j], term, c)
        value += own / len(pairs)
        gradient[i] += upper / len(pairs)
        gradient[j] += constrained(lower, question[j], question, constraint) / len(pairs)
    return value, gradient


@st.composite
def questions(draw: st.DrawFn, scores: st.SearchStrategy[float]) -> list[Response]:
    """None to five responses: of one rank or several, right or wrong whatever their ranks, ratios near 1 and far."""
    made = []
    for _ in range(draw(st.integers(0, 5))):
        score = draw(scores)
        behaviour = min(0.0, score + draw(st.sampled_from([-0.3, -0.1, -0.01, 0.0, 0.02, 0.1, 0.4, 1e4])))
        rank, right, length = draw(st.integers(0, 2)), draw(st.booleans()), draw(st.integers(1, 9))
        made.append(Response(score, rank, right, length, draw(scores), behaviour))
    return made


SCORES = st.one_of(st.floats(-6, 0), st.sampled_from([-1e4, 0.0]))
A, B = Response(-0.3, 0, True, 3, -0.4, -0.31), Response(-1.2, 0, True, 2, -1.1, -1.0)
C, D = Response(-0.2, 1, False, 4, -0.5, -0.2), Response(-2.5, 1, False, 1, -2.2, -2.4)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("term", PUBLISHED)
@hypothesis_settings(max_examples=25, deadline=None)
@given(batch=st.lists(questions(SCORES), min_size=1, max_size=3), chosen=st.booleans())
@example(batch=[[A, B, C, D], [A], [C, D], [A, B], []], chosen=False)  # both, one, all wrong, all right, none
@example(batch=[[A, B, C, D], [A], [C, D], [A, B], []], chosen=True)
def test_equals_the_plain_loops(term, constraint, batch, chosen):
    """Constants as published where none are chosen."""
    constants = OTHER[term] if chosen else {}
    loss, gradient = compute(batch, term, constraint=constraint, beta=BETA, constants=constants)
    twins = [twin(question, term, constraint, constants or PUBLISHED[term]) for question in batch]
    assert loss == pytest.approx(sum(value for value, _ in twins) / len(batch), rel=1e-9, abs=1e-9)
    for found, (_, expected) in zip(gradient, twins, strict=True):
        assert found == pytest.approx([slope / len(batch) for slope in expected], rel=1e-9, abs=1e-9)


def test_constants_are_as_published():
    assert {term: its.constants for term, its in TERMS.items() if its.constants} == PUBLISHED


# --- limits -----------------------------------------------------------------------------------------------------------

BATCH = [[A, C, D], [B, D, C, A], [C, B]]


@pytest.mark.parametrize("constraint", ["none", "detached"])
def test_one_pair_of_dpo_pairs_is_dpo_on_sums(constraint):
    """Eq. 16 with two responses, whose scores are sums over tokens."""
    batch = [[A, C], [D, B]]
    summed = [[Response(y.sum, y.rank, y.right, 1, y.reference * y.length, 0.0) for y in pair] for pair in batch]
    pairs, gradient = compute(batch, "dpo_pairs", constraint=constraint, constants={"beta": 0.3})
    loss, by_sum = compute(summed, "dpo", constraint=constraint, dpo_beta=0.3)
    assert pairs == pytest.approx(loss, abs=1e-12)
    for found, expected, pair in zip(gradient, by_sum, batch, strict=True):
        assert found == pytest.approx([g * y.length for g, y in zip(expected, pair, strict=True)], abs=1e-12)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize(("term", "silent"), [("irpo", {"alpha": 0.0}), ("dpop", {"lam": 0.0})])
def test_without_what_they_add_irpo_and_dpop_are_dpo_pairs(term, silent, constraint):
    found = compute(BATCH, term, constraint=constraint, constants={"beta": 0.4, **silent})
    assert found == compute(BATCH, "dpo_pairs", constraint=constraint, constants={"beta": 0.4})


def test_topr_on_right_responses_is_a_scaled_likelihood():
    loss, gradient = compute([[A, B]], "topr", constants={"baseline": 0.25})
    assert loss == pytest.approx(-0.75 * (A.sum + B.sum) / 2)
    assert gradient == [pytest.approx([-0.75 * A.length / 2, -0.75 * B.length / 2])]


def test_gspo_begins_as_the_policy_gradient():
    """At rho = 1 the slope in l is -A / |y|, over n responses; of one right in three A is 2^.5, else -2^-.5."""
    same = [Response(y.score, y.rank, y.right, y.length, 0.0, y.score) for y in (A, C, D)]
    (gradient,) = compute([same], "gspo")[1]
    expected = [-advantage / y.length / 3 for advantage, y in zip((2**0.5, -(2**-0.5), -(2**-0.5)), same, strict=True)]
    assert [slope / y.length for slope, y in zip(gradient, same, strict=True)] == pytest.approx(expected)


@pytest.mark.parametrize("term", [term for term in PUBLISHED if term != "ipo"])
def test_under_a_boundary_the_worse_response_turns_where_it_stands_at_it(term):
    """B = -.3 - .15: just above it the push is downwards, at it and below as strong upwards; the value goes on."""
    boundary = A.score - BETA
    free, held = [], []
    for score in (boundary + 1e-9, boundary, boundary - 1e-9):
        question = [A, Response(score, 1, False, 4, -0.5, score)]
        free.append(compute([question], term))
        held.append(compute([question], term, constraint="boundary", beta=BETA))
    assert [loss for loss, _ in held] == [loss for loss, _ in free]
    signs = [found[0][1] / plain[0][1] for (_, found), (_, plain) in zip(held, free, strict=True)]
    assert signs == pytest.approx([1, -1, -1])


def test_a_pair_too_far_apart_for_ipo_is_drawn_together_on_both_sides_of_the_boundary():
    """The gap of ratios is beyond 1 / (2 beta) = 5: the worse response is raised already, and stays so."""
    for score in (-0.4, -3.0):
        question = [Response(-0.3, 0, True, 1, -9.0, 0.0), Response(score, 1, False, 1, 0.0, 0.0)]
        free, held = (compute([question], "ipo", constraint=constraint) for constraint in ("none", "boundary"))
        assert free == held and held[1][0][1] < 0
