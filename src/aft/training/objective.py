"""The loss of some examples, from the log-probabilities of their responses; vft is the SFT loss.

    loss = vft_weight x vft + weight x alignment(term, constraint)

The examples may be a part of an optimiser step: what they add is divided by the totals of the whole step, so that a sum
over parts is the exact loss, however the step is split.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch  # noqa: TID253

from aft.alignment.losses import alignment_loss
from aft.training.examples import Example
from aft.training.settings import Objective


@dataclass(frozen=True, slots=True)
class Totals:
    """What the sums of an optimiser step are divided by."""

    target_tokens: int
    targets: int  # responses to imitate
    questions: int
    comparable: int  # questions with a pair of ranks
    positives: int  # their candidates of the question's best rank
    negatives: int  # their other candidates

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Totals":
        """The totals of all examples of a step."""
        tokens = sum(length for example in examples for length in example.target_lengths)
        ranked = [example.ranks for example in examples if len(set(example.ranks)) > 1]
        positives = sum(rank == min(ranks) for ranks in ranked for rank in ranks)
        targets = sum(len(example.targets) for example in examples)
        return cls(tokens, targets, len(examples), len(ranked), positives, sum(map(len, ranked)) - positives)


def objective_loss(
    sums_R: torch.Tensor, examples: Sequence[Example], objective: Objective, totals: Totals
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The examples' share of the loss, and metrics, detached, that add up over the parts of a step.

    `sums_R` holds the summed log-probability of every response: of each example its targets, then its candidates. The
    metrics are `vft_term` and, under an alignment term, `alignment_term`, `constraint_term` and the examples' share of
    the means `score_positive`, `score_negative` and `margin`.
    """
    sizes = [(len(example.targets), len(example.candidates)) for example in examples]
    is_target_R = torch.tensor([kind for t, c in sizes for kind in (*[True] * t, *[False] * c)], device=sums_R.device)
    vft = _vft(sums_R[is_target_R], examples, objective, totals)
    loss = objective.vft_weight * vft
    metrics = {"vft_term": vft.detach()}
    if objective.term != "none":
        alignment, found = _alignment(sums_R[~is_target_R], examples, objective)
        share = len(examples) / totals.questions
        loss = loss + objective.weight * share * alignment
        metrics |= {name: share * found[name] for name in ("alignment_term", "constraint_term")}
        own = Totals.of(examples)
        for name, count, total in (
            ("score_positive", own.positives, totals.positives),
            ("score_negative", own.negatives, totals.negatives),
            ("margin", own.comparable, totals.comparable),
        ):
            if count:  # else there is no mean: NaN
                metrics[name] = count / total * found[name]
    return loss, metrics


def _vft(sums_T: torch.Tensor, examples: Sequence[Example], objective: Objective, totals: Totals) -> torch.Tensor:
    """Minus the log-probability of the targets, a mean over their tokens, or over the targets.

    It is over the targets where each of them weighs the same (its mean over tokens, where right samples are imitated),
    weighs by its length (its sum, Eq. 1) or, in PRO's reduction, by its sum times (n - 1)^2 for its n candidates: times
    0 where no two ranks differ, as for a single candidate, since there is no ranking for the targets to balance.
    """
    if objective.vft_reduction == "mean" and objective.imitate != "positives":
        return -sums_T.sum() / totals.target_tokens
    factors = []
    for example in examples:
        n = len(example.candidates) if len(set(example.ranks)) > 1 else 1
        for length in example.target_lengths:
            factors.append({"mean": 1 / length, "sum": 1, "pro": (n - 1) ** 2}[objective.vft_reduction])
    return -(sums_T * sums_T.new_tensor(factors)).sum() / totals.targets


def _alignment(
    sums_R: torch.Tensor, examples: Sequence[Example], objective: Objective
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Mean alignment loss of the examples' questions, from the log-probabilities of their candidates in order."""
    device = sums_R.device
    sizes = torch.tensor([len(example.candidates) for example in examples], device=device)
    mask_Q_K = torch.arange(max(int(sizes.max()), 1), device=device)[None, :] < sizes[:, None]

    def rows(values_R: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(mask_Q_K, dtype=values_R.dtype).masked_scatter(mask_Q_K, values_R)

    def given(name: str, dtype: torch.dtype = sums_R.dtype) -> torch.Tensor:
        values = [value for example in examples for value in getattr(example, name)]
        return rows(torch.tensor(values, dtype=dtype, device=device))

    ranks = [rank for example in examples for rank in example.ranks]
    ranks_Q_K = rows(torch.tensor(ranks, dtype=torch.long, device=device))
    lengths_Q_K = given("lengths")
    scores_Q_K = rows(sums_R) / lengths_Q_K.clamp(min=1)
    # A sum over tokens is the mean times the length, for the reference model as well; only `dpo` reads one then.
    scale_Q_K = lengths_Q_K if objective.score_reduction == "sum" else torch.ones_like(scores_Q_K)
    loss, metrics = alignment_loss(
        scores_Q_K * scale_Q_K,
        ranks_Q_K,
        mask_Q_K,
        term=objective.term,
        constraint=objective.constraint,
        beta=objective.beta,
        dpo_beta=objective.dpo_beta,
        constants=objective.constants,
        # Ranks were made of them as they were given: in float32 two of them could be equal.
        ratings_Q_K=given("ratings", torch.float64) if any(example.ratings for example in examples) else None,
        **{f"{name}_Q_K": given(name) * scale_Q_K for name in objective.kind.needs},
    )
    if objective.score_reduction == "sum":  # the curve has mean scores all the same
        _, means = alignment_loss(scores_Q_K.detach(), ranks_Q_K, mask_Q_K)
        metrics |= {name: means[name] for name in ("score_positive", "score_negative", "margin")}
    return loss, metrics


def needs_gradient(examples: Sequence[Example], objective: Objective) -> list[bool]:
    """For each response, targets then candidates, whether the objective has a gradient for its score at all.

    A candidate that would be raised always has one; one that would be pushed down has none where the constraint takes
    it away, which it does where `Groups.push` is 0.
    """
    needed: list[bool] = []
    for example in examples:
        candidates = _candidates_need_gradient(example, objective)
        imitated = objective.vft_weight > 0 or not any(candidates)  # a pass must have a gradient of something
        needed += [*[imitated] * len(example.targets), *candidates]
    return needed


def _candidates_need_gradient(example: Example, objective: Objective) -> list[bool]:
    best, lowest = min(example.ranks, default=0), max(example.ranks, default=0)
    by_reward = objective.kind.family == "pointwise"
    raised = [reward > 0.5 for reward in example.rewards] if by_reward else [rank < lowest for rank in example.ranks]
    pushed = {
        "none": [True for _ in example.ranks],
        "detached": [False for _ in example.ranks],
        "detached_lowest": [rank < lowest for rank in example.ranks],
        "boundary": [rank > best for rank in example.ranks],
    }[objective.constraint]
    return [up or down for up, down in zip(raised, pushed, strict=True)]
