"""MLflow fails while a run goes on: the run is not stopped, and what is missing in the end is told."""

import os
import shutil
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline

from aft.errors import AftError
from aft.hooks import mlflow_tracking
from aft.hooks.mlflow_connection import connected
from aft.hooks.mlflow_plan import PARENT

ON = {"enabled": True, "tracking_uri": None, "experiment": "aft"}
CATALOG = {"align.{variant}.metrics": {"type": "MemoryDataset", "metadata": {"mlflow": {"log": "metrics"}}}}
VARIANTS = ("aft", "rft", "aft_dc")
RECORDS = 4  # of a variant: its run, its parameters, its metrics, its end


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose database has the experiment and no run."""
    project = tmp_path_factory.mktemp("prepared")
    with connected(f"sqlite:///{project / 'mlflow.db'}", "aft", project):
        pass
    return project


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own; whoever waits for a lock or for the end of trouble waits milliseconds."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("aft.hooks.mlflow_record._PATIENCE_S", 0)

    def hurried(statement: str) -> Any:
        return sqlalchemy.text(statement.replace("busy_timeout = 20000", "busy_timeout = 20"))

    monkeypatch.setattr("mlflow.store.db.utils.sql", SimpleNamespace(text=hurried))
    (tmp_path / "mlartifacts").mkdir()
    shutil.copy(prepared / "mlflow.db", tmp_path)
    return tmp_path


@pytest.fixture
def run(project, caplog, run_with_hook):
    """A run that measures three variants one after the other; `trouble` comes before the second, `end` after it."""

    def told(trouble: Any, end: Any = lambda: None, **metrics: dict[str, float]) -> tuple[list[str], str, str | None]:
        """What was measured, what was logged, and the error, if there was one."""
        measured = []

        def measure(variant: str) -> Any:
            def node(*_: Any) -> dict[str, float]:
                {"rft": trouble, "aft_dc": end}.get(variant, lambda: None)()
                measured.append(variant)
                return metrics.get(variant, {"accuracy": 0.5})

            return node

        names = [f"align.{variant}.metrics" for variant in VARIANTS]
        nodes = [
            Node(measure(variant), before, name, name=variant, tags=f"run.accuracy.{variant}")
            for variant, before, name in zip(VARIANTS, [None, *names], names, strict=False)
        ]
        catalog = DataCatalog.from_config(CATALOG)
        catalog["parameters"] = {"seed": 3}
        error = None
        with caplog.at_level("INFO"):
            try:
                run_with_hook(mlflow_tracking.MlflowTrackingHook(), Pipeline(nodes), catalog, project, ON)
            except AftError as raised:
                error = str(raised)
        return measured, caplog.text, error

    return told


def finished(project: Path) -> set[str]:
    """The names of the runs with the status FINISHED."""
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        return {name for (name,) in database.execute("SELECT name FROM runs WHERE status = 'FINISHED'")}


def one_warning(text: str) -> bool:
    return text.count("WARNING") == 1 and "The run goes on" in text


def all_of(project: Path) -> bool:
    return finished(project) == {"__default__@base seed 3", *(f"accuracy {variant}" for variant in VARIANTS)}


class Lock:
    """Another program's hold on a database."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)

    def hold(self) -> None:
        self._database.execute("BEGIN EXCLUSIVE")

    def free(self) -> None:
        self._database.rollback()


def test_what_was_locked_for_a_while_has_everything_in_the_end(project, run):
    lock = Lock(project / "mlflow.db")
    measured, text, error = run(lock.hold, lock.free)
    assert (measured, error) == (list(VARIANTS), None)
    assert one_warning(text) and "database is locked" in text
    assert all_of(project)


def test_what_was_moved_away_and_back_has_everything_in_the_end(project, run):
    file, away = project / "mlflow.db", project / "away.db"
    measured, text, error = run(lambda: file.rename(away), lambda: away.rename(file))
    assert (measured, error) == (list(VARIANTS), None)
    assert one_warning(text) and "deleted or replaced" in text
    assert all_of(project)


def test_a_lock_to_the_end_leaves_the_results_complete_and_counts_what_is_missing(project, run):
    """All of the second and the third variant but the first one's run and parameters, and the end of the whole."""
    lock = Lock(project / "mlflow.db")
    measured, text, error = run(lock.hold)
    lock.free()
    assert measured == list(VARIANTS) and one_warning(text)
    assert error == f"The results are complete; {2 * RECORDS - 2 + 1} records are missing in MLflow."
    assert finished(project) == {"accuracy aft"}


def test_what_mlflow_could_not_be_told_in_the_end_is_told_by_the_next_start(project, run):
    """The third variant and the whole are FINISHED, and not killed."""
    lock = Lock(project / "mlflow.db")
    run(lambda: None, lock.hold)
    lock.free()
    assert finished(project) == {"accuracy aft", "accuracy rft"}
    with connected(f"sqlite:///{project / 'mlflow.db'}", "aft", project):
        assert all_of(project)
    assert not list((project / "mlartifacts/.running").iterdir())


