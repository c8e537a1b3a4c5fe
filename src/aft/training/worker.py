"""One of several processes that train a model: `torchrun … -m aft.training.worker JOB [PARENT]`.

PARENT is the process whose end ends this one; without it, the one that started this. On more than one machine, each
runs the command that the first one logs; JOB lies on a file system that all of them see.
"""

import logging
import os
import sys
import threading
import time
from pathlib import Path

from torch import distributed  # noqa: TID253

from aft.errors import AftError
from aft.files import write_json
from aft.models.environment import cleared
from aft.training.job import read_job
from aft.training.launch import ERROR
from aft.training.run import fit


def main() -> None:
    """Train as one of the processes; an error that a user can cause is written down for the process that asked."""
    folder = Path(sys.argv[1])
    parent = int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid()  # which may be gone by now
    threading.Thread(target=_end_with_the_parent, args=(parent,), daemon=True).start()
    first = os.environ.get("RANK") == "0"
    level = logging.INFO if first else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    try:
        job, start, sharding = read_job(folder)
        with cleared(launched=True):
            fit(job, lambda: (start.model(), start.tokenizer()), folder.parent, sharding=sharding)
    except AftError as error:
        write_json(folder / ERROR, {"kind": type(error).__name__, "message": str(error)})
        sys.exit(str(error))
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _end_with_the_parent(parent: int) -> None:
    """End at once when the process that started this one is gone, however it went: nobody would wait for the result."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
