"""A process that makes beforehand what a run will ask for: `python -m aft.hooks.worker`, started by `aft.hooks.crew`.

It gets nodes with their inputs over a pipe and tells what becomes of them: their outputs or that they failed, the text
of the progress bar, and warnings. When the other end of the pipe is closed, it ends.
"""

import logging
import os
import signal
import sys
import threading
from importlib import import_module
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from kedro.pipeline.node import Node

from aft.code import load_rooms
from aft.machine import collect_seldom, share_cores
from aft.progress import show_by

KEDROS = logging.getLogger("kedro.pipeline.node")  # it logs errors, which are logged when a node's turn comes


def main(descriptor: str, sharing: str, needed: str, rooms: str) -> None:
    """Serve the pipe of this file descriptor, as one of `sharing` processes.

    The first message is the hash of the code of `rooms`, when these and the modules `needed` (both separated by commas)
    are imported.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, with which this process ends
    pipe = _Pipe(Connection(int(descriptor)))
    logging.getLogger().addHandler(pipe)
    KEDROS.disabled = True
    collect_seldom()
    share_cores(int(sharing))
    show_by(lambda text: pipe.tell("shown", text))
    for name in filter(None, needed.split(",")):
        import_module(name)
    pipe.tell("code", load_rooms(*rooms.split(",")))
    while True:
        node, inputs = pipe.orders.get()
        try:
            told = "made", node.run(inputs)
        except Exception as error:
            told = "failed", str(error)
        pipe.tell(*told)


class _Pipe(QueueHandler):
    """The pipe to the run, as a handler of warnings; orders are read by a thread, which sees at once when it closes."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.setLevel(logging.WARNING)
        self.orders: SimpleQueue[tuple[Node, dict[str, Any]]] = SimpleQueue()
        self._connection, self._turn = connection, threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand a warning on."""
        self.tell("told", record)

    def tell(self, what: str, content: Any) -> None:
        """Send one message; several threads draw bars."""
        with self._turn:
            self._connection.send((what, content))

    def _read(self) -> None:
        try:
            while True:
                self.orders.put(self._connection.recv())
        finally:  # the run has ended, however it did: what was begun is kept, and nobody waits for the rest
            os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
