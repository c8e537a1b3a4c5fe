"""Studies in MLflow: one run under which the runs of all cells are nested, and one for each study's files."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from aft.errors import IncompleteRecord, SettingsError, StoreError
from aft.hooks.mlflow_alive import be_alive
from aft.hooks.mlflow_connection import connected
from aft.hooks.mlflow_outbox import Outbox
from aft.hooks.mlflow_tracking import MlflowSettings

logger = logging.getLogger(__name__)

_PATIENCE_S = 60  # how long the end of the studies is tried to be recorded


@contextmanager
def parent_run(settings: MlflowSettings, project: Path, name: str) -> Iterator[str | None]:
    """The id of a run to nest others under, closed in the end; None if runs are not recorded.

    Raises `IncompleteRecord` if all went well but for MLflow, which could not be told so.
    """
    if not settings.enabled:
        yield None
        return
    uri = settings.uri(project)
    with connected(uri, settings.experiment, project) as (client, experiment_id):
        alive = be_alive(project, uri, experiment_id)
        tags = {"kind": "studies", **alive.tags}
        run_id = client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
        outbox = Outbox(uri)
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    finally:
        outbox.write(partial(client.set_terminated, run_id, status))
        outbox.finish(_PATIENCE_S if status == "FINISHED" else 0)
        alive.end(closed=not outbox.missing)
    if outbox.missing:
        raise IncompleteRecord("The studies are complete; that they are could not be recorded in MLflow.")


def record_study(settings: MlflowSettings, project: Path, parent: str | None, name: str, folder: Path) -> None:
    """The files of a finished study, as a run under `parent`; a study goes on without MLflow, with a warning."""
    if parent is None:
        return
    try:
        with connected(settings.uri(project), settings.experiment, project) as (client, experiment_id):
            tags = {"mlflow.parentRunId": parent, "kind": "study"}
            run_id = client.create_run(experiment_id, tags=tags, run_name=f"study {name}").info.run_id
            client.log_artifacts(run_id, str(folder))
            client.set_terminated(run_id)
    except (SettingsError, StoreError) as error:
        logger.warning("The files of the study %s lie in %s, and not in MLflow. %s", name, folder, error)
