"""Start the processes of a training run, wait for them, and tell what went wrong in one of them."""

import json
import logging
import shutil
import sys
from pathlib import Path

from aft import errors
from aft.training.job import Job, write_job
from aft.training.settings import Launch

logger = logging.getLogger(__name__)

ERROR = "error.json"  # in a job's folder, written by the first process that fails in a way that a user can mend
_JOB, _RUN = "job", "aft"


def fit_together(job: Job, start: Path, directory: Path, launch: Launch) -> None:
    """Do what `aft.training.run.fit` does, in several processes; the weights start from the model directory `start`.

    Raises what a process raised if it is an error of AFT's own, else `WorkerError`; the others are ended.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    folder = directory / _JOB
    (folder / ERROR).unlink(missing_ok=True)
    write_job(folder, job, start, sharded=launch.sharding == "full")
    rendezvous = launch.rendezvous or "localhost:0"
    logger.info("%s: %d processes on %d machine(s).", job.label, launch.processes, launch.machines)
    if launch.machines > 1:
        logger.info(
            "On each other machine run: torchrun --nnodes %d --nproc-per-node %d --max-restarts 0 --rdzv-backend c10d "
            "--rdzv-id %s --rdzv-endpoint %s -m aft.training.worker %s",
            *(launch.machines, launch.processes, _RUN, rendezvous, folder.absolute()),
        )
    config = LaunchConfig(
        min_nodes=launch.machines,
        max_nodes=launch.machines,
        nproc_per_node=launch.processes,
        run_id=_RUN,
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous,
        max_restarts=0,  # an error that training made once it makes again
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "aft.training.worker", str(folder))
    except ChildFailedError as error:
        raise _told(folder, job.label) from error
    shutil.rmtree(folder)


def _told(folder: Path, label: str) -> Exception:
    try:
        told = json.loads((folder / ERROR).read_text())
    except (OSError, ValueError):
        return errors.WorkerError(
            f"{label}: one of the processes ended early, killed or for want of memory; what it said stands above. Run "
            "the same command again to go on from the last checkpoint."
        )
    return getattr(errors, told["kind"], errors.AftError)(told["message"])
