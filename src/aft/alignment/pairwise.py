"""Losses of pairs: a better response w (chosen) and a worse one l (rejected) of a question; the mean over pairs.

s is a response's mean log-probability, l_y = s |y| their sum, r = l_y - l_y under the reference model:

- `dpo_pairs`: -log sigmoid(beta (r_w - r_l)); DPO, arXiv 2305.18290, Eq. 7
- `irpo`: the same + alpha (-s_w); iterative RPO, arXiv 2404.19733
- `ipo`: (s_w - s_w^ref - s_l + s_l^ref - 1 / (2 beta))^2; arXiv 2310.12036, Eq. 17, in means over tokens as in TRL
- `simpo`: -log sigmoid(beta s_w - beta s_l - gamma); arXiv 2405.14734, Eq. 6
- `dpop`: -log sigmoid(beta [r_w - r_l - lam max(0, -r_w)]); Smaug, arXiv 2402.13228

A constraint, an extension for all of these, changes the gradient of s_l and no value: `push` [Q, 1, K] is what it
leaves of it, see `Groups.push`.
"""

from collections.abc import Callable

import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253
from torch.nn.functional import logsigmoid  # noqa: TID253

from aft.alignment.groups import Groups, with_gradient


def dpo_pairs(groups: Groups, push: Tensor, beta: float) -> Tensor:
    """Loss of each pair w, l [Q, K, K]."""
    return -logsigmoid(beta * _gaps(groups.log_ratios, push))


def irpo(groups: Groups, push: Tensor, beta: float, alpha: float) -> Tensor:
    """Loss of each pair w, l [Q, K, K]."""
    return dpo_pairs(groups, push, beta) - alpha * groups.scores[:, :, None]


def ipo(groups: Groups, push: Tensor, beta: float) -> Tensor:
    """Loss of each pair w, l [Q, K, K].

    A pair further apart than 1 / (2 beta) is drawn together: its worse response is raised, and no boundary turns that.
    """
    ratios, target = groups.scores - groups.reference_scores, 1 / (2 * beta)
    push = torch.where(_gaps(ratios.detach(), push) > target, push.abs(), push)
    return (_gaps(ratios, push) - target).square()


def simpo(groups: Groups, push: Tensor, beta: float, gamma: float) -> Tensor:
    """Loss of each pair w, l [Q, K, K]."""
    return -logsigmoid(beta * _gaps(groups.scores, push) - gamma)


def dpop(groups: Groups, push: Tensor, beta: float, lam: float) -> Tensor:
    """Loss of each pair w, l [Q, K, K]."""
    ratios = groups.log_ratios
    return -logsigmoid(beta * (_gaps(ratios, push) - lam * (-ratios).relu()[:, :, None]))


def _gaps(values: Tensor, push: Tensor) -> Tensor:
    """value_w - value_l [Q, K, K] of values [Q, K], with the gradient of the worse one times `push`."""
    return values[:, :, None] - with_gradient(values[:, None, :], push)


_LOSSES: dict[str, Callable[..., Tensor]] = {
    "dpo_pairs": dpo_pairs,
    "irpo": irpo,
    "ipo": ipo,
    "simpo": simpo,
    "dpop": dpop,
}


def pairwise_loss(groups: Groups, term: str, push: Tensor, **constants: float) -> Tensor:
    """The loss of each question [Q]: the mean over its strict pairs, 0 if it has none."""
    losses = _LOSSES[term](groups, push[:, None, :], **constants).masked_fill(~groups.better, 0.0)
    return losses.sum((1, 2)) / groups.better.sum((1, 2)).clamp(min=1)
