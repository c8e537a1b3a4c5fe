"""The record that another process writes: the same as one that is written here, and its own kinds of trouble."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline

from aft.directories import announce
from aft.errors import IncompleteRecord, SettingsError, StoreError
from aft.hooks.mlflow_plan import PARENT, Plan
from aft.hooks.mlflow_process import RecordProcess
from aft.hooks.mlflow_tracking import MlflowTrackingHook
from aft.models.directory import ModelDirectory

ON = {"enabled": True, "tracking_uri": None, "experiment": "aft"}
LOGGED = {"questions": "data_hash", "curve": "history", "metrics": "metrics", "compare.comparison": "table"}
NOWHERE = {**ON, "tracking_uri": "sqlite:///:memory:"}
ENDED = "The process that writes to MLflow has ended"


@pytest.fixture
def project(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    return tmp_path


@pytest.fixture
def writer() -> Iterator[RecordProcess]:
    process = RecordProcess()
    yield process
    process._let_go()
    if process._process is not None:
        process._process.wait(timeout=60)


def whole(measure: Callable[[], dict[str, float] | None]) -> tuple[Pipeline, dict[str, Any]]:
    """A pipeline with something of every kind, which calls `measure` when its model was trained; its catalog."""

    def ingest() -> pd.DataFrame:
        return pd.DataFrame({"content_hash": ["a", "b"]})

    def train(_: Any) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
        rows = range(1, 1201)
        curve = pd.DataFrame({"step": rows, "loss": [1 / row for row in rows]})
        return ModelDirectory(Path("/models/aft"), "f1"), {"seed_3": curve, "seed_4": curve}

    def metrics(_: Any) -> dict[str, float]:
        return measure() or {"accuracy": 0.25, "perplexity": float("inf")}

    def compare(_: Any) -> tuple[pd.DataFrame, dict[str, int]]:
        return pd.DataFrame({"variant": ["vft", "aft"], "accuracy": [0.5, 0.25]}), {"rows": 2}

    nodes = [
        Node(ingest, None, "questions", name="ingest"),
        Node(train, "questions", ["model", "curve"], name="train", tags="run.train.aft"),
        Node(metrics, "model", "metrics", name="measure", tags="run.accuracy.aft"),
        Node(compare, "metrics", ["compare.comparison", "report"], name="compare"),
    ]
    logged = {name: {"type": "MemoryDataset", "metadata": {"mlflow": {"log": kind}}} for name, kind in LOGGED.items()}
    return Pipeline(nodes), logged


@pytest.fixture
def run(run_with_hook: Any, writer: RecordProcess, caplog: pytest.LogCaptureFixture) -> Any:
    """The pipeline is run in a project, recorded by the other process unless `opened` says how; the log."""

    def go(project: Path, measure: Any = lambda: None, mlflow: Any = ON, opened: Any = None, **told: Any) -> str:
        pipeline, logged = whole(measure)
        report = {"type": "json.JSONDataset", "filepath": str(project / "report.json")}
        catalog = DataCatalog.from_config({**logged, "report": {**report, "metadata": {"mlflow": {"log": "artifact"}}}})
        catalog["parameters"] = {"seed": 3, "align": {"aft": {"objective": {"term": "aft"}}}}
        hook = MlflowTrackingHook(writer.open_record) if opened is None else MlflowTrackingHook()
        with caplog.at_level("INFO"):
            run_with_hook(hook, pipeline, catalog, project, mlflow, **told)
        return caplog.text

    return go


def content(project: Path) -> dict[str, Any]:
    """What MLflow's database and artifacts hold, without times and ids."""
    query = "SELECT name, {columns} FROM {table} JOIN runs USING (run_uuid) ORDER BY 1, 2, 3, 4"
    tables = {"metrics": "key, value, step, is_nan", "params": "key, value, 0", "tags": "key, value, 0"}
    with closing(sqlite3.connect(project / "mlflow.db")) as file:
        rows = {
            table: file.execute(query.format(columns=columns, table=table)).fetchall()
            for table, columns in tables.items()
        }
        runs = file.execute("SELECT name, status, start_time <= end_time FROM runs ORDER BY 1").fetchall()
    mine = ("mlflow.parentRunId", "aft_process")
    artifacts = sorted(
        (*path.relative_to(project / "mlartifacts").parts[1:], path.read_text(encoding="utf-8"))
        for path in (project / "mlartifacts").rglob("*")
        if path.is_file() and ".running" not in path.parts and path.name != ".lock"
    )
    return {**rows, "tags": [row for row in rows["tags"] if row[1] not in mine], "runs": runs, "artifacts": artifacts}


