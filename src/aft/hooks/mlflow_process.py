"""The record of a run in MLflow, written by another process: MLflow costs seconds of a core, beside the run's own."""

import atexit
import logging
import os
import socket
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from queue import SimpleQueue
from subprocess import Popen
from typing import Any

from aft.errors import IncompleteRecord, StoreError
from aft.hooks import pipe
from aft.hooks.mlflow_plan import Child, Plan

logger = logging.getLogger(__name__)


class RecordProcess:
    """Does what `RunRecord` does, in the order in which it is told, while the run goes on; for one run after the other.

    Any method raises `SettingsError` or `StoreError` once it is known that the record cannot be opened. However this
    process ends, the other one closes the record, as KILLED if nothing else was said, and ends, too; if MLflow does not
    take that in two minutes, the next run closes it (`aft.hooks.mlflow_alive`).
    """

    def __init__(self) -> None:
        self._process: Popen | None = None
        self._pipe: Connection | None = None  # none if there is no process, or it is gone
        self._answers: SimpleQueue[tuple[str, Any]] = SimpleQueue()  # of this process
        self._place: Any = None  # folder and environment in which it was started
        self._busy = self._opening = self._lost = False
        self._missing: int | None = None  # how many records MLflow lacks, when that was answered

    def open_record(self, plan: Plan) -> "RecordProcess":
        """Begin to open the record of a run."""
        place = Path.cwd(), dict(os.environ)
        if self._busy or place != self._place:  # it has a record yet, of an interrupted run; or it would read others
            self._let_go()
        if self._process is None or self._process.poll() is not None or self._pipe is None:
            self._start()
            self._place = place
        self._busy, self._opening, self._lost, self._missing = True, True, False, None
        self._order("open", plan)
        return self

    def ready(self) -> None:
        """Wait until the record is open."""
        try:
            while self._opening:
                self._hear()
        except BaseException:  # Ctrl-C need not wait for MLflow, too
            self._let_go()
            raise

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
        self._busy = False
        if self._lost:
            raise IncompleteRecord("the process that writes to MLflow ended before the run, and its record has gaps")
        return self._missing or 0

    def _order(self, *order: Any) -> None:
        """Tell the process what to do, and hear what it has answered meanwhile."""
        if self._pipe is None:
            return
        packed = ForkingPickler.dumps(order)
        try:
            self._pipe.send_bytes(packed)
        except OSError:  # it is gone: hear all that it has answered before
            while self._pipe is not None:
                self._hear()
        except BaseException:  # half an order cannot be followed by another
            self._let_go()
            raise
        while self._pipe is not None and not self._answers.empty():
            self._hear()

    def _hear(self) -> None:
        """Wait for an answer."""
        what, content = self._answers.get()
        if what == "gone":
            self._lose()
        self._opening = False
        if what == "refused":
            self._let_go()
            raise content
        if what == "closed":
            self._missing = content

    def _start(self) -> None:
        try:
            self._process, self._pipe = pipe.start("aft.hooks.mlflow_writer", (), {})
        except OSError as error:
            raise StoreError(
                f"The process that writes to MLflow cannot be started: {error.strerror}; run again, or set enabled: "
                "false in mlflow.yml."
            ) from error
        self._answers = SimpleQueue()
        threading.Thread(target=_listen, args=(self._pipe, self._answers), daemon=True).start()
        atexit.register(self._let_go)

    def _lose(self) -> None:
        """The process is gone by itself; raises `StoreError` if nothing was recorded yet."""
        self._let_go()
        self._lost = True
        if self._opening:
            self._opening = False
            raise StoreError(
                "The process that writes to MLflow has ended before it recorded anything; run again, or set enabled: "
                "false in mlflow.yml (what was computed is kept)."
            )
        logger.warning("The process that writes to MLflow has ended: the record of this run has gaps.")

    def _let_go(self) -> None:
        """Give no more orders: the process closes what it has open, and ends."""
        atexit.unregister(self._let_go)
        if self._pipe is not None:
            # Closing it would not be noticed at the other end while a thread reads here; it is closed with that.
            with suppress(OSError), socket.socket(fileno=os.dup(self._pipe.fileno())) as ours:
                ours.shutdown(socket.SHUT_WR)
            self._pipe = None


def _listen(theirs: Connection, answers: SimpleQueue[tuple[str, Any]]) -> None:
    """Read what the process says until it is gone: warnings are told at once."""
    try:
        with suppress(EOFError, OSError):
            while True:
                what, content = theirs.recv()
                if what == "told":
                    pipe.show(content)
                else:
                    answers.put((what, content))
    finally:
        answers.put(("gone", None))
