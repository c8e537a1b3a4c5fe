"""What the ranking of a question's responses asks of their scores: four terms under four constraints.

Pure functions of small tensors [Q, K]: Q questions with up to K responses each, padded under a mask. Equation
numbers are those of arXiv 2309.02144; binary feedback is a ranking of two levels. Every term compares a
response i with a strictly lower-ranked j by the same linear forms of their scores s,

    a_ij = tau_ij (s_j - reference_j),   b_i = tau_i^max (s_i - reference_i),   tau_i^max = max_j tau_ij,

where tau is 1 but for `pro` and `dpo`, and the reference is 0 but for `dpo`. Over the strict pairs:

- `aft`: log[1 + sum_ij e^(a_ij - b_i)] (Eq. 6 and 14)
- `rrhf`: sum_ij max(0, a_ij - b_i) (Eq. 18)
- `pro`: sum_i log[1 + sum_j e^(a_ij - b_i)] (Eq. 20), tau_ij = rating_i - rating_j (Eq. 21)
- `dpo`: the same sum (Eq. 16), tau = DPO's beta, the reference a score under the reference model

Three constraints keep a term from pushing the lower-ranked responses down without end:

- `detached`: no gradient to a score in the lower-ranked role; the value stays (Eq. 7 and 12)
- `detached_lowest`: the same, for the lowest rank of the question only (Eq. 13)
- `boundary`: beside each e^(a_ij - b_i) stands e^(T_ij - a_ij) with T_ij = 2 a_ij[s_j = B_j] - b_i, so that
  the push on s_j vanishes exactly at B_j = (least score of all that rank above j) - beta (Eq. 8 and 11);
  `rrhf` gains sum_ij max(0, B_j - s_j). B_j and T_ij are constants: no gradient passes through them.

The paper constrains `rrhf` and `pro` by `detached` only and `dpo` not at all; the rest are extensions.
"""

from collections.abc import Callable

import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253
from torch.nn import functional  # noqa: TID253

from aft.errors import DataError, SettingsError

__all__ = ["CONSTRAINTS", "TERMS", "alignment_loss"]


def _one_log(addends_Q_K_N: Tensor) -> Tensor:
    """log[1 + sum of e^addend] over all pairs of a question; the padded 0 is the 1 of the formula."""
    return functional.pad(addends_Q_K_N.flatten(1), (1, 0)).logsumexp(1)


def _log_per_response(addends_Q_K_N: Tensor) -> Tensor:
    """Sum over i of log[1 + sum of e^addend over all below i]; an i with nothing below adds 0."""
    return functional.pad(addends_Q_K_N, (1, 0)).logsumexp(2).sum(1)


def _hinge(addends_Q_K_N: Tensor) -> Tensor:
    """Sum of max(0, addend) over all pairs of a question."""
    return addends_Q_K_N.relu().sum((1, 2))


_SUMS: dict[str, Callable[[Tensor], Tensor]] = {
    "aft": _one_log,
    "rrhf": _hinge,
    "pro": _log_per_response,
    "dpo": _log_per_response,
}
TERMS = tuple(_SUMS)
CONSTRAINTS = ("none", "detached", "detached_lowest", "boundary")


