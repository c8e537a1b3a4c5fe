"""Every process holds the whole model and its optimiser state; gradients are added up once a step.

On every rank: all weights, all gradients, all optimiser state. A checkpoint needs no collective call for them.
"""

from typing import TYPE_CHECKING

import torch  # noqa: TID253

from aft.training.parallel import collectives

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOCKSTEP: bool = False  # a process may have fewer passes than another one: they meet in `add_up`


def prepare(model: "PreTrainedModel") -> None:
    """Nothing to do: the model is whole."""


def backward(loss: torch.Tensor) -> None:
    """Add one pass's gradient to this process's."""
    loss.backward()


def add_up(model: "PreTrainedModel") -> None:
    """Give every trainable weight the sum of all processes' gradients. Collective: call it on every rank."""
    collectives.add_up_gradients(model)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself."""
    return tensor


def shard_like(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The tensor itself."""
    return tensor
