"""The record of a run in MLflow, written by another process: MLflow costs seconds of a core, beside the run's own."""

import atexit
import logging
from typing import Any

from aft.errors import IncompleteRecord
from aft.hooks import pipe
from aft.hooks.mlflow_plan import Child, Plan

logger = logging.getLogger(__name__)


class RecordProcess:
    """Does what `RunRecord` does, in the order in which it is told, while the run goes on; for one run after the other.

    Any method raises `SettingsError` or `StoreError` once it is known that the record cannot be opened. However this
    process ends, the other one closes the record, as KILLED if nothing else was said, and ends, too.
    """

    def __init__(self) -> None:
        self._process: Any = None  # a Popen; none before the first run
        self._pipe: Any = None  # a Connection; none when the process is gone
        self._opening = False
        self._missing: int | None = None  # how many records MLflow lacks, when that has been told

    def open(self, plan: Plan) -> "RecordProcess":
        """Begin to open the record of a run."""
        if self._pipe is None or self._process.poll() is not None:
            self._end()
            self._process, self._pipe = pipe.start("aft.hooks.mlflow_writer", (), {})
            atexit.register(self._end)
        self._opening, self._missing = True, None
        self._order("open", plan)
        return self

    def ready(self) -> None:
        """Wait until the record is open."""
        while self._opening and self._pipe is not None:
            self._hear()

    def open_child(self, child: Child, when: int) -> None:
        """Have a child run opened."""
        self._order("open_child", child, when)

    def log(self, name: str, content: Any, child: Child | None, when: int) -> None:
        """Have a dataset recorded."""
        if content is not None or child is not None:
            self._order("log", name, content, child, when)

    def close(self, status: str, when: int) -> int:
        """Have the record closed; how many records MLflow lacks. Raises `IncompleteRecord` if the process is gone."""
        self._order("close", status, when)
        while self._missing is None and self._pipe is not None:
            self._hear()
        if self._missing is None:
            raise IncompleteRecord(
                "the process that recorded the run in MLflow has ended before it, and the record has gaps"
            )
        return self._missing

    def _order(self, *order: Any) -> None:
        """Tell the process what to do, and hear what it has said meanwhile."""
        if self._pipe is None:
            return
        try:
            self._pipe.send(order)
        except OSError:
            self._lose()
        except BaseException:  # half an order cannot be followed by another
            self._end()
            raise
        while self._pipe is not None and self._pipe.poll():
            self._hear()

    def _hear(self) -> None:
        """Wait for the next thing that the process says."""
        try:
            what, content = self._pipe.recv()
        except (EOFError, OSError):
            self._lose()
            return
        except BaseException:  # the rest of what was half read would be taken for something else
            self._end()
            raise
        match what:
            case "told":
                pipe.show(content)
            case "opened":
                self._opening = False
            case "refused":
                self._opening = False
                raise content
            case "closed":
                self._missing = content

    def _lose(self) -> None:
        logger.warning("The process that records this run in MLflow has ended; the run goes on without it.")
        self._end()

    def _end(self) -> None:
        """Let go of the process, which then ends."""
        atexit.unregister(self._end)
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