def test_of_a_deleted_database_everything_is_missing(project, run):
    """All of three variants, and the parameters and the end of the whole."""
    file = project / "mlflow.db"
    measured, text, error = run(file.unlink)
    assert measured == list(VARIANTS) and one_warning(text)
    assert error == f"The results are complete; {3 * RECORDS + 2} records are missing in MLflow."
    assert not file.exists()


def test_a_full_disk_does_not_stop_the_run(project, run, limit_file_size):
    with ExitStack() as full:
        measured, text, error = run(lambda: full.enter_context(limit_file_size(0)), full.close)
    assert (measured, error) == (list(VARIANTS), None)
    assert one_warning(text) and all_of(project)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_database_that_may_not_be_written_any_more_does_not_stop_the_run(project, run):
    file = project / "mlflow.db"
    measured, text, error = run(lambda: file.chmod(0o444), lambda: file.chmod(0o644))
    assert (measured, error) == (list(VARIANTS), None)
    assert one_warning(text) and "readonly" in text and all_of(project)


@pytest.mark.parametrize("method", ["create_run", "log_batch", "set_terminated"])
@pytest.mark.parametrize("error", [OSError("connection reset"), RuntimeError("nobody foresaw this")])
def test_a_client_that_raises_does_not_stop_the_run(method, error, project, run, monkeypatch):
    from mlflow import MlflowClient

    def fail(*_: Any, **__: Any) -> None:
        raise error

    def break_it() -> None:
        monkeypatch.setattr(MlflowClient, method, fail)

    measured, text, said = run(break_it)
    assert measured == list(VARIANTS) and one_warning(text) and str(error) in text
    assert said is not None and said.endswith("records are missing in MLflow.")


@pytest.mark.parametrize("trouble", ["server away", "no file", "database locked"])
def test_a_run_in_the_middle_of_a_study_is_complete_without_mlflow(trouble, project, run, monkeypatch):
    """Only the study's own start needs MLflow."""
    monkeypatch.setenv(PARENT, "0123")
    lock = Lock(project / "mlflow.db")
    if trouble == "server away":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    elif trouble == "no file":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///:memory:")
    else:
        monkeypatch.setattr("aft.hooks.mlflow_database._PATIENCE_S", 0.02)
        lock.hold()
    measured, text, error = run(lambda: None)
    lock.free()
    assert measured == list(VARIANTS) and text.count("WARNING") == 1 and "goes on without a record" in text
    assert error == "The results are complete; the run is missing in MLflow."
    assert finished(project) == set()


def test_what_mlflow_refuses_is_all_that_is_missing(project, run):
    """A metric with an impossible name: nothing waits for it."""
    measured, text, error = run(lambda: None, rft={"which?": 0.5})
    assert measured == list(VARIANTS) and one_warning(text)
    assert error == "The results are complete; 1 record is missing in MLflow."
    assert all_of(project)


def test_a_run_whose_parameters_mlflow_refuses_is_recorded_to_its_end(project, run, monkeypatch):
    """It began in MLflow, and would else stay RUNNING until a later start takes it for killed."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    log_batch = MlflowClient.log_batch

    def refuse(client: Any, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        if params:
            raise MlflowException("a parameter is too long", INVALID_PARAMETER_VALUE)
        log_batch(client, run_id, metrics)

    monkeypatch.setenv(PARENT, "0123")
    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    measured, text, error = run(lambda: None)
    assert measured == list(VARIANTS) and one_warning(text) and "a parameter is too long" in text
    assert error == "The results are complete; 4 records are missing in MLflow."
    assert all_of(project)


def test_trouble_costs_a_run_a_tenth_of_its_time_at_most(monkeypatch):
    """A write that fails takes 20 s: of the writes in the next 200 s none is tried, then all of them."""
    from aft.hooks import mlflow_outbox

    now, tried = [0.0], []
    monkeypatch.setattr(mlflow_outbox.time, "monotonic", lambda: now[0])
    outbox = mlflow_outbox.Outbox("http://host")

    def write(name: str, seconds: float = 0.0) -> None:
        def call() -> None:
            tried.append((name, now[0]))
            now[0] += seconds
            if seconds and len(tried) == 1:
                raise OSError("no answer")

        outbox.write(call)

    write("first", 20)
    for moment in (100.0, 219.0):
        now[0] = moment
        write("other")
    assert tried == [("first", 0.0)] and outbox.missing == 3
    now[0] = 221.0
    write("last")
    assert [name for name, _ in tried[1:]] == ["first", "other", "other", "last"] and outbox.missing == 0
