"""Studies in MLflow: one run under which the runs of all cells are nested, and one for each study's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aft.hooks.mlflow_record import connected
from aft.hooks.mlflow_tracking import MlflowSettings


@contextmanager
def parent_run(settings: MlflowSettings, project: Path, name: str) -> Iterator[str | None]:
    """The id of a run to nest others under, closed in the end; None if runs are not recorded."""
    if not settings.enabled:
        yield None
        return
    with connected(settings.uri(project), settings.experiment, project) as (client, experiment_id):
        run_id = client.create_run(experiment_id, tags={"kind": "studies"}, run_name=name).info.run_id
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)


def record_study(settings: MlflowSettings, project: Path, parent: str | None, name: str, folder: Path) -> None:
    """The files of a finished study, as a run under `parent`."""
    if parent is None:
        return
    with connected(settings.uri(project), settings.experiment, project) as (client, experiment_id):
        tags = {"mlflow.parentRunId": parent, "kind": "study"}
        run_id = client.create_run(experiment_id, tags=tags, run_name=f"study {name}").info.run_id
        client.log_artifacts(run_id, str(folder))
        client.set_terminated(run_id)
