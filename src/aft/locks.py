"""Locks between runs: files that the operating system frees when their process ends."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from aft.errors import SettingsError, StoreError
from aft.files import writing

logger = logging.getLogger(__name__)

LOCKS = ".locks"  # the folder of the locks of runs, in the data folder
CLEANING = "cleaning.lock"  # the one there that no run holds: whoever removes what no result names
PATIENCE = "AFT_LOCK_PATIENCE_S"  # environment variable: how long to wait for another run's lock; unset: without end
_MOMENT_S = 1.0  # how long a lock is waited for in silence


@contextmanager
def locked(path: Path, what: str | None = None, *, patience: float | None = None) -> Iterator[None]:
    """Hold the lock file `path`; the operating system frees it when the process ends, however it ends.

    A lock that another run holds is waited for, and the log says so: `what` is what that run makes, which is else read
    off the lock's name. Raises `StoreError` after `patience` seconds, which are those of the environment variable
    `PATIENCE` if they are not given; without either it waits without end.
    """
    patience = patience_s() if patience is None else patience
    what = what or str(path.parent / path.name.removeprefix(".").removesuffix(".lock"))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        if not _acquired(lock, min(patience, _MOMENT_S)):
            if patience > _MOMENT_S:
                logger.info("Waiting for another run that makes %s (its lock is %s).", what, path)
            if not _acquired(lock, patience - _MOMENT_S):
                raise StoreError(f"Another run is making {what}; wait until it has ended, or stop it, and run again.")
    try:
        yield
    finally:
        lock.release()


def lock_of(directory: Path) -> Path:
    """The lock of whoever fills `directory`: beside it, so that it outlives it."""
    return directory.with_name(f".{directory.name}.lock")


def patience_s() -> float:
    """How many seconds a run waits for another one, by the environment variable `PATIENCE`; infinite if it is unset.

    Raises `SettingsError` if it is no number of at least 0.
    """
    value = os.environ.get(PATIENCE)
    try:
        patience = math.inf if value is None else float(value)
    except ValueError:
        patience = math.nan
    if not patience >= 0:
        raise SettingsError(f"{PATIENCE} is {value!r}, but must be a number of seconds of at least 0, or unset.")
    return patience


def _acquired(lock: FileLock, patience: float) -> bool:
    """Whether the lock could be had within so many seconds."""
    try:
        lock.acquire(timeout=-1 if patience == math.inf else max(patience, 0))
    except Timeout:
        return False
    return True
