"""The optimiser of a run and the schedule of its learning rate."""

import math
from typing import TYPE_CHECKING

import torch  # noqa: TID253

from aft.training.settings import TrainingSettings
from aft.training.weights import trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_optimizer(model: "PreTrainedModel", settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimiser over all weights that are trained; only matrices decay, no bias and no norm."""
    weights = trained(model).values()
    groups = [
        {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    if settings.optimizer == "adamw_8bit":
        from bitsandbytes.optim.adamw import AdamW8bit

        return AdamW8bit(groups, lr=settings.learning_rate)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate)
    from transformers import Adafactor  # its module imports peft where that is installed, which takes seconds

    return Adafactor(groups, lr=settings.learning_rate, scale_parameter=False, relative_step=False)


def warmup_steps(settings: TrainingSettings, total: int) -> int:
    """Optimiser steps until the learning rate has its peak; one step at least comes after them."""
    return min(math.ceil(settings.warmup * total), max(0, total - 1))


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, total: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear: from 0 to the peak over the warm-up, then down to 0 at the end of all `total` steps."""
    warmup = warmup_steps(settings, total)

    def factor(step: int) -> float:
        return step / warmup if step < warmup else max(0.0, (total - step) / max(1, total - warmup))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
