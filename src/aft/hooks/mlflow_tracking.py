"""Record runs in MLflow: one parent per `kedro run`, and under it one run per variant and kind of work.

What is recorded is declared in the catalog (see `aft.hooks.mlflow_plan`); nodes know nothing of MLflow.
"""

import atexit
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aft.directories import announced
from aft.errors import AftError, IncompleteRecord, SettingsError, StoreError
from aft.hooks.mlflow_database import address_of
from aft.hooks.mlflow_plan import Child, Plan, child_of, content_of, milliseconds, plan_of
from aft.hooks.mlflow_record import open_record
from aft.hooks.provenance import shown_uri

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


class Record(Protocol):
    """One run in MLflow as the hook sees it; times are in milliseconds.

    `RunRecord` is one. `RecordProcess` opens it meanwhile: there any method raises `SettingsError` or `StoreError`
    when that has turned out to be impossible.
    """

    def ready(self) -> None:
        """Wait until it is open."""

    def open_child(self, child: Child, when: int) -> None:
        """Open a child run, unless it is open already."""

    def log(self, name: str, content: Any, child: Child | None, when: int) -> None:
        """Record a dataset that was saved."""

    def close(self, status: str, when: int) -> int:
        """Close it; how many records MLflow lacks. Raises `IncompleteRecord`, too, if that is not known."""
        ...


class MlflowTrackingHook:
    """Opens the record when a run starts, feeds it, and closes it however the run ends.

    A run that cannot be recorded is refused before it makes anything that takes long. One of a study, which has begun,
    goes on without.
    """

    gaps = ""  # what MLflow lacks of the last run, in words

    def __init__(self, open_record: Callable[[Plan], Record] = open_record) -> None:
        self._open = open_record
        self._settings: MlflowSettings | None = None
        self._record: Record | None = None
        self._stack = ExitStack()  # what ends with the record
        self._refusal: AftError | None = None  # why the last run could not be recorded

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read the settings, for every command; MLflow itself is left alone until a run starts."""
        self._settings = read_settings(context)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Open the parent run; raises `SettingsError` if the catalog asks for what is unknown, or as `Record` does."""
        self._close("KILLED")  # what an interrupted run in the same process left behind
        self.gaps, self._refusal = "", None
        if self._settings is None or not self._settings.enabled:
            return
        project, experiment = Path(run_params["project_path"]), self._settings.experiment
        uri = self._settings.uri(project)
        self._plan, self._catalog = plan_of(run_params, pipeline, catalog, uri, experiment), catalog
        shown = shown_uri(uri, project)
        logger.info(
            "Recording to the experiment '%s' of MLflow at %s; the first time takes some seconds.", experiment, shown
        )
        with self._refusals():
            self._record = self._open(self._plan)
        if self._record is None:
            return
        # Kedro tells hooks of an `Exception` only: Ctrl-C and SIGTERM must close the record themselves.
        atexit.register(self._close, "KILLED")
        self._stack.callback(atexit.unregister, self._close)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _exit)
            self._stack.callback(_let_end)
        self._stack.enter_context(announced(self._ready))

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Open the child run of the node, unless it is open already."""
        child = child_of(node)
        if self._record is not None and child is not None:
            with self._refusals():
                self._record.open_child(child, milliseconds())

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record what the catalog declares about the dataset."""
        if self._record is not None:
            content = content_of(self._plan, dataset_name, data, self._catalog)
            with self._refusals():
                self._record.log(dataset_name, content, child_of(node), milliseconds())

    @hook_impl(wrapper=True)
    def after_pipeline_run(self) -> Generator[None, Any, Any]:
        """Close the record: all went well. When all other hooks are through, too, tell of a record with gaps.

        Raises `IncompleteRecord`, for the command's exit status, or why there is none.
        """
        self._close("FINISHED")
        result = yield
        if self._refusal is not None:
            raise self._refusal
        if self.gaps:
            raise IncompleteRecord(f"The results are complete; {self.gaps}.")
        return result

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self) -> None:
        """Close the record, while the run still has what it has locked: a node failed."""
        self._close("FAILED")

    def _ready(self) -> None:
        """Something that takes long is about to be made: wait until the record is open."""
        if self._record is not None:
            with self._refusals():
                self._record.ready()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Where MLflow cannot be used: a run of a study goes on without a record, another one ends."""
        try:
            yield
        except (SettingsError, StoreError) as error:
            self._let_go()
            self.gaps = "the run is missing in MLflow"
            if self._plan.study is None:
                self._refusal = error
                raise
            logger.warning("The run goes on without a record. %s", error)

    def _close(self, status: str) -> None:
        record = self._record
        if record is None:
            return
        try:
            missing = record.close(status, milliseconds())
            self.gaps = missing_records(missing) if missing else ""
        except IncompleteRecord as error:
            self.gaps = str(error)
        except (SettingsError, StoreError) as error:
            self.gaps = "the run is missing in MLflow"
            if self._plan.study or status != "FINISHED":  # what went wrong comes first
                logger.warning("The run is not recorded. %s", error)
            else:
                self._refusal = error
        else:
            if self.gaps and status != "FINISHED":
                logger.warning("The record of this run is not complete: %s.", self.gaps)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._record = None
        self._stack.close()


def missing_records(number: int) -> str:
    """How many records MLflow lacks, in words."""
    return "1 record is missing in MLflow" if number == 1 else f"{number} records are missing in MLflow"


def _exit(signum: int, frame: object) -> None:
    """End the process in the orderly way, so that the record is closed."""
    raise SystemExit(128 + signum)


def _let_end() -> None:
    """SIGTERM is as it was, unless somebody else has set it meanwhile."""
    if signal.getsignal(signal.SIGTERM) is _exit:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
