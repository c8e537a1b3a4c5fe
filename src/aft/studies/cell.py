"""The process that runs cells of a study: `python -m aft.studies.cell`, an order on each line of standard input.

One process runs many cells, because its imports take as long as a small cell's training. What a cell prints goes to its
log; its status is a line on standard output.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, cast

from kedro.framework.project import configure_project
from kedro.framework.session import KedroSession

from aft.code import load_rooms
from aft.errors import IncompleteRecord, StoreError
from aft.files import digest
from aft.pipelines.evaluate.nodes import ROOMS
from aft.studies.marks import CODE_OF
from aft.tasks import latex, marking_code
from aft.user_errors import one_sentence

logger = logging.getLogger(__name__)

ENDED = "This cell has ended with status "
UNTRACKED = 3  # status of a cell whose results are complete, and its record in MLflow is not

Order = dict[str, Any]


def main() -> None:
    """Run what is ordered, one cell after another, until the study's process closes its end of standard input."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as replies:
        configure_project("aft")
        for order in _orders():
            _write_to(Path(order["log"]))
            latex.begin_anew()  # for answers that could not be compared in time in the cell before
            status = run(order)
            sys.stdout.flush()
            sys.stderr.flush()
            replies.write(f"\n{ENDED}{status}\n")
            replies.flush()


def run(order: Order) -> int:
    """The status of a cell: 0; 1 after a mistake, of the user in one sentence; `UNTRACKED` for a record with gaps."""
    try:
        families = {name: digest(marking_code([name.removeprefix(CODE_OF)])) for name in order["families"]}
        if (order["code"], order["families"]) != (load_rooms(*ROOMS), families):
            raise StoreError("The code has changed while the study was going; run the same command again.")
        with KedroSession.create(
            order["project"],
            env=order["env"],
            conf_source=order["conf_source"],
            runtime_params=order["runtime_params"],
        ) as session:
            cast(KedroSession, session).run(pipeline_names=["variants"], to_outputs=order["to_outputs"])
    except IncompleteRecord as error:  # the cell's results are there, which is what the study waits for
        logger.warning("%s", error)
        return UNTRACKED
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None:
            sys.excepthook(type(error), error, error.__traceback__)
        else:
            sys.stderr.write(f"Error: {sentence}\n")
        return 1
    return 0


def _orders() -> Iterator[Order]:
    """The orders as they come. When there will be no more, this process ends in the orderly way, even within a cell."""
    lines = SimpleQueue[str]()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get()
        except KeyboardInterrupt:  # it is for the study, which this process ends with
            return
        yield json.loads(line)


def _write_to(path: Path) -> None:
    """From here on all output of this process goes to a new file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("w", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())


if __name__ == "__main__":
    main()
