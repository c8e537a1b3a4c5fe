"""A process that works for a run, and the pipe to it: orders go one way, answers and lines of the log come back."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from logging.handlers import QueueHandler
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any


def start(module: str, words: Sequence[str], share: Mapping[str, str]) -> tuple[subprocess.Popen, Connection]:
    """`python -m module DESCRIPTOR WORDS` with the variables `share`, and our end of the pipe of that descriptor."""
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno()), *words],
            env={**os.environ, **share},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return process, ours


class TheirEnd(QueueHandler):
    """The pipe as the process has it: a handler of the log, too, whose warnings go to the run.

    A thread reads the orders, so that whoever gives them need not wait, and sees at once when the run has ended,
    however it did; then it calls `at_end`. What is told after that goes nowhere.
    """

    def __init__(self, descriptor: str, at_end: "Callable[[TheirEnd], object]") -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.setLevel(logging.WARNING)
        self.orders: SimpleQueue[Any] = SimpleQueue()
        self._connection, self._turn, self._at_end = Connection(int(descriptor)), threading.Lock(), at_end
        threading.Thread(target=self._read, daemon=True).start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand a warning on."""
        self.tell("told", record)

    def tell(self, what: str, content: Any) -> None:
        """Send one message, whole, whichever thread it is from."""
        with self._turn, suppress(OSError):
            self._connection.send((what, content))

    def _read(self) -> None:
        try:
            with suppress(EOFError, OSError):
                while True:
                    self.orders.put(self._connection.recv())
        finally:  # also of an order that cannot be read
            self._at_end(self)


def show(line: logging.LogRecord) -> None:
    """Log a line that such a process has told, as if it were from here."""
    logger = logging.getLogger(line.name)
    if logger.isEnabledFor(line.levelno):
        logger.handle(line)
