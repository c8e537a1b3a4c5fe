"""A process that writes the records of runs to MLflow: `python -m aft.hooks.mlflow_writer`; see `RecordProcess`."""

import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from aft.hooks.pipe import TheirEnd

if TYPE_CHECKING:
    from aft.hooks.mlflow_plan import Plan
    from aft.hooks.mlflow_record import RunRecord

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # they are for the run, which lets us know
_LONGEST_END_S = 120  # how long a record may take to be closed when the run has ended


def main(descriptor: str) -> None:
    """Serve the pipe of this file descriptor until the run's process ends, then end this one.

    An order is the name of a method of `RunRecord` and what it is given, or `open` and a plan.
    """
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    pipe = TheirEnd(descriptor, at_end=_end)
    logging.getLogger().addHandler(pipe)
    from aft.hooks.mlflow_plan import milliseconds
    from aft.machine import collect_seldom

    collect_seldom()
    record: RunRecord | None = None
    try:
        while (order := pipe.orders.get()) is not None:
            what, *given = order
            if what == "open":
                record = _open(pipe, *given)
            elif record is not None:  # else it was refused, of which the run will hear
                done = getattr(record, what)(*given)
                if what == "close":
                    record = None
                    pipe.tell("closed", done)
    except Exception:
        logger.exception("The record of a run cannot be written to MLflow")
    try:
        if record is not None:
            record.close("KILLED", milliseconds())
    finally:
        os._exit(0)  # what Python would tidy up takes half a second, for which a run's caller may wait


def _open(pipe: TheirEnd, plan: "Plan") -> "RunRecord | None":
    """The record of a plan; None if it cannot be opened, which the run is told."""
    from aft.errors import AftError
    from aft.hooks.mlflow_record import open_record

    try:
        record = open_record(plan)
    except AftError as error:
        pipe.tell("refused", error)
        return None
    pipe.tell("opened", None)
    return record


def _end(pipe: TheirEnd) -> None:
    """The run has ended: what it has ordered is done, but not for ever."""
    late = threading.Timer(_LONGEST_END_S, os._exit, [1])
    late.daemon = True
    late.start()
    pipe.orders.put(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