def alignment_loss(
    scores_Q_K: Tensor,
    ranks_Q_K: Tensor,
    mask_Q_K: Tensor,
    *,
    term: str = "aft",
    constraint: str = "none",
    beta: float = 0.15,
    ratings_Q_K: Tensor | None = None,
    reference_scores_Q_K: Tensor | None = None,
    dpo_beta: float = 0.1,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The alignment loss of a batch, a mean over all Q questions, and its metrics (arXiv 2309.02144).

    A question without a comparable pair adds 0 to the loss and still counts in its mean.

    Args:
        scores_Q_K: mean token log-probability of each response, in nats, <= 0. Computed in float64 if given
            so, else in float32. The caller sees to it that unmasked scores are finite: a check here would
            have to wait for the device.
        ranks_Q_K: integers, 0 = best; equal ranks are not compared, gaps between ranks do not matter.
        mask_Q_K: bool, False = padding, whose content (even NaN) touches neither the loss nor a gradient.
        term: one of `TERMS`.
        constraint: one of `CONSTRAINTS`.
        beta: margin of the boundary below the worst better score, in nats; a negative one puts it above.
        ratings_Q_K: rewards for `pro`, higher = better. NaN means unrated: a question with an unrated
            response takes tau = 1 for all its pairs, as every question does when no ratings are given.
        reference_scores_Q_K: scores of the same responses under the reference model, in nats, for `dpo`.
        dpo_beta: DPO's inverse temperature, > 0.

    Returns:
        The loss, and metrics as detached 0-d float tensors: `alignment_term`, the loss without the addends of
        the boundary; `constraint_term`, the loss minus that; `comparable`, the number of questions with a
        pair; and over those questions only (NaN if there is none) `score_positive`, the mean score of all
        responses of their question's best rank, `score_negative`, that of all others, and `margin`, the mean
        over questions of the question's mean positive minus its mean negative score.

    Raises:
        SettingsError: unknown term or constraint; `dpo` without reference scores or with `dpo_beta` <= 0.
        DataError: an empty batch, shapes that differ, a mask that is not bool; for `pro` a pair whose better
            rank lacks the higher rating, or an infinite rating. Both errors are ValueErrors.
    """
    _check_settings(term, constraint, reference_scores_Q_K, dpo_beta)
    _check_batch(scores_Q_K, ranks_Q_K, mask_Q_K, ratings_Q_K, reference_scores_Q_K)
    # Padding is emptied first, so that no arithmetic below can make a NaN gradient of what it holds.
    scores = _lift(scores_Q_K).masked_fill(~mask_Q_K, 0.0)
    ranks_above = ranks_Q_K[:, :, None] < ranks_Q_K[:, None, :]
    better = ranks_above & mask_Q_K[:, :, None] & mask_Q_K[:, None, :]  # [q, i, j]: i is strictly above j
    tau, reference = better.to(scores), torch.zeros_like(scores)
    if term == "pro" and ratings_Q_K is not None:
        tau = _rating_gaps(_lift(ratings_Q_K), better, mask_Q_K).to(scores)
    if term == "dpo" and reference_scores_Q_K is not None:
        tau, reference = dpo_beta * tau, reference_scores_Q_K.detach().to(scores).masked_fill(~mask_Q_K, 0.0)

    lower = tau * (_in_lower_role(scores, better, constraint) - reference)[:, None, :]  # a_ij
    upper = tau.amax(2, keepdim=True) * (scores - reference)[:, :, None]  # b_i
    alignment = (lower - upper).masked_fill(~better, -torch.inf)  # e^-inf and max(0, -inf) are 0
    addends = alignment
    if constraint == "boundary":
        better_scores = scores.detach()[:, :, None].masked_fill(~better, torch.inf)
        boundary = better_scores.amin(1, keepdim=True) - beta  # B_j
        if term == "rrhf":
            restoring = (boundary - scores[:, None, :]).expand_as(better)
        else:
            restoring = (2 * tau * (boundary - reference[:, None, :]) - upper).detach() - lower  # T_ij - a_ij
        addends = torch.cat([alignment, restoring.masked_fill(~better, -torch.inf)], dim=2)

    loss = _SUMS[term](addends).mean()
    alignment_term = _SUMS[term](alignment.detach()).mean()
    terms = {"alignment_term": alignment_term, "constraint_term": loss.detach() - alignment_term}
    return loss, terms | _score_metrics(scores.detach(), better, mask_Q_K)


def _in_lower_role(scores: Tensor, better: Tensor, constraint: str) -> Tensor:
    """The scores [Q, K] as they stand where a response is the lower-ranked of a pair."""
    if constraint == "detached":
        return scores.detach()
    if constraint == "detached_lowest":
        return torch.where(better.any(2), scores, scores.detach())  # the lowest rank has nothing below it
    return scores


def _rating_gaps(ratings: Tensor, better: Tensor, mask: Tensor) -> Tensor:
    """tau_ij = rating_i - rating_j over strict pairs (Eq. 21); 1 in a question with an unrated response."""
    unrated = (ratings.isnan() & mask).any(1)[:, None, None]
    tau = torch.where(unrated, 1.0, ratings[:, :, None] - ratings[:, None, :]).masked_fill(~better, 0.0)
    contradicted = better & ~((tau > 0) & tau.isfinite())
    if contradicted.any():
        question, i, j = contradicted.nonzero()[0].tolist()
        raise DataError(
            f"In question {question} of the batch, response {i} ranks above response {j} but is rated "
            f"{ratings[question, i]:g} against {ratings[question, j]:g}: rank by finite ratings."
        )
    return tau


def _score_metrics(scores: Tensor, better: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Scores of the best rank and of the rest over the questions that have a pair; NaN if none has."""
    comparable = better.any(2).any(1)
    negative = better.any(1)  # something ranks above it
    positive = mask & ~negative & comparable[:, None]
    margins = _mean(scores, positive, 1) - _mean(scores, negative, 1)
    return {
        "score_positive": _mean(scores, positive),
        "score_negative": _mean(scores, negative),
        "margin": _mean(margins, comparable),
        "comparable": comparable.sum().to(scores),
    }


def _mean(values: Tensor, chosen: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the chosen values, NaN where none is chosen."""
    return values.masked_fill(~chosen, 0.0).sum(dim) / chosen.sum(dim)


def _lift(values: Tensor) -> Tensor:
    """float64 stays, all else becomes float32: half precision is too coarse for differences of scores."""
    return values if values.dtype == torch.float64 else values.float()


def _check_settings(term: str, constraint: str, reference: Tensor | None, dpo_beta: float) -> None:
    if term not in TERMS:
        raise SettingsError(f"There is no alignment term '{term}'; choose one of {', '.join(TERMS)}.")
    if constraint not in CONSTRAINTS:
        raise SettingsError(f"There is no constraint '{constraint}'; choose one of {', '.join(CONSTRAINTS)}.")
    if term == "dpo" and reference is None:
        raise SettingsError("The term 'dpo' needs reference_scores_Q_K: run the reference model first.")
    if term == "dpo" and not dpo_beta > 0:
        raise SettingsError(f"The term 'dpo' needs a dpo_beta above 0, not {dpo_beta}.")


def _check_batch(scores: Tensor, ranks: Tensor, mask: Tensor, ratings: Tensor | None, reference: Tensor | None) -> None:
    if scores.ndim != 2 or not scores.numel():
        raise DataError(f"scores_Q_K needs a question and a response, [Q, K], but is {list(scores.shape)}.")
    others = {"ranks_Q_K": ranks, "mask_Q_K": mask, "ratings_Q_K": ratings, "reference_scores_Q_K": reference}
    for name, tensor in others.items():
        if tensor is not None and tensor.shape != scores.shape:
            raise DataError(f"{name} is {list(tensor.shape)} but must be {list(scores.shape)} like scores_Q_K.")
    if mask.dtype != torch.bool:
        raise DataError(f"mask_Q_K is {mask.dtype} but must be bool, with False for padding.")
