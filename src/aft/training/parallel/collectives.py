"""Several processes that train one model: who reads what, and what they add up (all-reduce); alone, nothing.

Every process knows the whole batch of an optimiser step and reads its share of the groups. Each share's loss is divided
by the totals of the whole batch, so that the sum over the processes is the loss and the gradient of the batch, however
it is shared out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch  # noqa: TID253
from torch import distributed  # noqa: TID253

from aft.training.weights import trained


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """The number of this process among them, from 0 on."""
    return distributed.get_rank() if _together() else 0


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def wait_for_all() -> None:
    """Barrier: go on when every process has come here."""
    if _together():
        distributed.barrier()


def gathered(value: Any) -> list[Any]:
    """The processes' values, in the order of their ranks, in every process."""
    if not _together():
        return [value]
    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values


def summed(numbers: Mapping[str, float]) -> dict[str, float]:
    """The sums over the processes under each name that any of them has, in every process."""
    sums: Counter[str] = Counter()
    for some in gathered(dict(numbers)):
        for name, value in some.items():
            sums[name] += value
    return dict(sums)


def add_up_gradients(model: torch.nn.Module) -> None:
    """Give all that the optimiser changes the sum of all processes' gradients."""
    if not _together():
        return
    for parameter in trained(model).values():
        if parameter.grad is None:  # this process had nothing to read
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)


def shares(costs: Sequence[int], n: int) -> list[list[int]]:
    """Indices of what each of `n` processes reads, in ascending order, of nearly equal cost; the same everywhere."""
    loads, taken = [0] * n, [[] for _ in range(n)]
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        least = loads.index(min(loads))
        taken[least].append(index)
        loads[least] += costs[index]
    return [sorted(indices) for indices in taken]


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
