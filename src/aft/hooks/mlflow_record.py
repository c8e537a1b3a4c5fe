"""What one run writes into MLflow: a parent run, and one child run per variant and kind of work.

A node belongs to the child run that its tag `run.<kind>.<variant>` names. What is recorded of a dataset is declared in
the catalog, as `metadata: {mlflow: {log: metrics | history | artifact | table | data_hash}}`.
"""

import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from aft import __version__
from aft.errors import SettingsError, StoreError
from aft.files import digest
from aft.hooks.provenance import shown_uri, source_tags
from aft.models.directory import ModelDirectory
from aft.pipelines.recorded import recorded_parameters, without_credentials
from aft.training.run import kept_warnings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

_KINDS = ("metrics", "history", "artifact", "table", "data_hash")
_COMPARISON = "comparison"  # the one table whose figures are also metrics of the parent
_METRICS_A_CALL, _PARAMS_A_CALL = 1000, 100  # MLflow's limits
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it does not honour DO_NOT_TRACK=1
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # it tells of every step of making its database
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints a server's address with user and password
}
PARENT = "AFT_PARENT_RUN"  # environment variable: the id of the run in MLflow that a run belongs to, such as a study's
_PATIENCE_S = 60  # how long a run waits while another one prepares the database

Child = tuple[str, str]  # kind of work, variant


@dataclass
class RunRecord:
    """One run in MLflow: its parent and its children, by explicit ids."""

    client: "MlflowClient"
    uri: str
    experiment_id: str
    parent: str
    parameters: Mapping[str, Any]
    catalog: CatalogProtocol
    kinds: Mapping[str, str]  # what to log of which dataset
    unsaved: dict[Child, set[str]]  # the outputs that a child still waits for
    children: dict[Child, str] = field(default_factory=dict)
    finished: set[Child] = field(default_factory=set)

    def open_child(self, node: Node) -> None:
        """Open the child run that the node's tag names; children are opened when their first node starts."""
        child = _child_of(node)
        if child is None or child in self.children:
            return
        kind, variant = child
        tags = {"mlflow.parentRunId": self.parent, "kind": kind, "variant": variant, "seed": str(self.seed)}
        with _explained(self.uri):
            run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{kind} {variant}")
            self.children[child] = run.info.run_id
            _log_params(self.client, run.info.run_id, recorded_parameters(self.parameters, variant))

    def log(self, name: str, data: Any, node: Node) -> None:
        """Record a dataset that was saved, and finish the child run if it was the last one that it waited for."""
        child = _child_of(node)
        run_id = self.children[child] if child else self.parent
        with _explained(self.uri):
            if isinstance(data, ModelDirectory):
                key = "model_fingerprint" if child else f"model_fingerprint.{name}"
                self.client.set_tag(run_id, key, data.fingerprint)
                for number, sentence in enumerate(kept_warnings(data.path), start=1):
                    self.client.set_tag(run_id, f"training_warning.{number}", sentence)
            if name in self.kinds:
                self._log_declared(name, data, run_id)
            if child:
                self._finish_if_last(child, name)

    def close(self, status: str) -> None:
        """Give the parent and every child that is still open their final status; never raises for MLflow's sake."""
        still_open = [run_id for child, run_id in self.children.items() if child not in self.finished]
        try:
            with _explained(self.uri), _little_patience():
                for run_id in (*still_open, self.parent):
                    self.client.set_terminated(run_id, status)
        except SettingsError as error:
            logger.warning("The record of this run could not be closed. %s", error)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.parameters["seed"]

    def _log_declared(self, name: str, data: Any, run_id: str) -> None:
        match self.kinds[name]:
            case "metrics":
                self._log_metrics(run_id, _metrics(data))
            case "history":
                self._log_metrics(run_id, _history(data, self.seed))
            case "artifact":
                self.client.log_artifact(run_id, str(_path_of(self.catalog, name)))
            case "table":
                self._log_table(name, data)
            case "data_hash":
                self.client.set_tag(self.parent, f"data_hash.{name}", digest(data["content_hash"].tolist()))

    def _log_metrics(self, run_id: str, metrics: "Iterable[Metric]") -> None:
        for some in _chunks(list(metrics), _METRICS_A_CALL):
            self.client.log_batch(run_id, metrics=some)

    def _log_table(self, name: str, table: "pd.DataFrame") -> None:
        self.client.log_text(self.parent, table.to_csv(index=False), f"{name}.csv")
        if name == _COMPARISON:
            figures = table.set_index("variant").select_dtypes("number")
            rows = {f"{row}.{column}": figures.at[row, column] for row in figures.index for column in figures}
            self._log_metrics(self.parent, _metrics(rows))

    def _finish_if_last(self, child: Child, name: str) -> None:
        self.unsaved[child].discard(name)
        if not self.unsaved[child]:
            self.client.set_terminated(self.children[child], "FINISHED")
            self.finished.add(child)


