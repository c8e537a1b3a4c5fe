"""The alignment loss of a batch: thirteen ranking and preference losses, each under one of four constraints.

Pure functions of small tensors [Q, K]: Q questions with up to K responses each, padded under a mask. The paper's terms
are in `aft.alignment.ranking`, losses of pairs in `pairwise`, of single responses in `pointwise`; `terms` says what
each reads, and its constants.
"""

from collections.abc import Mapping

import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253

from aft.alignment.groups import Groups
from aft.alignment.pairwise import pairwise_loss
from aft.alignment.pointwise import pointwise_loss
from aft.alignment.ranking import ranking_loss
from aft.alignment.terms import CONSTRAINTS, TERMS, constants_of
from aft.errors import DataError, SettingsError

__all__ = ["CONSTRAINTS", "TERMS", "alignment_loss"]

_SOURCES = {
    "reference_scores": "run the reference model first",
    "behaviour_scores": "take them from the model that sampled, when it samples",
    "lengths": "count the tokens of each response",
    "rewards": "label each response as right (1) or wrong (0)",
}


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
    lengths_Q_K: Tensor | None = None,
    rewards_Q_K: Tensor | None = None,
    behaviour_scores_Q_K: Tensor | None = None,
    constants: Mapping[str, float] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The alignment loss of a batch, a mean over all Q questions, and its metrics.

    A question without what the term needs (a comparable pair; for terms of single responses, a response) adds 0 to the
    loss and still counts in its mean.

    Args:
        scores_Q_K: mean token log-probability of each response, in nats, <= 0; in float64 if given so, else in float32.
            The caller sees to it that unmasked ones are finite: a check here would have to wait for the device.
        ranks_Q_K: integers, 0 = best; equal ranks are not compared, gaps between ranks do not matter.
        mask_Q_K: bool, False = padding, whose content (even NaN) touches neither the loss nor a gradient.
        term: one of `TERMS`, which says what of the following it needs.
        constraint: one of `CONSTRAINTS`.
        beta: margin of the boundary below the worst better score, in nats; a negative one puts it above.
        ratings_Q_K: rewards for `pro`, higher = better. NaN means unrated: a question with an unrated response takes
            tau = 1 for all its pairs, as every question does when no ratings are given.
        reference_scores_Q_K: scores of the same responses under the reference model, in nats.
        dpo_beta: inverse temperature of `dpo` (Eq. 16), > 0.
        lengths_Q_K: tokens of each response; its summed log-probability is score x length.
        rewards_Q_K: 1 = right, 0 = wrong; ranks cannot tell a question that is all right from one all wrong.
        behaviour_scores_Q_K: scores under the model that sampled the responses, at temperature 1, in nats.
        constants: those of a term that is not the paper's, by name; what is not given is as published.

    Returns the loss, and metrics as detached 0-d float tensors: `alignment_term`, the loss without the addends of the
    boundary; `constraint_term`, the loss minus that; `comparable`, the number of questions with a pair; and over those
    questions only (NaN if there is none) `score_positive`, the mean score of all responses of their question's best
    rank, `score_negative`, that of all others, and `margin`, the mean of each question's mean positive minus mean
    negative score. Raises `SettingsError` for an unknown term, constraint or constant, a term without what it needs and
    `dpo` with `dpo_beta` <= 0; `DataError` for an empty batch, shapes that differ, a mask that is not bool, and under
    `pro` for an infinite rating or a pair whose better rank lacks the higher one. Both errors are ValueErrors.
    """
    inputs = {
        **{"ratings": ratings_Q_K, "reference_scores": reference_scores_Q_K, "lengths": lengths_Q_K},
        **{"rewards": rewards_Q_K, "behaviour_scores": behaviour_scores_Q_K},
    }
    _check_settings(term, constraint, dpo_beta, inputs)
    _check_batch(scores_Q_K, {"ranks": ranks_Q_K, "mask": mask_Q_K, **inputs})
    constants = constants_of(term, constants or {})
    # Padding is emptied first, so that no arithmetic below can make a NaN gradient of what it holds.
    scores = _lift(scores_Q_K).masked_fill(~mask_Q_K, 0.0)
    nothing = torch.zeros_like(scores)
    given = {
        name: nothing if values is None else values.detach().to(scores).masked_fill(~mask_Q_K, 0.0)
        for name, values in inputs.items()
        if name != "ratings"
    }
    groups = Groups(scores, ranks_Q_K, mask_Q_K, **given, ratings=None if ratings_Q_K is None else _lift(ratings_Q_K))
    if TERMS[term].family == "ranking":
        losses_Q, unconstrained_Q = ranking_loss(groups, term, constraint, beta, dpo_beta)
    else:
        loss_of = pairwise_loss if TERMS[term].family == "pairwise" else pointwise_loss
        losses_Q = loss_of(groups, term, groups.push(constraint, beta), **constants)
        unconstrained_Q = losses_Q.detach()  # a constraint changes the gradient alone
    loss, alignment_term = losses_Q.mean(), unconstrained_Q.mean()
    terms = {"alignment_term": alignment_term, "constraint_term": loss.detach() - alignment_term}
    return loss, terms | _score_metrics(scores.detach(), groups.better, mask_Q_K)


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


def _check_settings(term: str, constraint: str, dpo_beta: float, inputs: Mapping[str, Tensor | None]) -> None:
    if term not in TERMS:
        raise SettingsError(f"There is no alignment term '{term}'; choose one of {', '.join(TERMS)}.")
    if constraint not in CONSTRAINTS:
        raise SettingsError(f"There is no constraint '{constraint}'; choose one of {', '.join(CONSTRAINTS)}.")
    for name in TERMS[term].needs:
        if inputs[name] is None:
            raise SettingsError(f"The term '{term}' needs {name}_Q_K: {_SOURCES[name]}.")
    if term == "dpo" and not dpo_beta > 0:
        raise SettingsError(f"The term 'dpo' needs a dpo_beta above 0, not {dpo_beta}.")


def _check_batch(scores: Tensor, others: Mapping[str, Tensor | None]) -> None:
    if scores.ndim != 2 or not scores.numel():
        raise DataError(f"scores_Q_K needs a question and a response, [Q, K], but is {list(scores.shape)}.")
    for name, tensor in others.items():
        if tensor is not None and tensor.shape != scores.shape:
            raise DataError(f"{name}_Q_K is {list(tensor.shape)} but must be {list(scores.shape)} like scores_Q_K.")
    mask = others["mask"]
    if mask is not None and mask.dtype != torch.bool:
        raise DataError(f"mask_Q_K is {mask.dtype} but must be bool, with False for padding.")
