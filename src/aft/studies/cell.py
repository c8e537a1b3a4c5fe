"""One cell of a study in a process of its own: `python -m aft.studies.cell`, its order as a line on standard input."""

import json
import logging
import os
import signal
import sys
import threading
from typing import Any, cast

from kedro.framework.project import configure_project
from kedro.framework.session import KedroSession

from aft.code import load_rooms
from aft.errors import IncompleteRecord, StoreError
from aft.pipelines.evaluate.nodes import ROOMS
from aft.user_errors import one_sentence

logger = logging.getLogger(__name__)

UNTRACKED = 3  # exit status of a cell whose results are complete, and its record in MLflow is not


def main() -> None:
    """Run what the order says; a mistake of the user ends in one sentence, a record with gaps in `UNTRACKED`."""
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    configure_project("aft")
    try:
        if order["code"] != load_rooms(*ROOMS):
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
        sys.exit(UNTRACKED)
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None:
            raise
        sys.exit(f"Error: {sentence}")


def _end_with_the_study() -> None:
    """End this process, in the orderly way, when the study's process closes its end of standard input."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
