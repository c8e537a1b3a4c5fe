"""What one run writes into MLflow: a parent run, and one child run per variant and kind of work."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from aft import __version__
from aft.hooks.mlflow_alive import Alive, be_alive
from aft.hooks.mlflow_connection import connected
from aft.hooks.mlflow_outbox import Outbox
from aft.hooks.mlflow_plan import Child, Plan
from aft.hooks.provenance import source_tags
from aft.models.directory import ModelDirectory
from aft.training.run import kept_warnings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_COMPARISON = "comparison"  # in its namespace the one table whose figures are also metrics of the parent
_METRICS_A_CALL, _PARAMS_A_CALL = 1000, 100  # MLflow's limits
_PATIENCE_S = 60  # how long what is missing is tried again when a run has ended


@dataclass
class RunRecord:
    """One run in MLflow: its parent and its children, by explicit ids. Trouble with MLflow does not stop the run."""

    client: "MlflowClient"
    outbox: Outbox
    alive: Alive
    experiment_id: str
    parent: str
    plan: Plan
    unsaved: dict[Child, set[str]]  # the outputs that a child still waits for
    children: dict[Child, str] = field(default_factory=dict)  # those that MLflow has
    opened: set[Child] = field(default_factory=set)
    finished: set[Child] = field(default_factory=set)

    def ready(self) -> None:
        """Nothing: it is open. That of another process may not be, see `RecordProcess`."""

    def open_child(self, child: Child, when: int) -> None:
        """Open a child run that begins at `when`, in milliseconds, unless it is open already."""
        if child in self.opened:
            return
        self.opened.add(child)
        kind, variant = child
        tags = {"mlflow.parentRunId": self.parent, "kind": kind, "variant": variant, "seed": str(self.plan.seed)}

        def create() -> None:
            run = self.client.create_run(
                self.experiment_id, start_time=when, tags=tags | self.alive.tags, run_name=f"{kind} {variant}"
            )
            self.children[child] = run.info.run_id

        self.outbox.write(create)
        self.log_parameters(child)

    def log_parameters(self, child: Child | None) -> None:
        """Record the settings, of a child with those of its variant."""
        self._write(child, partial(_log_params, self.client, self.plan.parameters[child]))

    def log(self, name: str, content: Any, child: Child | None, when: int) -> None:
        """Record a dataset saved at `when`, and finish the child run if it was the last one that it waited for.

        `content` is, by the kind of the dataset, numbers by name, a curve, a table, the path of a file or a hash; or a
        model of any dataset; or None.
        """
        if isinstance(content, ModelDirectory):
            self._log_model(name, content, child)
        elif content is not None:
            self._log_declared(name, content, child, when)
        if child:
            self._finish_if_last(child, name, when)

    def close(self, status: str, when: int) -> int:
        """Give the parent and every child that is still open their final status; how many records MLflow lacks."""
        for child in (*(self.opened - self.finished), None):
            self._terminate(child, status, when)
        self.outbox.finish(_PATIENCE_S if status == "FINISHED" else 0)
        missing = self.outbox.missing
        statuses = {run: "FINISHED" if child in self.finished else status for child, run in self.children.items()}
        self.alive.end(statuses | {self.parent: status} if missing else None)
        return missing

    def _write(self, child: Child | None, call: Callable[[str], object]) -> None:
        """Let `call` write into the run of `child`, or into the parent."""
        self.outbox.write(lambda: call(self.parent if child is None else self.children[child]))

    def _log_model(self, name: str, model: ModelDirectory, child: Child | None) -> None:
        tags = {"model_fingerprint" if child else f"model_fingerprint.{name}": model.fingerprint}
        warnings = enumerate(kept_warnings(model.path), start=1)
        tags |= {f"training_warning.{number}": sentence for number, sentence in warnings}
        for key, value in tags.items():
            self._write(child, partial(self.client.set_tag, key=key, value=value))

    def _log_declared(self, name: str, content: Any, child: Child | None, when: int) -> None:
        match self.plan.kinds[name]:
            case "metrics":
                self._log_metrics(child, _metrics(content, when))
            case "history":
                self._log_metrics(child, _history(content, when))
            case "artifact":
                folder = _folder(name) or None
                self._write(child, partial(self.client.log_artifact, local_path=str(content), artifact_path=folder))
            case "table":
                self._log_table(name, content, when)
            case "data_hash":
                self._write(None, partial(self.client.set_tag, key=f"data_hash.{name}", value=content))

    def _log_metrics(self, child: Child | None, metrics: "Iterable[Metric]") -> None:
        for some in _chunks(list(metrics), _METRICS_A_CALL):
            self._write(child, partial(self.client.log_batch, metrics=some))

    def _log_table(self, name: str, table: "pd.DataFrame", when: int) -> None:
        text, what = table.to_csv(index=False), name.rpartition(".")[-1]
        file = f"{_folder(name)}/{what}.csv".removeprefix("/")
        self._write(None, partial(self.client.log_text, text=text, artifact_file=file))
        if what == _COMPARISON:
            figures = table.set_index("variant").select_dtypes("number")
            rows = {f"{row}.{column}": figures.at[row, column] for row in figures.index for column in figures}
            self._log_metrics(None, _metrics(rows, when))

    def _finish_if_last(self, child: Child, name: str, when: int) -> None:
        self.unsaved[child].discard(name)
        if not self.unsaved[child]:
            self.finished.add(child)
            self._terminate(child, "FINISHED", when)

    def _terminate(self, child: Child | None, status: str, when: int) -> None:
        self._write(child, partial(self.client.set_terminated, status=status, end_time=when))


def open_record(plan: Plan) -> RunRecord:
    """Open the parent run.

    Raises `SettingsError` or `StoreError` if the tracking server or file cannot be used.
    """
    with connected(plan.uri, plan.experiment, plan.project) as (client, experiment_id):
        alive = be_alive(plan.project, plan.uri, experiment_id)
        tags = {"seed": str(plan.seed), "aft_version": __version__, **source_tags(plan.project), **alive.tags}
        if plan.study:
            tags["mlflow.parentRunId"] = plan.study
        parent = client.create_run(experiment_id, start_time=plan.began, tags=tags, run_name=plan.name)
    unsaved = {child: set(outputs) for child, outputs in plan.outputs.items()}
    record = RunRecord(client, Outbox(plan.uri), alive, experiment_id, parent.info.run_id, plan, unsaved)
    record.log_parameters(None)  # not above: a run that MLflow has is followed to its end, whatever it refuses
    return record


def _folder(name: str) -> str:
    """Where a dataset's file lies among the artifacts: under the name of its comparison, if it is of one."""
    return name.rpartition(".")[0].rpartition(".")[-1]


def _metrics(values: Mapping[str, Any], when: int, step: int = 0) -> "Iterator[Metric]":
    """Metrics of the finite numbers among `values`."""
    from mlflow.entities import Metric

    for key, value in values.items():
        if math.isfinite(value):
            yield Metric(key, float(value), when, step)


def _history(curve: "pd.DataFrame", when: int) -> "Iterator[Metric]":
    """Metrics of every row of a curve, at the row's `step`."""
    for row in curve.select_dtypes("number").to_dict("records"):
        step = int(row.pop("step"))
        yield from _metrics({str(name): value for name, value in row.items()}, when, step)


def _log_params(client: "MlflowClient", parameters: Mapping[str, str], run_id: str) -> None:
    from mlflow.entities import Param

    for some in _chunks([Param(key, value) for key, value in parameters.items()], _PARAMS_A_CALL):
        client.log_batch(run_id, params=some)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))
