"""A process that makes beforehand what a run will ask for: `python -m aft.hooks.worker`, started by `aft.hooks.crew`.

It gets nodes with their inputs over a pipe and tells what becomes of them: their outputs or that they failed, the text
of the progress bar, and warnings. When the other end of the pipe is closed, it ends.
"""

import logging
import os
import signal
import sys
from importlib import import_module

from aft.code import load_rooms
from aft.hooks.pipe import TheirEnd
from aft.machine import collect_seldom, share_cores
from aft.progress import show_by

KEDROS = logging.getLogger("kedro.pipeline.node")  # it logs errors, which are logged when a node's turn comes


def main(descriptor: str, sharing: str, needed: str, rooms: str) -> None:
    """Serve the pipe of this file descriptor, as one of `sharing` processes.

    The first message is the hash of the code of `rooms`, when these and the modules `needed` (both separated by commas)
    are imported.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, with which this process ends
    # When the run has ended, what was begun is kept, and nobody waits for the rest.
    pipe = TheirEnd(descriptor, at_end=lambda _: os._exit(1))
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


if __name__ == "__main__":
    main(*sys.argv[1:])
