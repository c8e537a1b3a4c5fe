"""The order of training: seeded by epoch, in batches of like length (bucketing), so that little is padded."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import numpy as np

_POOL = 32  # batches that are sorted by cost together: enough to pad little, few enough to stay random


def batches_of_epoch(costs: Sequence[int] | np.ndarray, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of the examples of each batch of one epoch; those of a batch have similar cost, the last may be smaller.

    The order depends on the seed and the epoch only, so that a resumed run sees exactly what it would have seen.
    """
    rng = random.Random(f"order {seed} {epoch}")
    order = rng.sample(range(len(costs)), len(costs))
    pool = _POOL * batch_size
    pools = [sorted(order[i : i + pool], key=costs.__getitem__) for i in range(0, len(order), pool)]
    ordered = [index for pooled in pools for index in pooled]
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    full = [batch for batch in batches if len(batch) == batch_size]
    rng.shuffle(full)
    return [*full, *(batch for batch in batches if len(batch) < batch_size)]


def batches_from(step: int, costs: Sequence[int] | np.ndarray, batch_size: int, seed: int) -> Iterator[list[int]]:
    """The batches of step number `step` (0 = the first) and of all that follow, epoch after epoch, without end."""
    epoch, done = divmod(step, steps_per_epoch(costs, batch_size))
    yield from batches_of_epoch(costs, batch_size, seed, epoch)[done:]
    for later in itertools.count(epoch + 1):
        yield from batches_of_epoch(costs, batch_size, seed, later)


def steps_per_epoch(costs: Sequence[int] | np.ndarray, batch_size: int) -> int:
    """How many batches an epoch has."""
    return math.ceil(len(costs) / batch_size)
