"""The order of training: seeded by epoch, in batches of like cost, so that little is padded."""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler  # noqa: TID253

_POOL = 32  # batches that are sorted by cost together: enough to pad little, few enough to stay random


class CostGroupedSampler(Sampler[int]):
    """Indices of examples for one epoch; consecutive runs of `batch_size` indices have similar cost.

    The order depends on the seed and the epoch only, so that a resumed run sees exactly what it would have seen.
    """

    def __init__(self, costs: Sequence[int], batch_size: int, seed: int) -> None:
        self.costs = costs
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.costs)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"order {self.seed} {self.epoch}")
        order = rng.sample(range(len(self.costs)), len(self.costs))
        pool = _POOL * self.batch_size
        pools = [sorted(order[i : i + pool], key=self.costs.__getitem__) for i in range(0, len(order), pool)]
        ordered = [index for pooled in pools for index in pooled]
        batches = [ordered[i : i + self.batch_size] for i in range(0, len(ordered), self.batch_size)]
        # A last, smaller batch stays last: the trainer cuts the stream every `batch_size` indices.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rng.shuffle(full)
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        return iter([index for batch in (*full, *rest) for index in batch])
