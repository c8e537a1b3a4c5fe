"""What one run writes into MLflow: a parent run, and one child run per variant and kind of work.

A node belongs to the child run that its tag `run.<kind>.<variant>` names. What is recorded of a dataset is declared in
the catalog, as `metadata: {mlflow: {log: metrics | history | artifact | table | data_hash}}`.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from aft import __version__
from aft.errors import SettingsError, StoreError
from aft.files import digest
from aft.hooks.mlflow_alive import Alive, be_alive
from aft.hooks.mlflow_connection import connected
from aft.hooks.mlflow_outbox import Outbox
from aft.hooks.provenance import source_tags
from aft.models.directory import ModelDirectory
from aft.pipelines.content import asked_of, config_of
from aft.pipelines.recorded import recorded_parameters
from aft.training.run import kept_warnings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

_KINDS = ("metrics", "history", "artifact", "table", "data_hash")
_COMPARISON = "comparison"  # in its namespace the one table whose figures are also metrics of the parent
_METRICS_A_CALL, _PARAMS_A_CALL = 1000, 100  # MLflow's limits
PARENT = "AFT_PARENT_RUN"  # environment variable: the id of the run in MLflow that a run belongs to, such as a study's
_PATIENCE_S = 60  # how long what is missing is tried again when a run has ended

Child = tuple[str, str]  # kind of work, variant


@dataclass
class RunRecord:
    """One run in MLflow: its parent and its children, by explicit ids. Trouble with MLflow does not stop the run."""

    client: "MlflowClient"
    outbox: Outbox
    alive: Alive
    experiment_id: str
    parent: str
    parameters: Mapping[str, Any]
    catalog: CatalogProtocol
    kinds: Mapping[str, str]  # what to log of which dataset
    unsaved: dict[Child, set[str]]  # the outputs that a child still waits for
    children: dict[Child, str] = field(default_factory=dict)  # those that MLflow has
    opened: set[Child] = field(default_factory=set)
    finished: set[Child] = field(default_factory=set)

    def open_child(self, node: Node) -> None:
        """Open the child run that the node's tag names; children are opened when their first node starts."""
        child = child_of(node)
        if child is None or child in self.opened:
            return
        self.opened.add(child)
        kind, variant = child
        tags = {"mlflow.parentRunId": self.parent, "kind": kind, "variant": variant, "seed": str(self.seed)}
        began = milliseconds()

        def create() -> None:
            run = self.client.create_run(
                self.experiment_id, start_time=began, tags=tags | self.alive.tags, run_name=f"{kind} {variant}"
            )
            self.children[child] = run.info.run_id

        self.outbox.write(create)
        self.log_parameters(child)

    def log_parameters(self, child: Child | None) -> None:
        """Record the settings, of a child with those of its variant."""
        recorded = recorded_parameters(self.parameters, child and child[1])
        self._write(child, partial(_log_params, self.client, recorded))

    def log(self, name: str, data: Any, node: Node) -> None:
        """Record a dataset that was saved, and finish the child run if it was the last one that it waited for."""
        child = child_of(node)
        if isinstance(data, ModelDirectory):
            tags = {"model_fingerprint" if child else f"model_fingerprint.{name}": data.fingerprint}
            warnings = enumerate(kept_warnings(data.path), start=1)
            tags |= {f"training_warning.{number}": sentence for number, sentence in warnings}
            for key, value in tags.items():
                self._write(child, partial(self.client.set_tag, key=key, value=value))
        if name in self.kinds:
            self._log_declared(name, data, child)
        if child:
            self._finish_if_last(child, name)

    def close(self, status: str) -> int:
        """Give the parent and every child that is still open their final status; how many records MLflow lacks."""
        for child in (*(self.opened - self.finished), None):
            self._terminate(child, status)
        self.outbox.finish(_PATIENCE_S if status == "FINISHED" else 0)
        missing = self.outbox.missing
        statuses = {run: "FINISHED" if child in self.finished else status for child, run in self.children.items()}
        self.alive.end(statuses | {self.parent: status} if missing else None)
        return missing

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.parameters["seed"]

    def _write(self, child: Child | None, call: Callable[[str], object]) -> None:
        """Let `call` write into the run of `child`, or into the parent."""
        self.outbox.write(lambda: call(self.parent if child is None else self.children[child]))

    def _log_declared(self, name: str, data: Any, child: Child | None) -> None:
        match self.kinds[name]:
            case "metrics":
                self._log_metrics(child, _metrics(data))
            case "history":
                self._log_metrics(child, _history(data, self.seed))
            case "artifact":
                path, folder = str(_path_of(self.catalog, name)), _folder(name) or None
                self._write(child, partial(self.client.log_artifact, local_path=path, artifact_path=folder))
            case "table":
                self._log_table(name, data)
            case "data_hash":
                value = digest(data["content_hash"].tolist())
                self._write(None, partial(self.client.set_tag, key=f"data_hash.{name}", value=value))

    def _log_metrics(self, child: Child | None, metrics: "Iterable[Metric]") -> None:
        for some in _chunks(list(metrics), _METRICS_A_CALL):
            self._write(child, partial(self.client.log_batch, metrics=some))

    def _log_table(self, name: str, table: "pd.DataFrame") -> None:
        text, what = table.to_csv(index=False), name.rpartition(".")[-1]
        file = f"{_folder(name)}/{what}.csv".removeprefix("/")
        self._write(None, partial(self.client.log_text, text=text, artifact_file=file))
        if what == _COMPARISON:
            figures = table.set_index("variant").select_dtypes("number")
            rows = {f"{row}.{column}": figures.at[row, column] for row in figures.index for column in figures}
            self._log_metrics(None, _metrics(rows))

    def _finish_if_last(self, child: Child, name: str) -> None:
        self.unsaved[child].discard(name)
        if not self.unsaved[child]:
            self.finished.add(child)
            self._terminate(child, "FINISHED")

    def _terminate(self, child: Child | None, status: str) -> None:
        self._write(child, partial(self.client.set_terminated, status=status, end_time=milliseconds()))


