"""What can be set about a training run; importing this costs nothing."""

import math
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from aft.errors import SettingsError

_ABOVE_ZERO = (
    *("epochs", "learning_rate", "batch_size", "token_budget", "max_grad_norm", "max_tokens", "max_steps"),
    "checkpoint_every",
)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How any model of the project is trained: the base model's pretraining, VFT and every variant."""

    epochs: float  # passes over the training questions
    learning_rate: float  # the peak, reached after the warm-up and then lowered linearly to 0
    batch_size: int  # training examples (a question with all its responses) per optimiser step
    token_budget: int = 8192  # tokens per forward pass with its graph; a batch is split under it
    scoring: Literal["auto", "naive", "shared", "two_pass"] = "auto"  # how responses are scored, see aft.scoring.paths
    warmup: float = 0.03  # share of the steps over which the learning rate rises
    weight_decay: float = 0.0  # of AdamW
    max_grad_norm: float = 1.0  # the gradient is scaled down to this norm
    max_tokens: int = 512  # prompt + response; longer ones are left out, and counted
    max_steps: int | None = None  # stop after so many optimiser steps; None = all epochs
    checkpoint_every: int = 200  # optimiser steps between two checkpoints
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16 = autocast; weights stay float32
    gradient_checkpointing: bool = False  # trade time for memory

    def __post_init__(self) -> None:
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingsError(f"{name} is {value}: it must be above 0.")
        if not 0 <= self.weight_decay < math.inf:
            raise SettingsError(f"weight_decay is {self.weight_decay}: it must be 0 or above.")
        if not 0 <= self.warmup < 1:
            raise SettingsError(f"warmup is {self.warmup}: it is a share of the steps, from 0 up to 1.")


@dataclass(frozen=True, slots=True)
class Objective:
    """One variant: loss = vft + weight x alignment(term, constraint). The defaults are plain VFT."""

    term: Literal["none", "aft", "rrhf", "pro", "dpo"] = "none"  # the alignment term; none = maximum likelihood alone
    constraint: Literal["none", "detached", "detached_lowest", "boundary"] = "none"  # what protects the negatives
    weight: float = 1.0  # of the alignment term beside the VFT term (Eq. 4)
    beta: float = 0.15  # margin of the boundary below the worst positive (Eq. 8)
    dpo_beta: float = (
        0.1  # DPO's inverse temperature, of scores under the model less those under the VFT model (Eq. 16)
    )
    learn_positives: bool = False  # RFT: every distinct correct sample is one more reference
    reference_as_positive: bool = False  # count the reference as one more best-ranked response of its question

    def __post_init__(self) -> None:
        if not 0 < self.dpo_beta < math.inf:
            raise SettingsError(f"dpo_beta is {self.dpo_beta}: it must be above 0.")
        if not (isfinite(self.weight) and self.weight >= 0 and isfinite(self.beta)):
            raise SettingsError(f"weight ({self.weight}) must be 0 or more, and beta ({self.beta}) a number.")
        if self.constraint != "none" and self.term == "none":
            raise SettingsError("A constraint needs an alignment term: set term as well, or constraint to none.")
        if self.reference_as_positive and self.term == "dpo":
            raise SettingsError("The term 'dpo' compares samples only: leave out reference_as_positive.")
        if self.learn_positives and self.term != "none":
            raise SettingsError("learn_positives (RFT) has no groups to rank: set term to none, or leave it out.")

    @property
    def label(self) -> str:
        """A short name for progress bars and logs."""
        if self.term == "none":
            return "rft" if self.learn_positives else "vft"
        return self.term if self.constraint == "none" else f"{self.term}+{self.constraint}"
