"""Which MLflow runs are alive: a process that records a run holds a lock file for as long as it lives.

The operating system frees a lock however the process ends. So a lock file that can be locked belongs to a process that
was killed, whose runs can be closed; or to one that could not reach MLflow when it ended, and left the statuses there.
Those of another machine or project have other lock files and are left alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from platform import node
from typing import TYPE_CHECKING
from uuid import uuid4

from filelock import FileLock, Timeout

from aft.files import digest

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TAG = "aft_process"  # of a run in MLflow: the name of the lock file of the process that records it


@dataclass(frozen=True)
class Alive:
    """The sign that the process that records some runs of an experiment is there."""

    lock: FileLock

    @property
    def tags(self) -> dict[str, str]:
        """What each of the runs must carry."""
        return {_TAG: Path(self.lock.lock_file).suffix[1:]}

    def end(self, unrecorded: Mapping[str, str] | None = None) -> None:
        """The runs are over; the next start writes the statuses by run that MLflow may still lack."""
        path = Path(self.lock.lock_file)
        self.lock.release()
        path.unlink(missing_ok=True)
        if unrecorded is not None:
            path.write_text(json.dumps(unrecorded), encoding="utf-8")


def be_alive(project: Path, uri: str, experiment_id: str) -> Alive:
    """Show until the end of this process that the runs that it records of an experiment go on."""
    folder = _folder(project)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{_prefix(uri, experiment_id)}.{uuid4().hex}")
    lock.acquire()
    return Alive(lock)


def close_killed(client: "MlflowClient", project: Path, uri: str, experiment_id: str) -> None:
    """Close the runs of an experiment whose process, on this machine, is gone: with the status it left, or KILLED."""
    for path in _folder(project).glob(f"{_prefix(uri, experiment_id)}.*"):
        statuses = _unrecorded(path)  # before the lock is had: not every version of filelock keeps what the file holds
        left = Alive(FileLock(path, timeout=0))
        try:
            left.lock.acquire()
        except Timeout:
            continue
        ((tag, value),) = left.tags.items()
        try:
            for run in client.search_runs([experiment_id], f"tags.{tag} = '{value}' and attributes.status = 'RUNNING'"):
                client.set_terminated(run.info.run_id, statuses.get(run.info.run_id, "KILLED"))
        except BaseException:
            left.end(statuses)
            raise
        left.end()


def _unrecorded(path: Path) -> dict[str, str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # empty: its process was killed
        return {}


def _folder(project: Path) -> Path:
    return project / "mlartifacts" / ".running"


def _prefix(uri: str, experiment_id: str) -> str:
    return digest([node(), uri, experiment_id])
