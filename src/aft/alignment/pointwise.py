"""Losses of single responses with a reward R, +1 right or -1 wrong, whatever their ranks; the mean over a question's.

s is a response's mean log-probability, l = s |y| their sum, r = l - l under the reference model, l^mu and s^mu the same
under the model that sampled, sg a value without gradient:

- `apo_zero`: 1 - sigmoid(beta r) right, sigmoid(beta r) wrong; arXiv 2408.06266
- `redi`: -s right, alpha s wrong; arXiv 2505.24850
- `topr`: -R l right, -sg[min(1, e^(l - l^mu))] R l wrong, R less a baseline; arXiv 2503.14286
- `gspo`: -min(rho A, clip(rho, 1 - epsilon, 1 + epsilon) A), rho = e^(s - s^mu); arXiv 2507.18071. A = (R - mean) / std
  over the question's responses, 0 if all are right or all wrong

A constraint, an extension for all of these, changes the gradient of wrong responses and no value: see `Groups.push`.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253

from aft.alignment.groups import Groups, with_gradient


def apo_zero(groups: Groups, right: Tensor, beta: float) -> Tensor:
    """Loss of each response [Q, K]."""
    ratios = beta * groups.log_ratios
    return torch.where(right, -ratios, ratios).sigmoid()


def redi(groups: Groups, right: Tensor, alpha: float) -> Tensor:
    """Loss of each response [Q, K]."""
    return torch.where(right, -groups.scores, alpha * groups.scores)


def topr(groups: Groups, right: Tensor, baseline: float) -> Tensor:
    """Loss of each response [Q, K]."""
    sums = groups.lengths * groups.scores
    log_ratios = sums.detach() - groups.lengths * groups.behaviour_scores
    taper = log_ratios.clamp(max=0).exp()
    return torch.where(right, (baseline - 1) * sums, (baseline + 1) * taper * sums)


def gspo(groups: Groups, right: Tensor, epsilon: float) -> Tensor:
    """Loss of each response [Q, K].

    The clip is taken of the logarithm, so that a ratio beyond the largest number has neither value nor gradient there.
    """
    n_right = right.to(groups.scores).sum(1, keepdim=True)  # padding is not right
    odds = (groups.mask.sum(1, keepdim=True) - n_right) / n_right  # wrong against right
    # (R - mean) / std of R = +1 and -1, without Bessel's correction.
    advantages = torch.where(right, odds.sqrt(), -odds.rsqrt()).masked_fill(~groups.mask, 0.0)
    log_ratios = groups.scores - groups.behaviour_scores
    most, least = log_ratios.clamp(max=math.log1p(epsilon)), log_ratios.clamp(min=math.log1p(-epsilon))
    return -advantages * torch.where(advantages < 0, least, most).exp()


_LOSSES: dict[str, Callable[..., Tensor]] = {"apo_zero": apo_zero, "redi": redi, "topr": topr, "gspo": gspo}


def pointwise_loss(groups: Groups, term: str, push: Tensor, **constants: float) -> Tensor:
    """The loss of each question [Q]: the mean over its responses, 0 if it has none."""
    right = groups.rewards > 0.5
    held = replace(groups, scores=with_gradient(groups.scores, torch.where(right, 1.0, push)))
    losses = _LOSSES[term](held, right, **constants).masked_fill(~groups.mask, 0.0)
    return losses.sum(1) / groups.mask.sum(1).clamp(min=1)
