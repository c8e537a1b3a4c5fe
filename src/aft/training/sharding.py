"""Fully sharded weights (FSDP2): each process keeps a part of every weight, its gradient and its optimiser state.

A layer's weights are put together when it runs and taken apart again, which only works if every process makes the same
passes in the same order. So groups are scored with one graph per pass, and a process with fewer passes makes idle ones.
"""

from collections.abc import Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253
from torch import distributed  # noqa: TID253

from aft.scoring import head
from aft.training.processes import is_first

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shard(model: "PreTrainedModel") -> None:
    """Shard the model's weights over all processes, in place, layer by layer."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    head.has_plain_head(model)  # tried out, and remembered, while the weights are whole
    mesh = init_device_mesh(model.device.type, (distributed.get_world_size(),))
    together = set(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in together:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    owner: Any = model
    owner.logprobs_in_chunks = MethodType(head.logprobs_in_chunks, model)
    register_fsdp_forward_method(model, "logprobs_in_chunks")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a sharded tensor, where its parts are; of any other, itself. Every process must ask."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_for_first(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under their names, whole, and on the CPU if they were sharded, in the first process.

    Every process must ask, since each adds its parts. The others get nothing: they drop a tensor as soon as it is
    together, so that they never hold more than one of them whole.
    """
    kept = {}
    for name, tensor in tensors.items():
        together = whole(tensor.detach())
        if is_first():
            kept[name] = together if together is tensor else together.cpu()
    return kept


def like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The tensor, sharded as the parameter is; whole if the parameter is, or if it has another shape."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
