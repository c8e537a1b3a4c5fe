"""Fully sharded weights (FSDP2): each process keeps a part of every weight, its gradient and its optimiser state.

On every rank: 1/n of weights, gradients and optimiser state. When a checkpoint or the finished model is written,
a whole tensor exists for a moment on every rank's device, one at a time; only the first rank keeps it, on the CPU.

A layer's weights are put together when it runs and taken apart again, which only works if every process makes the same
passes in the same order. So groups are scored with one graph per pass, and a process with fewer passes makes idle ones.
"""

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253

from aft.scoring import head
from aft.training.parallel import collectives

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOCKSTEP: bool = True


def prepare(model: "PreTrainedModel") -> None:
    """Shard the model's weights over all processes, in place, layer by layer."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    head.has_plain_head(model)  # tried out, and remembered, while the weights are whole
    mesh = init_device_mesh(model.device.type, (collectives.count(),))
    layers = set(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    owner: Any = model
    owner.logprobs_in_chunks = MethodType(head.logprobs_in_chunks, model)
    register_fsdp_forward_method(model, "logprobs_in_chunks")


def backward(loss: torch.Tensor) -> None:
    """Add one pass's gradient; FSDP takes the mean over the processes, of which the sum is wanted."""
    (loss * collectives.count()).backward()


def add_up(model: "PreTrainedModel") -> None:
    """Nothing to do: every backward pass has reduced the gradients."""


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a sharded tensor, on its device; of any other, itself. Collective: call it on every rank."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The tensor, sharded as the weight is; whole if the weight is, or if it has another shape."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(weight, DTensor) or tensor.shape != weight.shape:
        return tensor
    return distribute_tensor(tensor.to(weight.device), weight.device_mesh, weight.placements)