def open_record(
    run_params: Mapping[str, Any], pipeline: Pipeline, catalog: CatalogProtocol, uri: str, experiment: str, began: int
) -> RunRecord | None:
    """Open the parent run, which began then; None, with a warning, if MLflow cannot be used in the midst of a study.

    Raises `SettingsError` if the catalog asks for what is not known, and `SettingsError` or `StoreError` if the
    tracking server or file cannot be used where no run of a study has used it before.
    """
    project = Path(run_params["project_path"])
    parameters = catalog.load("parameters") | asked_of(catalog)
    kinds = kinds_of(pipeline, catalog)
    try:
        with connected(uri, experiment, project) as (client, experiment_id):
            alive = be_alive(project, uri, experiment_id)
            tags = {"seed": str(parameters["seed"]), "aft_version": __version__, **source_tags(project), **alive.tags}
            if PARENT in os.environ:
                tags["mlflow.parentRunId"] = os.environ[PARENT]
            name = _run_name(run_params, parameters)
            parent = client.create_run(experiment_id, start_time=began, tags=tags, run_name=name)
    except (SettingsError, StoreError) as error:
        if PARENT not in os.environ:
            raise
        logger.warning("The run goes on without a record. %s", error)
        return None
    record = RunRecord(
        client,
        Outbox(uri),
        alive,
        experiment_id,
        parent.info.run_id,
        parameters,
        catalog,
        kinds,
        _outputs_by_child(pipeline),
    )
    record.log_parameters(None)  # not above: a run that MLflow has is followed to its end, whatever it refuses
    return record


def _run_name(run_params: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    pipelines = ", ".join(sorted(run_params.get("pipeline_names") or ["__default__"]))
    where = parameters.get("label") or run_params.get("env") or "base"
    return f"{pipelines}@{where} seed {parameters['seed']}"


def child_of(node: Node) -> Child | None:
    """The child run that a node belongs to, None if to the parent."""
    for tag in node.tags:
        if tag.startswith("run."):
            _, kind, variant = tag.split(".", 2)
            return kind, variant
    return None


def _outputs_by_child(pipeline: Pipeline) -> dict[Child, set[str]]:
    outputs: dict[Child, set[str]] = {}
    for node in pipeline.nodes:
        child = child_of(node)
        if child:
            outputs.setdefault(child, set()).update(node.outputs)
    return outputs


def kinds_of(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
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


def _folder(name: str) -> str:
    """Where a dataset's file lies among the artifacts: under the name of its comparison, if it is of one."""
    return name.rpartition(".")[0].rpartition(".")[-1]


def _path_of(catalog: CatalogProtocol, name: str) -> Path:
    """The file that a dataset was saved to."""
    return Path(config_of(catalog, name)["filepath"])


def _metrics(values: Mapping[str, Any], step: int = 0) -> "Iterator[Metric]":
    """Metrics of the finite numbers among `values`."""
    from mlflow.entities import Metric

    now = milliseconds()
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


def _log_params(client: "MlflowClient", parameters: Mapping[str, str], run_id: str) -> None:
    from mlflow.entities import Param

    for some in _chunks([Param(key, value) for key, value in parameters.items()], _PARAMS_A_CALL):
        client.log_batch(run_id, params=some)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def milliseconds() -> int:
    """The time as MLflow has it, in milliseconds."""
    return int(time.time() * 1000)
