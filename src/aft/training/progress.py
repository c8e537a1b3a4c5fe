"""A progress bar for training: steps, rate, time left, and the figures that tell whether it goes well."""

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback  # noqa: TID253

_SHOWN = {"loss": "loss", "score_positive": "s_pos", "score_negative": "s_neg"}


class ProgressBar(TrainerCallback):
    """One `tqdm` bar over the optimiser steps of a run; a resumed run starts where it stopped."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.label, unit="step", mininterval=1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Move the bar to the current step."""
        if self.bar is not None and logs and "loss" in logs:
            shown = {short: f"{logs[name]:.3f}" for name, short in _SHOWN.items() if name in logs}
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
