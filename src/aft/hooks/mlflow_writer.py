"""A process that writes the records of runs to MLflow: `python -m aft.hooks.mlflow_writer`; see `RecordProcess`."""

import logging
import os
import signal
import sys

from aft.errors import AftError
from aft.hooks.mlflow_plan import Plan, milliseconds
from aft.hooks.mlflow_record import RunRecord, open_record
from aft.hooks.pipe import TheirEnd
from aft.machine import collect_seldom


def main(descriptor: str) -> None:
    """Serve the pipe of this file descriptor until the run's process ends.

    An order is the name of a method of `RunRecord` and what it is given, or `open` and a plan.
    """
    for one in (signal.SIGINT, signal.SIGTERM):  # they are for the run, which tells us to close the record
        signal.signal(one, signal.SIG_IGN)
    collect_seldom()
    pipe = TheirEnd(descriptor, logging.INFO, at_end=lambda: pipe.orders.put(None))
    logging.getLogger("aft").setLevel(logging.INFO)
    logging.getLogger().addHandler(pipe)
    record: RunRecord | None = None
    while (order := pipe.orders.get()) is not None:
        what, *given = order
        if what == "open":
            record = _open(pipe, *given)
        elif record is not None:  # else it was refused, and the run will hear of it
            done = getattr(record, what)(*given)
            if what == "close":
                record = None
                pipe.tell("closed", done)
    if record is not None:
        record.close("KILLED", milliseconds())
    os._exit(0)  # what Python would tidy up takes half a second, for which a run's caller may wait


def _open(pipe: TheirEnd, plan: Plan) -> RunRecord | None:
    """The record of a plan; None if it cannot be opened, which the run is told."""
    try:
        record = open_record(plan)
    except AftError as error:
        pipe.tell("refused", error)
        return None
    pipe.tell("opened", None)
    return record


if __name__ == "__main__":
    main(*sys.argv[1:])
