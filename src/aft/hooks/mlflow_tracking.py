"""Record runs in MLflow: one parent per `kedro run`, and under it one run per variant and kind of work.

What is recorded is declared in the catalog (see `aft.hooks.mlflow_record`); nodes know nothing of MLflow.
"""

import atexit
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aft.errors import AftError, IncompleteRecord, SettingsError
from aft.hooks.mlflow_connection import is_to_be_made
from aft.hooks.mlflow_database import address_of
from aft.hooks.mlflow_record import RunRecord, child_of, kinds_of, milliseconds, open_record

logger = logging.getLogger(__name__)


class MlflowSettings(BaseModel):
    """`mlflow.yml`; the file explains each key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool
    tracking_uri: str | None
    experiment: str = Field(min_length=1)

    def uri(self, project: Path) -> str:
        """Where runs are recorded: as set, else by the environment, else a file in the project's folder."""
        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or address_of(project / "mlflow.db")


def read_settings(context: KedroContext) -> MlflowSettings:
    """The settings of the recipe; raises `SettingsError` if a key is missing, unknown or of the wrong type."""
    try:
        return MlflowSettings.model_validate(context.config_loader["mlflow"])
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        known = ", ".join(MlflowSettings.model_fields)
        raise SettingsError(f"mlflow.yml is refused ({faults}); its keys are {known}.") from error


class MlflowTrackingHook:
    """Opens the record when a run starts, feeds it, and closes it however the run ends.

    Where MLflow's database is still to be made, which takes seconds, the record of a run with children is opened with
    the first of them, or before that while the run waits for another process: training need not wait for it. A run that
    is killed before that leaves no record.
    """

    missing = 0  # how many records of the last run are not in MLflow

    def __init__(self) -> None:
        self._settings: MlflowSettings | None = None
        self._record: RunRecord | None = None
        self._opening: Callable[[], RunRecord | None] | None = None  # of a record that is not opened yet
        self._saved: list[tuple[str, Any, Node]] = []  # until then
        self._untracked = False

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read the settings, for every command; MLflow itself is left alone until a run starts."""
        self._settings = read_settings(context)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Open the parent run; raises `SettingsError` before anything heavy starts if that is not possible.

        A run of a study, which has begun, goes on without.
        """
        self._close("KILLED")  # what an interrupted run in the same process left behind
        self.missing, self._untracked = 0, False
        self._opening, self._saved = None, []
        if self._settings is None or not self._settings.enabled:
            return
        kinds_of(pipeline, catalog)  # refuses an unknown one
        uri = self._settings.uri(Path(run_params["project_path"]))
        given = run_params, pipeline, catalog, uri, self._settings.experiment
        self._opening = partial(open_record, *given, began=milliseconds())
        has_children = any(child_of(node) is not None for node in pipeline.nodes)
        if not (has_children and is_to_be_made(uri, Path(run_params["project_path"]))):
            self.begin()

    def begin(self) -> None:
        """Open the record, if it still is to be; raises `SettingsError` if that is not possible."""
        if self._opening is None:
            return
        opening, self._opening = self._opening, None
        saved, self._saved = self._saved, []
        self._record = opening()
        if self._record is None:
            self._untracked = True
            return
        # Kedro tells hooks of an `Exception` only: Ctrl-C and SIGTERM must close the record themselves.
        atexit.register(self._close, "KILLED")
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _exit)
        for name, data, node in saved:
            self._record.log(name, data, node)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Open the child run of the node, unless it is open already."""
        if child_of(node) is not None:
            self.begin()
        if self._record is not None:
            self._record.open_child(node)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record what the catalog declares about the dataset."""
        if self._opening is not None:
            self._saved.append((dataset_name, data, node))
        elif self._record is not None:
            self._record.log(dataset_name, data, node)

    @hook_impl(wrapper=True)
    def after_pipeline_run(self) -> Generator[None, Any, Any]:
        """Close the record: all went well. When all other hooks are through, too, warn of a record with gaps.

        Raises `IncompleteRecord`, for the command's exit status.
        """
        self._close("FINISHED")
        result = yield
        if self._untracked:
            raise IncompleteRecord("The results are complete; the run is missing in MLflow.")
        if self.missing:
            raise IncompleteRecord(f"The results are complete; {missing_records(self.missing)}.")
        return result

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close the record: a node failed."""
        try:
            self.begin()
        except AftError as error:  # what the node said comes first
            logger.warning("The run is not recorded. %s", error)
        self._close("FAILED")

    def _close(self, status: str) -> None:
        record, self._record = self._record, None
        if record is None:
            return
        atexit.unregister(self._close)
        if signal.getsignal(signal.SIGTERM) is _exit:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.missing = record.close(status)
        if self.missing and status != "FINISHED":
            logger.warning("The record of this run is not complete: %s.", missing_records(self.missing))


def missing_records(number: int) -> str:
    """How many records MLflow lacks, in words."""
    return "1 record is missing in MLflow" if number == 1 else f"{number} records are missing in MLflow"


def _exit(signum: int, frame: object) -> None:
    """End the process in the orderly way, so that the record is closed."""
    raise SystemExit(128 + signum)
