"""Studies in MLflow: one run under which the runs of all cells are nested, and one for each study's files."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aft.errors import AftError, IncompleteRecord
from aft.hooks.mlflow_alive import Alive, be_alive
from aft.hooks.mlflow_connection import connected, reason
from aft.hooks.mlflow_outbox import Outbox
from aft.hooks.mlflow_tracking import MlflowSettings
from aft.hooks.provenance import shown_uri

logger = logging.getLogger(__name__)

_PATIENCE_S = 60  # how long the end of the studies is tried to be recorded


@dataclass
class StudiesRun:
    """The run in MLflow that others are nested under, and what becomes of these."""

    run_id: str | None = None  # None if runs are not recorded
    alive: Alive | None = None
    incomplete: int = 0  # how many of the others are not, or not completely, in MLflow
    statuses: dict[str, str] = field(default_factory=dict)  # of the studies' runs that MLflow has


@contextmanager
def parent_run(settings: MlflowSettings, project: Path, name: str) -> Iterator[StudiesRun]:
    """A run to nest others under, closed in the end.

    Raises `IncompleteRecord` if all went well but for MLflow, which lacks this run's end or something of the others.
    """
    if not settings.enabled:
        yield StudiesRun()
        return
    uri = settings.uri(project)
    shown = shown_uri(uri, project)
    logger.info(
        "Recording to the experiment '%s' of MLflow at %s; the first time takes some seconds.",
        settings.experiment,
        shown,
    )
    with connected(uri, settings.experiment, project) as (client, experiment_id):
        alive = be_alive(project, uri, experiment_id)
        tags = {"kind": "studies", **alive.tags}
        run_id = client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
        outbox = Outbox(uri)
    parent = StudiesRun(run_id, alive)
    status = "FAILED"
    try:
        yield parent
        status = "FINISHED"
    finally:
        outbox.write(partial(client.set_terminated, run_id, status))
        outbox.finish(_PATIENCE_S if status == "FINISHED" else 0)
        alive.end({run_id: status, **parent.statuses} if outbox.missing or parent.incomplete else None)
    missing = parent.incomplete + bool(outbox.missing)
    if missing:
        raise IncompleteRecord(
            f"The studies are complete; of {missing} of their runs MLflow lacks something, as the log says."
        )


def record_study(settings: MlflowSettings, project: Path, parent: StudiesRun, name: str, folder: Path) -> None:
    """The files of a finished study, as a run under `parent`, which counts it if MLflow cannot take it.

    A study goes on without MLflow, with a warning.
    """
    if parent.run_id is None or parent.alive is None:
        return
    uri = settings.uri(project)
    try:
        with connected(uri, settings.experiment, project) as (client, experiment_id):
            tags = {"mlflow.parentRunId": parent.run_id, "kind": "study", **parent.alive.tags}
            run_id = client.create_run(experiment_id, tags=tags, run_name=f"study {name}").info.run_id
            parent.statuses[run_id] = "FAILED"
            try:
                client.log_artifacts(run_id, str(folder))
                parent.statuses[run_id] = "FINISHED"
            finally:
                client.set_terminated(run_id, parent.statuses[run_id])
    except Exception as error:  # stores of artifacts raise what they like
        parent.incomplete += 1
        why = error if isinstance(error, AftError) else f"{reason(error, uri)}."
        logger.warning("The files of the study %s lie in %s, and not in MLflow. %s", name, folder, why)