def statuses(project: Path) -> dict[str, str]:
    with closing(sqlite3.connect(project / "mlflow.db")) as file:
        return dict(file.execute("SELECT name, status FROM runs").fetchall())


def test_it_is_what_would_be_written_here(run, project, tmp_path_factory):
    """1,200 steps of a curve, one finite metric, and two of a table."""
    other = tmp_path_factory.mktemp("here")
    (other / "mlflow.db").write_bytes((project / "mlflow.db").read_bytes())
    run(project)
    run(other, opened="here")
    found = content(project)
    assert found == content(other)
    assert len(found["metrics"]) == 1200 + 1 + 2 and len(found["artifacts"]) == 2
    assert {name: status for name, status, _ in found["runs"]} == {
        "__default__@base seed 3": "FINISHED",
        "train aft": "FINISHED",
        "accuracy aft": "FINISHED",
    }
    assert all(in_order for *_, in_order in found["runs"])


def test_one_process_records_one_run_after_the_other(run, writer, project):
    run(project, pipeline_names=["first"])
    process = writer._process
    run(project, pipeline_names=["second"])
    assert writer._process is process
    assert {"first@base seed 3", "second@base seed 3"} <= set(statuses(project))
    assert set(statuses(project).values()) == {"FINISHED"}


def test_another_process_records_where_folder_or_environment_have_changed(run, writer, project, monkeypatch):
    """It would read a password, or a relative path, as they were before."""
    run(project, pipeline_names=["first"])
    for change in (lambda: monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "new"), lambda: monkeypatch.chdir(project)):
        process = writer._process
        change()
        run(project, pipeline_names=["next"])
        assert writer._process is not process and process.wait(timeout=60) == 0
    assert set(statuses(project).values()) == {"FINISHED"}


def test_where_nothing_can_be_recorded_nothing_that_takes_long_is_made(run, tmp_path):
    """The next run can be recorded."""
    made = []

    def make() -> None:
        announce()
        made.append("model")

    with pytest.raises(SettingsError, match="MLflow at sqlite:///:memory: cannot be used: it names no file"):
        run(tmp_path, make, NOWHERE)
    assert not made
    run(tmp_path, make)
    assert made and set(statuses(tmp_path).values()) == {"FINISHED"}


def test_where_nothing_takes_long_the_end_tells_that_nothing_could_be_recorded(run, tmp_path, monkeypatch):
    """As if the other process needed longer than the run: what it answers is heard when the run has ended."""
    monkeypatch.setattr(RecordProcess, "_order", lambda self, *order: self._pipe.send(order))
    measured = []
    with pytest.raises(SettingsError, match="names no file"):
        run(tmp_path, lambda: measured.append("metrics"), NOWHERE)
    assert measured == ["metrics"]


