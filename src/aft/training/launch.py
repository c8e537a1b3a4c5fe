"""Start the processes of a training run, wait for them, and report the error of one that failed."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aft import errors
from aft.models.directory import ModelDirectory
from aft.training.job import Job, write_job
from aft.training.settings import Launch

logger = logging.getLogger(__name__)

ERROR = "error.json"  # in a job's folder, written by the first process that fails in a way that a user can mend
JOB = "job"  # the folder of the job, in the directory of the model that is made
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def fit_together(job: Job, start: ModelDirectory, directory: Path, launch: Launch) -> None:
    """Do what `aft.training.run.fit` does, in several processes; the weights start from those of `start`.

    Raises what a process raised if it is an error of AFT's own, `WorkerError` if one ended otherwise, which ends the
    others, or if the processes do not find each other, and `SettingsError` if there are more of them than GPUs.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _check_devices(launch)
    folder = directory / JOB
    (folder / ERROR).unlink(missing_ok=True)
    write_job(folder, job, start, launch.sharding)
    config = LaunchConfig(
        min_nodes=launch.machines,
        max_nodes=launch.machines,
        nproc_per_node=launch.processes,
        run_id=directory.name.strip("."),
        rdzv_backend="c10d",
        rdzv_endpoint=launch.rendezvous or "localhost:0",
        max_restarts=0,  # an error that training made once it makes again
        monitor_interval=0.2,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")),
    )
    logger.info("%s: %d processes on %d machine(s).", job.label, launch.processes, launch.machines)
    if launch.machines > 1:
        logger.info(
            "On each other machine run: torchrun --nnodes %d --nproc-per-node %d --max-restarts 0 --rdzv-backend c10d "
            "--rdzv-id %s --rdzv-endpoint %s -m aft.training.worker %s",
            *(launch.machines, launch.processes, config.run_id, config.rdzv_endpoint, folder.absolute()),
        )
    try:
        with _own_signals():
            elastic_launch(config, sys.executable)("-m", "aft.training.worker", str(folder), str(os.getpid()))
    except ChildFailedError as error:
        raise _reported(folder, job.label) from error
    except RendezvousError as error:
        raise errors.WorkerError(
            f"{job.label}: the processes do not find each other at {config.rdzv_endpoint}; check launch.rendezvous and "
            "that every other machine runs what the log says."
        ) from error


def _check_devices(launch: Launch) -> None:
    import torch

    there = torch.cuda.device_count()
    if 0 < there < launch.processes:
        raise errors.SettingsError(f"launch.processes is {launch.processes}, but this machine has {there} GPU(s).")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Afterwards signals are handled as before, one that came meanwhile as well: torch's way is for its processes."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    came: signal.Signals | None = None
    try:
        yield
    except SignalException as error:
        came = error.sigval
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came is not None:
        signal.raise_signal(came)


def _reported(folder: Path, label: str) -> Exception:
    """The error that a process wrote down before it ended, or `WorkerError` if none could."""
    try:
        report = json.loads((folder / ERROR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return errors.WorkerError(
            f"{label}: one of the processes ended early, killed or for want of memory; what it said stands above. Run "
            "the same command again to go on from the last checkpoint."
        )
    return getattr(errors, report["kind"], errors.AftError)(report["message"])
