"""Fully sharded weights by DeepSpeed (ZeRO-3, extra `deepspeed`): what `sharding` does, by other means.

DeepSpeed's engine keeps the parts, adds up the gradients of any number of passes, and clips and steps. Its own
checkpoints are pickles: ours hold the same whole tensors as those of any other run, gathered and handed out again.
"""

import importlib
import importlib.util
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253
from torch import distributed  # noqa: TID253

from aft.errors import SettingsError
from aft.scoring import head
from aft.training.processes import is_first

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_installed() -> None:
    """Raise `SettingsError` if DeepSpeed is not."""
    if importlib.util.find_spec("deepspeed") is None:
        raise SettingsError(
            "launch.sharding is 'zero3', but DeepSpeed is not installed: pip install 'aft[deepspeed]', or set "
            "launch.sharding to full, which does the same without it."
        )


def _deepspeed() -> Any:
    """The package, which only this sharding needs."""
    return importlib.import_module("deepspeed")


class Zero3:
    """The model's weights and its optimiser's state in parts, one in each process; the trainer's optimiser."""

    def __init__(self, model: "PreTrainedModel", optimizer: torch.optim.Optimizer, max_grad_norm: float) -> None:
        head.has_plain_head(model)  # tried out, and remembered, while the weights are whole
        owner: Any = model
        owner.logprobs_in_chunks = MethodType(_logprobs_at_once, model)
        self.model, self.optimizer = model, optimizer
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.sizes = [len(group["params"]) for group in optimizer.param_groups]
        config = {
            "train_micro_batch_size_per_gpu": 1,  # it must be said; batches are dealt out by us
            "managed_gradient_accumulation": False,  # a step ends when we say so, after any number of passes
            "gradient_clipping": max_grad_norm,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},  # 0: small weights, too
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        self.engine: Any = _deepspeed().initialize(model=model, optimizer=optimizer, config=config)[0]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimiser, whose learning rates the schedule sets."""
        return self.optimizer.param_groups

    def backward(self, loss: torch.Tensor) -> None:
        """Add the mean of the processes' gradients to what the step has."""
        self.engine.optimizer.clear_backward_seen_flag()  # else a pass would take the place of the one before it
        self.engine.backward(loss)

    def clip_and_step(self) -> float:
        """Update, and give the gradient's norm before it was clipped. If that is not finite nothing is updated."""
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def step(self) -> None:
        """Clipping has done it."""

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """All weights under their names, whole and on the CPU, for the first process. Every process must ask."""
        weights: dict[str, torch.Tensor] = {}
        state: dict[str, torch.Tensor] = self.model.state_dict()
        parameters: dict[str, torch.Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        for name, tensor in state.items():
            with _deepspeed().zero.GatheredParameters([parameters[name]] if name in parameters else []):
                if is_first():
                    weights[name] = parameters.get(name, tensor).detach().cpu().clone()
        return weights

    def whole_state(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The whole state of the optimiser: values by "number/name", and the groups. Every process must ask.

        The first process gets the values, on the CPU; the others add their parts and get none.
        """
        state = self.optimizer.state
        values: dict[str, Any] = {}
        for number, parameter in enumerate(self.parameters):
            for name, value in next(iter(state.values()), {}).items():
                whole = (
                    _deepspeed().utils.safe_get_full_optimizer_state(parameter, name)
                    if _is_of_weights(value)
                    else value
                )
                if is_first():
                    values[f"{number}/{name}"] = whole.detach().cpu().clone()
        groups, first = [], 0
        for group, size in zip(self.optimizer.param_groups, self.sizes, strict=True):
            groups.append({**group, "params": list(range(first, first + size))})
            first += size
        return values, groups

    def take_parts(self, state: dict[int, dict[str, Any]], groups: list[dict[str, Any]]) -> None:
        """Take this process's parts of a whole state, by the parameters' numbers, of any number of processes."""
        for flat in self.engine.optimizer.fp32_partitioned_groups_flat:
            self.optimizer.state[flat] = {
                name: torch.zeros_like(flat) if _is_of_weights(value) else value.clone()
                for name, value in state.get(0, {}).items()
            }
        for number, its in state.items():
            for name, value in its.items():
                if _is_of_weights(value):
                    part = _deepspeed().utils.safe_get_local_optimizer_state(self.parameters[number], name)
                    own = value.flatten()[len(part) * distributed.get_rank() :][: len(part)]
                    part[: len(own)].copy_(own)  # the last part may be padded
        for group, told in zip(self.optimizer.param_groups, groups, strict=True):
            group.update({name: value for name, value in told.items() if name != "params"})


def _logprobs_at_once(
    model: "PreTrainedModel", place_N: torch.Tensor, target_N: torch.Tensor, rows: int, inputs: dict[str, Any]
) -> torch.Tensor:
    """In place of `head.logprobs_in_chunks`: the head's weights come together as often in every process."""
    return head.pick_logprobs(model(**inputs, logits_to_keep=place_N).logits[0], target_N)


def _is_of_weights(value: Any) -> bool:
    """Whether a state has a number for each weight; the count of steps is one for all."""
    return isinstance(value, torch.Tensor) and value.dim() > 0