def test_a_run_of_a_study_goes_on_without_a_record(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(PARENT, "0123")
    with pytest.raises(IncompleteRecord, match="The results are complete; the run is missing in MLflow"):
        run(tmp_path, announce, NOWHERE)
    assert caplog.text.count("WARNING") == 1 and "The run goes on without a record. MLflow at" in caplog.text


def test_a_run_whose_recording_process_was_killed_goes_on_and_says_so(run, writer, project, caplog):
    def kill() -> None:
        announce()
        writer._process.kill()
        writer._process.wait()

    with pytest.raises(IncompleteRecord, match="The results are complete; the process that writes to MLflow ended"):
        run(project, kill)
    assert caplog.text.count("WARNING") == 1 and ENDED in caplog.text
    caplog.clear()
    run(project, pipeline_names=["next"])  # by a new process, which closes what was left open
    assert "WARNING" not in caplog.text
    assert statuses(project)["__default__@base seed 3"] == "KILLED"
    assert statuses(project)["next@base seed 3"] == "FINISHED"


def test_a_process_that_ends_before_it_records_anything_is_a_refusal(run, writer, tmp_path, monkeypatch):
    """As one whose MLflow cannot be imported."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow/__init__.py").write_text("raise RuntimeError('a broken install')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    made = []

    def make() -> None:
        announce()
        made.append("model")

    with pytest.raises(StoreError, match="has ended before it recorded anything; run again"):
        run(tmp_path, make)
    assert not made


def test_a_record_that_an_interrupt_left_open_is_closed(run, writer, project, monkeypatch):
    """The interrupt comes while the run waits for MLflow; its process goes on, as a notebook does."""

    def interrupted(self: RecordProcess) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RecordProcess, "_hear", interrupted)
        run(project, announce, pipeline_names=["interrupted"])
    process = writer._process
    run(project, pipeline_names=["next"])
    assert process.wait(timeout=60) == 0
    found = statuses(project)
    assert found["next@base seed 3"] == "FINISHED" and found["interrupted@base seed 3"] == "KILLED"
    assert "RUNNING" not in found.values()


def test_an_answer_that_comes_early_is_heard(writer, project, monkeypatch):
    """All answers are there before the run looks for them; and those of a process that was killed count as well."""
    plan = Plan(project, f"sqlite:///{project / 'mlflow.db'}", "aft", "early", None, 0, 3, {None: {}}, {}, {})

    def wait() -> None:
        while writer._answers.empty():
            time.sleep(0.01)

    def slow(self: Connection, order: Any) -> None:
        send(self, order)
        wait()

    send = Connection.send_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "send_bytes", slow)
        assert writer.open_record(plan).close("FINISHED", 1) == 0
    writer.open_record(plan)
    wait()
    writer._process.kill()
    writer._process.wait()
    writer.log("x", 1, None, 2)
    with pytest.raises(IncompleteRecord, match="ended before the run"):
        writer.close("FINISHED", 3)


def test_what_the_other_process_warns_of_is_told_here(run, project, caplog):
    """A metric has an impossible name; all else is recorded."""
    with pytest.raises(IncompleteRecord, match="complete; 1 record is missing in MLflow"):
        run(project, lambda: {"which?": 0.5})
    assert caplog.text.count("WARNING") == 1 and "cannot take a record" in caplog.text
    assert set(statuses(project).values()) == {"FINISHED"}


def test_a_failed_run_is_recorded_as_failed(run, project):
    def fail() -> None:
        raise RuntimeError("the node broke")

    with pytest.raises(RuntimeError, match="the node broke"):
        run(project, fail)
    expected = {"__default__@base seed 3": "FAILED", "train aft": "FINISHED", "accuracy aft": "FAILED"}
    assert statuses(project) == expected


SCRIPT = """
    import os, signal, sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from conftest import run_pipeline
    from kedro.io import DataCatalog
    from kedro.pipeline import Node, Pipeline
    from aft.directories import announce
    from aft.hooks.mlflow_process import RecordProcess
    from aft.hooks.mlflow_tracking import MlflowTrackingHook

    def node():
        if {waits}:
            announce()
        {body}
        return 0

    catalog = DataCatalog.from_config({{}})
    catalog["parameters"] = {{"seed": 3}}
    pipeline = Pipeline([Node(node, None, "x", name="node", tags="run.train.aft")])
    mlflow = {{"enabled": True, "tracking_uri": None, "experiment": "aft"}}
    hook = MlflowTrackingHook(RecordProcess().open_record)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
    run_pipeline(hook, pipeline, catalog, Path({project!r}), mlflow, pipeline_names=["script"])
"""


def script(project: Path, body: str, waits: bool) -> subprocess.Popen[str]:
    """A process of its own, in a group of its own, that runs a pipeline of one node."""
    filled = textwrap.dedent(SCRIPT).format(
        tests=str(Path(__file__).parent), project=str(project), body=body, waits=waits
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", filled],
        env=environment,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> None:
    """Wait until no process of the group is there any more; the other one may end a moment later."""
    process.communicate(timeout=60)
    with pytest.raises(ProcessLookupError):
        for _ in range(600):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM to all", "Ctrl-C", "SIGHUP"])
def test_however_a_run_is_killed_its_record_is_closed_at_once(way, waits, project):
    """No later run need do it. Where nothing is waited for, MLflow is just being imported.

    What a terminal or a scheduler sends goes to both processes.
    """
    process = script(project, 'print("started", flush=True); time.sleep(120)', waits)
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    if way == "SIGKILL":
        process.kill()
    else:
        sent = {"SIGTERM to all": signal.SIGTERM, "Ctrl-C": signal.SIGINT, "SIGHUP": signal.SIGHUP}[way]
        os.killpg(process.pid, sent)
    ended(process)
    whole = {"script@base seed 3": "KILLED", "train aft": "KILLED"}
    assert statuses(project) in ([whole] if waits else [{}, whole])
    running = project / "mlartifacts/.running"
    assert not running.exists() or not list(running.iterdir())


def test_a_run_does_not_import_mlflow_and_leaves_no_process(project):
    process = script(project, 'print(sorted({"mlflow", "sqlalchemy", "torch"} & set(sys.modules)))', waits=True)
    assert process.stdout is not None and process.stdout.readline() == "[]\n"
    ended(process)
    assert process.returncode == 0
    assert statuses(project) == {"script@base seed 3": "FINISHED", "train aft": "FINISHED"}
