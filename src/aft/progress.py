"""Progress bars: one look for all, drawn here or by the process that this one works for."""

import io
import logging
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)

_MEASURED_S, _LONG_S = 20, 60  # after so many seconds the log tells how long the rest takes, if that is as long
_elsewhere: list[Callable[[str], object]] = []  # where bars are shown, if not here


def bar(label: str, total: int, unit: str, *, done: int = 0, silent: bool = False) -> "tqdm[Any]":
    """A bar for work that goes on for longer than a second; what is done sooner draws none."""
    elsewhere = {"file": io.StringIO(), "leave": False} if _elsewhere else {}
    return _Bar(
        **{"total": total, "initial": done, "desc": label, "unit": unit, "disable": silent},
        **{"mininterval": 1, "delay": 1, **elsewhere},
    )


def show_by(show: Callable[[str], object]) -> None:
    """Give the text of every bar to `show` from here on, whenever it changes and empty at its end: nothing is drawn."""
    _elsewhere[:] = [show]


class _Bar(tqdm):
    """tqdm's, shown where `show_by` says; of long work the log tells once, early on, how long the rest takes."""

    told = False

    def update(self, n: float | None = 1) -> bool | None:
        """Count what is done."""
        shown = super().update(n)
        if not self.told and not self.disable and (taken := self.format_dict["elapsed"]) >= _MEASURED_S:
            self.told, done = True, self.n - self.initial
            left = taken / done * (self.total - self.n) if done else 0
            if left >= _LONG_S:
                message = "%s: about %d min left, by the first %d of %d %ss."
                logger.info(message, self.desc, round(left / 60), done, self.total - self.initial, self.unit)
        return shown

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar, or `msg`."""
        if not _elsewhere:
            return super().display(msg, pos)  # type: ignore[return-value]
        _elsewhere[0](str(self) if msg is None else msg)
        return True
