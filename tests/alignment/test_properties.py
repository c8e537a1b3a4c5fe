"""What holds for every batch: a plain-loop twin in double precision, and the invariances of the loss."""

import math
from dataclasses import dataclass, replace
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings

from aft.alignment.losses import CONSTRAINTS, TERMS, alignment_loss

DPO_BETA = 0.7
BETA = 0.15

every_case = pytest.mark.parametrize(  # what `detached` does to the other terms, their plain loops tell
    ("term", "constraint"),
    [(t, c) for t in TERMS for c in CONSTRAINTS if TERMS[t].family == "ranking" or not c.startswith("detached")],
)
of_rankings = pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
of_ranks = pytest.mark.parametrize("term", [term for term in TERMS if TERMS[term].family != "pointwise"])
every_constraint = pytest.mark.parametrize("constraint", CONSTRAINTS)
examples = hypothesis_settings(max_examples=hypothesis_settings().max_examples // 5)


@dataclass(frozen=True)
class Response:
    """One response of a question; `real` is False for padding."""

    score: float
    rank: int
    rating: float
    reference: float
    gain: float  # of the score over that under the model that sampled
    length: float
    reward: float
    real: bool

    @property
    def behaviour(self) -> float:
        return self.score - self.gain


Batch = list[list[Response]]

SCORES = st.floats(-8, 0)
EXTREMES = st.sampled_from([-1e4, -5e3, -20.0, -0.5, -1e-7, 0.0])
JUNK = st.sampled_from([math.nan, math.inf, -math.inf, -1e30, 7.0])
PADDING = st.builds(Response, JUNK, st.integers(-(2**62), 2**62), JUNK, JUNK, JUNK, JUNK, JUNK, real=st.just(False))


@st.composite
def batches(draw: st.DrawFn, scores: st.SearchStrategy[float] = SCORES, most_questions: int = 3) -> Batch:
    """Questions of up to 5 responses: ties, gaps, padding anywhere, ratings that fall with rank."""
    n_responses = draw(st.integers(1, 5))
    batch = []
    for _ in range(draw(st.integers(1, most_questions))):
        falls = draw(st.lists(st.floats(0.1, 3), min_size=4, max_size=4))
        ranks = draw(st.lists(st.integers(0, 3), min_size=n_responses, max_size=n_responses))
        batch.append(
            [
                Response(
                    *(draw(scores), rank, 10 - sum(falls[:rank]), draw(st.floats(-3, 0)), draw(st.floats(-2, 2))),
                    *(draw(st.integers(1, 9)), draw(st.sampled_from([0.0, 1.0])), draw(st.booleans())),
                )
                for rank in ranks
            ]
        )
    return batch


def compute(batch: Batch, dtype=torch.float64, **settings: Any) -> tuple[float, torch.Tensor]:
    """The loss of a batch and its gradient [Q, K]."""

    def column(name: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([[getattr(response, name) for response in question] for question in batch], dtype=dtype)

    scores = column("score", dtype).requires_grad_()
    settings = {"beta": BETA, "ratings_Q_K": column("rating", dtype), "dpo_beta": DPO_BETA} | settings
    loss, _ = alignment_loss(
        scores,
        column("rank", torch.int64),
        column("real", torch.bool),
        reference_scores_Q_K=column("reference", dtype),
        behaviour_scores_Q_K=column("behaviour", dtype),
        lengths_Q_K=column("length", dtype),
        rewards_Q_K=column("reward", dtype),
        **settings,
    )
    return loss.item(), torch.autograd.grad(loss, scores)[0]


def same(left: tuple[float, torch.Tensor], right: tuple[float, torch.Tensor], tolerance: float = 1e-9) -> None:
    assert left[0] == pytest.approx(right[0], rel=tolerance, abs=tolerance)
    torch.testing.assert_close(left[1], right[1], rtol=tolerance, atol=tolerance)


def twin(question: list[Response], term: str, constraint: str) -> tuple[float, list[float]]:
    """Value and closed-form gradient of one question, pair by pair, without torch.

    A pair adds e^(a - b) and, under the boundary, e^(2 a_B - b - a); each log's gradient is that of its
    summands over its own Z. a = tau_ij (s_j - ref_j), b = tau_i^max (s_i - ref_i), a_B = a at s_j = B_j.
    """
    members = [index for index, response in enumerate(question) if response.real]
    lowest = max((question[index].rank for index in members), default=0)
    gradient = [0.0] * len(question)
    logs: dict[int, list[tuple[float, int, int, float, float]]] = {}  # summand, j, i, its slopes in s_j, s_i
    hinges = 0.0
    for i in members:
        below = [j for j in members if question[j].rank > question[i].rank]
        for j in below:
            above_j = [m for m in members if question[m].rank < question[j].rank]
            boundary = min(question[m].score for m in above_j) - BETA
            s_i, s_j = question[i].score, question[j].score
            kept = not (constraint == "detached" or (constraint == "detached_lowest" and question[j].rank == lowest))
            if term == "rrhf":
                hinges += max(0.0, s_j - s_i)
                gradient[i] -= s_j > s_i
                gradient[j] += kept and s_j > s_i
                if constraint == "boundary":
                    hinges += max(0.0, boundary - s_j)
                    gradient[j] -= boundary > s_j
                continue
            tau, tau_max, ref_i, ref_j = 1.0, 1.0, 0.0, 0.0
            if term == "pro":
                tau = question[i].rating - question[j].rating
                tau_max = max(question[i].rating - question[m].rating for m in below)
            if term == "dpo":
                tau, tau_max, ref_i, ref_j = DPO_BETA, DPO_BETA, question[i].reference, question[j].reference
            a, b, a_boundary = tau * (s_j - ref_j), tau_max * (s_i - ref_i), tau * (boundary - ref_j)
            summands = logs.setdefault(0 if term == "aft" else i, [])
            summands.append((math.exp(a - b), j, i, tau if kept else 0.0, -tau_max))
            if constraint == "boundary":
                summands.append((math.exp(2 * a_boundary - b - a), j, i, -tau, 0.0))
    value = hinges
    for summands in logs.values():
        z = 1 + sum(summand for summand, *_ in summands)
        value += math.log(z)
        for summand, j, i, slope_j, slope_i in summands:
            gradient[j] += slope_j * summand / z
            gradient[i] += slope_i * summand / z
    return value, gradient


@of_rankings
@every_constraint
@examples
@given(batch=batches())
def test_equals_the_plain_loops(term, constraint, batch):
    twins = [twin(question, term, constraint) for question in batch]
    expected = sum(value for value, _ in twins) / len(batch)
    gradients = torch.tensor([gradient for _, gradient in twins], dtype=torch.float64) / len(batch)
    same(compute(batch, term=term, constraint=constraint), (expected, gradients))


@every_case
@examples
@given(batch=batches(scores=EXTREMES), single=st.booleans())
def test_extreme_scores_stay_finite(term, constraint, batch, single):
    """Scores of -1e4 beside 0 give exponents far beyond e^88; K = 1, ties and empty questions come along."""
    loss, gradient = compute(batch, torch.float32 if single else torch.float64, term=term, constraint=constraint)
    assert math.isfinite(loss) and (loss >= 0 or term in ("irpo", "redi", "topr", "gspo"))
    assert gradient.isfinite().all()


@of_ranks
@every_constraint
@examples
@given(batch=batches(), rank=st.integers(0, 3))
def test_nothing_to_compare_is_exactly_zero(term, constraint, batch, rank):
    """All right, all wrong, one response, all padding."""
    tied = [[replace(response, rank=rank) for response in question] for question in batch]
    lone = [[replace(response, real=index == 0) for index, response in enumerate(q)] for q in batch]
    padding = [[replace(response, real=False) for response in question] for question in batch]
    for silent in (tied, lone, padding):
        loss, gradient = compute(silent, term=term, constraint=constraint)
        assert loss == 0 and not gradient.any()


@every_case
@examples
@given(batch=batches(), data=st.data())
def test_order_of_responses_permutes_the_gradient(term, constraint, batch, data):
    order = data.draw(st.permutations(range(len(batch[0]))))
    loss, gradient = compute(batch, term=term, constraint=constraint)
    permuted = compute([[question[index] for index in order] for question in batch], term=term, constraint=constraint)
    same(permuted, (loss, gradient[:, order]))


@every_case
@examples
@given(batch=batches(), padding=PADDING, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_content_of_padding_is_irrelevant(term, constraint, batch, padding, dtype):
    """Even NaN and infinities: the same loss and gradient to the bit, and exactly 0 at the padding."""
    filled = [[response if response.real else padding for response in question] for question in batch]
    loss, gradient = compute(batch, dtype, term=term, constraint=constraint)
    filled_loss, filled_gradient = compute(filled, dtype, term=term, constraint=constraint)
    assert filled_loss == loss and torch.equal(filled_gradient, gradient)
    assert not any(gradient[q, k] for q, question in enumerate(batch) for k, r in enumerate(question) if not r.real)


@every_case
@examples
@given(batch=batches())
def test_batch_is_the_mean_of_its_questions(term, constraint, batch):
    alone = [compute([question], term=term, constraint=constraint) for question in batch]
    mean = sum(loss for loss, _ in alone) / len(alone)
    gradients = torch.cat([gradient for _, gradient in alone]) / len(alone)
    same(compute(batch, term=term, constraint=constraint), (mean, gradients))


@of_rankings
@every_constraint
@examples
@given(batch=batches(), shift=st.floats(-5, 5))
def test_a_common_shift_of_the_scores_changes_nothing(term, constraint, batch, shift):
    """Only differences count and the boundary moves along; of `pro` this is true only without ratings."""
    shifted = [[replace(response, score=response.score + shift) for response in question] for question in batch]
    assume(term != "rrhf" or all(no_kinks(question) for question in batch))
    settings = {"term": term, "constraint": constraint, "ratings_Q_K": None}
    same(compute(shifted, **settings), compute(batch, **settings))


def no_kinks(question: list[Response]) -> bool:
    """No two scores equal, nor apart by the margin: there the derivative of a hinge jumps on rounding."""
    scores = [response.score for response in question if response.real]
    gaps = [abs(left - right) for index, left in enumerate(scores) for right in scores[:index]]
    return all(gap > 1e-6 and abs(gap - BETA) > 1e-6 for gap in gaps)


@of_rankings
@examples
@given(batch=batches())
def test_detaching_keeps_the_value_and_what_it_detaches_is_exactly_still(term, batch):
    free, _ = compute(batch, term=term)
    for constraint in ("detached", "detached_lowest"):
        loss, gradient = compute(batch, term=term, constraint=constraint)
        assert loss == free
        for question, row in zip(batch, gradient.tolist(), strict=True):
            lowest = max((response.rank for response in question if response.real), default=None)
            assert all(g == 0 for response, g in zip(question, row, strict=True) if response.rank == lowest)
            assert constraint == "detached_lowest" or all(g <= 0 for g in row)


@pytest.mark.parametrize("term", ["aft", "pro", "dpo"])
@examples
@given(batch=batches(most_questions=1), beta=st.floats(-1, 1))
def test_boundary_steers_the_lowest_rank_by_its_side_of_the_boundary(term, batch, beta):
    real = [response for response in batch[0] if response.real]
    lowest = max((response.rank for response in real), default=0)
    above = [response.score for response in real if response.rank < lowest]
    assume(above)
    _, gradient = compute(batch, term=term, constraint="boundary", beta=beta)
    for response, g in zip(batch[0], gradient[0].tolist(), strict=True):
        from_boundary = response.score - (min(above) - beta)
        if response.real and response.rank == lowest and abs(from_boundary) > 1e-6:
            assert math.copysign(1, g) == math.copysign(1, from_boundary)


@every_constraint
@examples
@given(batch=batches(most_questions=1))
def test_one_log_pulls_with_less_than_one(constraint, batch):
    """In a binary question the upward and the downward weights of `aft` are each below 1."""
    binary = [[replace(response, rank=min(response.rank, 1)) for response in batch[0]]]
    _, gradient = compute(binary, term="aft", constraint=constraint)
    assert -1 < gradient.clamp(max=0).sum() <= 0 <= gradient.clamp(min=0).sum() < 1


@every_case
@examples
@given(batch=batches())
def test_gaps_between_ranks_do_not_matter(term, constraint, batch):
    spread = [[replace(response, rank=7 * response.rank + 3) for response in question] for question in batch]
    same(
        compute(spread, term=term, constraint=constraint),
        compute(batch, term=term, constraint=constraint),
        1e-15,
    )


@every_constraint
@examples
@given(batch=batches())
def test_pro_without_temperature_is_dpo_without_reference(constraint, batch):
    """With tau = 1, DPO's beta 1 and a reference of 0 everywhere the two sums are the same."""
    level = [[replace(response, reference=0.0) for response in question] for question in batch]
    pro = compute(batch, term="pro", constraint=constraint, ratings_Q_K=None)
    same(compute(level, term="dpo", constraint=constraint, dpo_beta=1.0), pro)
