"""The tensors that alignment terms read, Q questions with up to K responses each, and the parts of constraints."""

from dataclasses import dataclass
from functools import cached_property

import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253


@dataclass(frozen=True)
class Groups:
    """The responses of Q questions, each tensor [Q, K]; padding is emptied to 0, and so is what was not given."""

    scores: Tensor  # mean token log-probability s, in nats
    ranks: Tensor  # integers, 0 = best
    mask: Tensor  # bool, False = padding
    lengths: Tensor  # tokens |y|; the sum over tokens is l = s |y|
    rewards: Tensor  # 1 = right, 0 = wrong
    reference_scores: Tensor  # s under the reference model
    behaviour_scores: Tensor  # s under the model that sampled
    ratings: Tensor | None  # higher = better, NaN = unrated; None = nothing is rated

    @cached_property
    def better(self) -> Tensor:
        """Bool [Q, K, K]: [q, i, j] = response i ranks strictly above j."""
        ranks_above = self.ranks[:, :, None] < self.ranks[:, None, :]
        return ranks_above & self.mask[:, :, None] & self.mask[:, None, :]

    @property
    def log_ratios(self) -> Tensor:
        """r = l - l under the reference model [Q, K], in nats."""
        return self.lengths * (self.scores - self.reference_scores)

    def boundary(self, beta: float) -> Tensor:
        """B_j = (least score of all that rank above j) - beta [Q, K], without gradient; above all where none does."""
        scores = self.scores.detach()[:, :, None].masked_fill(~self.better, torch.inf)
        return scores.amin(1) - beta

    def push(self, constraint: str, beta: float) -> Tensor:
        """What a constraint leaves of a push down on each response [Q, K]: 1 all, 0 nothing, -1 as much upwards.

        Under `boundary` a response is pushed down above B_j and pulled up below it; one with nothing ranked above has
        no boundary to be held at, and is left alone.
        """
        scores = self.scores.detach()
        if constraint == "detached":
            return torch.zeros_like(scores)
        if constraint == "detached_lowest":
            return self.better.any(2).to(scores)
        if constraint == "boundary":
            return torch.where(scores > self.boundary(beta), 1.0, -1.0).to(scores) * self.better.any(1)
        return torch.ones_like(scores)


def with_gradient(values: Tensor, factor: Tensor) -> Tensor:
    """The same values, their gradient times `factor`."""
    return values.detach() + factor * (values - values.detach())