def open_record(
    run_params: Mapping[str, Any], pipeline: Pipeline, catalog: CatalogProtocol, uri: str, experiment: str
) -> RunRecord:
    """Open the parent run; raises `SettingsError` if the tracking server or file cannot be used."""
    project = Path(run_params["project_path"])
    parameters = catalog.load("parameters")
    kinds = _kinds(pipeline, catalog)
    with connected(uri, experiment, project) as (client, experiment_id):
        tags = {"seed": str(parameters["seed"]), "aft_version": __version__, **source_tags(project)}
        if PARENT in os.environ:
            tags["mlflow.parentRunId"] = os.environ[PARENT]
        parent = client.create_run(experiment_id, tags=tags, run_name=_run_name(run_params, parameters))
        _log_params(client, parent.info.run_id, recorded_parameters(parameters))
    return RunRecord(
        client,
        uri,
        experiment_id,
        parent.info.run_id,
        parameters,
        catalog,
        kinds,
        _outputs_by_child(pipeline),
    )


@contextmanager
def connected(uri: str, experiment: str, project: Path) -> "Iterator[tuple[MlflowClient, str]]":
    """A client and the id of the experiment, which is made if it is not there.

    Raises `SettingsError` if the tracking server or file cannot be used.
    """
    logger.info(
        "Recording to the experiment '%s' of MLflow at %s; the first time takes some seconds.",
        experiment,
        shown_uri(uri, project),
    )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    with _explained(uri), _little_patience(), _one_at_a_time(uri, project):
        client = MlflowClient(tracking_uri=uri)
        artifacts = (project / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
        yield client, _experiment(client, experiment, artifacts)


def _run_name(run_params: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    pipelines = ", ".join(sorted(run_params.get("pipeline_names") or ["__default__"]))
    where = parameters.get("label") or run_params.get("env") or "base"
    return f"{pipelines}@{where} seed {parameters['seed']}"


def _child_of(node: Node) -> Child | None:
    for tag in node.tags:
        if tag.startswith("run."):
            _, kind, variant = tag.split(".", 2)
            return kind, variant
    return None


def _outputs_by_child(pipeline: Pipeline) -> dict[Child, set[str]]:
    outputs: dict[Child, set[str]] = {}
    for node in pipeline.nodes:
        child = _child_of(node)
        if child:
            outputs.setdefault(child, set()).update(node.outputs)
    return outputs


def _kinds(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
    """What the catalog declares for each dataset that is written; raises `SettingsError` for an unknown kind."""
    kinds = {}
    for name in sorted({output for node in pipeline.nodes for output in node.outputs}):
        metadata = getattr(catalog.get(name), "metadata", None) or {}
        if "mlflow" in metadata:
            kinds[name] = metadata["mlflow"].get("log")
            if kinds[name] not in _KINDS:
                raise SettingsError(
                    f"The catalog asks MLflow to log {kinds[name]!r} of {name}; choose one of {', '.join(_KINDS)}."
                )
    return kinds


def _path_of(catalog: CatalogProtocol, name: str) -> Path:
    """The file that a dataset was saved to."""
    return Path(catalog[name]._filepath)  # type: ignore[attr-defined]


def _metrics(values: Mapping[str, Any], step: int = 0) -> "Iterator[Metric]":
    """Metrics of the finite numbers among `values`."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for key, value in values.items():
        if math.isfinite(value):
            yield Metric(key, float(value), now, step)


def _history(data: "Mapping[str, pd.DataFrame] | pd.DataFrame", seed: int) -> "Iterator[Metric]":
    """Metrics of every row of a curve, at the row's `step`; of several seeds' curves only the present one."""
    from aft.pipelines.training import seed_key

    curve = data[seed_key(seed)] if isinstance(data, Mapping) else data
    for row in curve.select_dtypes("number").to_dict("records"):
        step = int(row.pop("step"))
        yield from _metrics({str(name): value for name, value in row.items()}, step)


def _log_params(client: "MlflowClient", run_id: str, parameters: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    for some in _chunks([Param(key, value) for key, value in parameters.items()], _PARAMS_A_CALL):
        client.log_batch(run_id, params=some)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except MlflowException:  # another machine's first run may have been quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found.experiment_id


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn MLflow's failures into one sentence that names the place, without its credentials, and the way out."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        reason = shorten(without_credentials(str(error).replace(uri, without_credentials(uri))), 200)
        raise SettingsError(
            f"MLflow at {without_credentials(uri)} cannot be used: {reason.rstrip('.')}; correct tracking_uri or "
            "experiment in mlflow.yml, or set enabled: false there (what was computed is kept)."
        ) from error


@contextmanager
def _little_patience() -> Iterator[None]:
    """Give a server that does not answer seconds instead of MLflow's minutes, unless the environment says otherwise."""
    brief = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    ours = {name: value for name, value in brief.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _one_at_a_time(uri: str, project: Path) -> Iterator[None]:
    """Wait until no other run makes the tables of the same file: MLflow fails if two do it at once."""
    lock = nullcontext()
    if uri.startswith("sqlite:"):
        (project / "mlartifacts").mkdir(exist_ok=True)
        lock = FileLock(project / "mlartifacts" / ".lock", timeout=_PATIENCE_S)
    try:
        with lock:
            yield
    except Timeout as error:
        raise StoreError(
            f"Another run has been preparing MLflow's database for {_PATIENCE_S} seconds; "
            "wait until it has ended, or stop it, and run again."
        ) from error
