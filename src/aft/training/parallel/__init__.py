"""How several processes train one model: whole copies that add up gradients, or weights sharded by FSDP2.

Each way is a module with the functions of `Parallel`, so that the loop reads the same for one process and for many. One
process is a replica without others: its collectives do nothing.
"""

from typing import TYPE_CHECKING, Protocol

from aft.training.settings import Sharding

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Parallel(Protocol):
    """What the modules `replicated` and `fsdp2` have."""

    LOCKSTEP: bool  # whether every process must make the same passes in the same order

    def prepare(self, model: "PreTrainedModel") -> None:
        """Shard the model in place, or leave it whole. Collective: call it on every rank."""
        ...

    def backward(self, loss: "torch.Tensor") -> None:
        """Add the gradient of one pass."""
        ...

    def add_up(self, model: "PreTrainedModel") -> None:
        """Give every trained weight the sum of all processes' gradients, once a step. Collective."""
        ...

    def full_tensor(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """A weight, or an optimiser's moment of one, as one tensor. Collective."""
        ...

    def shard_like(self, tensor: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
        """A whole tensor, in parts if the weight is."""
        ...


def choose(sharding: Sharding) -> Parallel:
    """The module that trains under this `launch.sharding`."""
    from aft.training.parallel import fsdp2, replicated

    return fsdp2 if sharding == "full" else replicated
