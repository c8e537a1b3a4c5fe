"""`kedro`, command by command, each in a fork of this process, which has imported what takes a command the longest.

A line of standard input is a command: its arguments, its environment and the two files for what it says. A line of
standard output is the exit status with which a command ended.
"""

import importlib
import json
import logging
import os
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

from kedro.framework.cli import main

from aft.hooks import mlflow_writer, pipe

IMPORTED = (
    "aft.settings",  # the first of all: it sets what the others read from the environment as they are imported
    *("accelerate", "datasets", "matplotlib.figure", "mlflow", "mlflow.store.tracking.sqlalchemy_store"),
    *("pandera.pandas", "pyarrow.parquet", "scipy.stats", "torch", "transformers.models.llama.modeling_llama"),
)
for name in IMPORTED:
    importlib.import_module(name)

start_process = pipe.start


def fork_writer(module: str, *given: Any) -> tuple[Any, Connection]:
    """The process that writes to MLflow, with what is imported here; any other is started as ever."""
    if module != mlflow_writer.__name__:
        return start_process(module, *given)
    ours, theirs = Pipe()
    writer = os.fork()
    if writer == 0:
        try:
            ours.close()
            logging.getLogger().handlers.clear()  # those of the command
            mlflow_writer.main(str(theirs.fileno()))
        finally:
            os._exit(1)
    theirs.close()
    return SimpleNamespace(poll=lambda: None), ours


for line in sys.stdin:
    command = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
    sys.stdout.flush()
else:
    sys.exit()

os.environ.update(command["environment"])
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for descriptor, file in enumerate(command["says"], start=1):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
pipe.start = fork_writer
sys.argv = ["python -m kedro", *command["arguments"]]
main()
