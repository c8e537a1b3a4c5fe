"""What a run is going to record in MLflow, as data: another process may write it.

A node belongs to the child run that its tag `run.<kind>.<variant>` names. What is recorded of a dataset is declared in
the catalog, as `metadata: {mlflow: {log: metrics | history | artifact | table | data_hash}}`.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from aft.errors import SettingsError
from aft.files import digest
from aft.models.directory import ModelDirectory
from aft.pipelines.content import asked_of, config_of
from aft.pipelines.recorded import recorded_parameters
from aft.pipelines.training import seed_key

_KINDS = ("metrics", "history", "artifact", "table", "data_hash")
PARENT = "AFT_PARENT_RUN"  # environment variable: the id of the run in MLflow that a run belongs to, such as a study's

Child = tuple[str, str]  # kind of work, variant


@dataclass(frozen=True)
class Plan:
    """One run to be recorded: where, since when, and what its datasets are for MLflow."""

    project: Path
    uri: str
    experiment: str
    name: str
    study: str | None  # the id of the run in MLflow that this one is part of
    began: int  # milliseconds
    seed: int
    parameters: Mapping[Child | None, Mapping[str, str]]  # of the parent (None) and of each child
    kinds: Mapping[str, str]  # what to record of which dataset
    outputs: Mapping[Child, frozenset[str]]  # of the nodes of each child, which is finished when all are saved


def plan_of(
    run_params: Mapping[str, Any], pipeline: Pipeline, catalog: CatalogProtocol, uri: str, experiment: str
) -> Plan:
    """The plan of a run that begins now; raises `SettingsError` if the catalog asks for what is not known."""
    settings = catalog.load("parameters") | asked_of(catalog)
    outputs: dict[Child, frozenset[str]] = {}
    for node in pipeline.nodes:
        child = child_of(node)
        if child:
            outputs[child] = outputs.get(child, frozenset()).union(node.outputs)
    return Plan(
        Path(run_params["project_path"]),
        uri,
        experiment,
        _run_name(run_params, settings),
        os.environ.get(PARENT),
        milliseconds(),
        settings["seed"],
        {child: recorded_parameters(settings, child and child[1]) for child in (None, *outputs)},
        _kinds_of(pipeline, catalog),
        outputs,
    )


def child_of(node: Node) -> Child | None:
    """The child run that a node belongs to, None if to the parent."""
    for tag in node.tags:
        if tag.startswith("run."):
            _, kind, variant = tag.split(".", 2)
            return kind, variant
    return None


def content_of(plan: Plan, name: str, data: Any, catalog: CatalogProtocol) -> Any:
    """What is needed of a dataset to record it, see `RunRecord.log`; None if nothing is recorded of it."""
    if isinstance(data, ModelDirectory):
        return data
    match plan.kinds.get(name):
        case None:
            return None
        case "artifact":
            return Path(config_of(catalog, name)["filepath"])
        case "data_hash":
            return digest(data["content_hash"].tolist())
        case "history":  # of several seeds' curves only the present one
            return data[seed_key(plan.seed)] if isinstance(data, Mapping) else data
        case _:
            return data


def milliseconds() -> int:
    """The time as MLflow has it, in milliseconds."""
    return int(time.time() * 1000)


def _run_name(run_params: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    pipelines = ", ".join(sorted(run_params.get("pipeline_names") or ["__default__"]))
    where = settings.get("label") or run_params.get("env") or "base"
    return f"{pipelines}@{where} seed {settings['seed']}"


def _kinds_of(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
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
