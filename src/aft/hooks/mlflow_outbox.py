"""The queue of records still to be written to MLflow: a run goes on whether or not MLflow takes them."""

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from aft.hooks.mlflow_connection import little_patience, reason
from aft.hooks.mlflow_database import database_file
from aft.pipelines.recorded import without_credentials

logger = logging.getLogger(__name__)

_PAUSE = 10  # times as long as a write took that failed: trouble costs a run a tenth of its time at most
_BETWEEN_S = 1.0  # seconds between two attempts at the end


class Outbox:
    """Writes in their order; one that fails waits for the next, and the run goes on.

    A write that MLflow refuses, as it would a metric with an impossible name, is given up; so is one that needs the id
    of a run that was refused.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._file = database_file(uri)
        self._identity = _identity(self._file)
        self._waiting: deque[Callable[[], object]] = deque()
        self._written = self._refused = 0
        self._not_before = 0.0  # the clock's time
        self._warned = False

    @property
    def missing(self) -> int:
        """How many writes are not in MLflow: all of them if its database was deleted or replaced meanwhile."""
        lost = self._written if self._is_another_file else 0
        return lost + self._refused + len(self._waiting)

    def write(self, call: Callable[[], object]) -> None:
        """Do `call` now or, if MLflow cannot take it, after what is written next."""
        self._waiting.append(call)
        if time.monotonic() >= self._not_before:
            self._try()

    def finish(self, patience_s: float) -> None:
        """Write what still waits, for so long at most."""
        deadline = time.monotonic() + patience_s
        self._try()
        while self._waiting and time.monotonic() + _BETWEEN_S <= deadline and not self._is_another_file:
            time.sleep(_BETWEEN_S)
            self._try()

    @property
    def _is_another_file(self) -> bool:
        return _identity(self._file) != self._identity

    def _try(self) -> None:
        with little_patience():
            while self._waiting:
                began = time.monotonic()
                try:
                    if self._is_another_file:  # before MLflow makes an empty one in its place
                        raise FileNotFoundError("its database was deleted or replaced")
                    self._waiting[0]()
                except Exception as error:
                    self._warn(error)
                    if not _is_final(error):
                        now = time.monotonic()
                        self._not_before = now + _PAUSE * (now - began)
                        return
                    self._refused += 1
                else:
                    self._written += 1
                self._waiting.popleft()

    def _warn(self, error: Exception) -> None:
        """Warn once in a run."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "MLflow at %s cannot take a record: %s. The run goes on; what is missing is tried again until its end.",
                without_credentials(self.uri),
                reason(error, self.uri),
            )


def _is_final(error: Exception) -> bool:
    """Whether the same write cannot succeed later: MLflow understood and refused it, or it needs what was refused."""
    from mlflow.exceptions import MlflowException

    refused = isinstance(error, MlflowException) and error.get_http_status_code() in (400, 404)
    return refused or isinstance(error, KeyError)


def _identity(file: Path | None) -> tuple[int, int] | None:
    """What makes a file this one, whatever it is called; None if there is none."""
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return status and (status.st_dev, status.st_ino)
