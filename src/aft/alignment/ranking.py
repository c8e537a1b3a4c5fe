"""The paper's terms (arXiv 2309.02144): listwise losses of a ranking; binary feedback is a ranking of two levels.

Every term compares a response i with a strictly lower-ranked j by the same linear forms of their scores s,

    a_ij = tau_ij (s_j - reference_j),   b_i = tau_i^max (s_i - reference_i),   tau_i^max = max_j tau_ij,

where tau is 1 but for `pro` and `dpo`, and the reference is 0 but for `dpo`. Over the strict pairs:

- `aft`: log[1 + sum_ij e^(a_ij - b_i)] (Eq. 6 and 14)
- `rrhf`: sum_ij max(0, a_ij - b_i) (Eq. 18)
- `pro`: sum_i log[1 + sum_j e^(a_ij - b_i)] (Eq. 20), tau_ij = rating_i - rating_j (Eq. 21)
- `dpo`: the same sum (Eq. 16), tau = DPO's beta, the reference a score under the reference model: the Plackett-Luce
  form of DPO over strict ranks, where `dpo_pairs` is the mean over pairs

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

from aft.alignment.groups import Groups
from aft.errors import DataError


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


def ranking_loss(groups: Groups, term: str, constraint: str, beta: float, dpo_beta: float) -> tuple[Tensor, Tensor]:
    """The loss of each question [Q], and without the addends of the boundary and without gradient the same [Q]."""
    scores, better = groups.scores, groups.better
    tau, reference = better.to(scores), torch.zeros_like(scores)
    if term == "pro" and groups.ratings is not None:
        tau = _rating_gaps(groups.ratings, better, groups.mask).to(scores)
    if term == "dpo":
        tau, reference = dpo_beta * tau, groups.reference_scores

    lower = tau * (_in_lower_role(scores, better, constraint) - reference)[:, None, :]  # a_ij
    upper = tau.amax(2, keepdim=True) * (scores - reference)[:, :, None]  # b_i
    alignment = (lower - upper).masked_fill(~better, -torch.inf)  # e^-inf and max(0, -inf) are 0
    addends = alignment
    if constraint == "boundary":
        boundary = groups.boundary(beta)[:, None, :]  # B_j
        if term == "rrhf":
            restoring = (boundary - scores[:, None, :]).expand_as(better)
        else:
            restoring = (2 * tau * (boundary - reference[:, None, :]) - upper).detach() - lower  # T_ij - a_ij
        addends = torch.cat([alignment, restoring.masked_fill(~better, -torch.inf)], dim=2)
    return _SUMS[term](addends), _SUMS[term](alignment.detach())


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
