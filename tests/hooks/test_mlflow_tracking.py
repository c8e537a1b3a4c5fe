import getpass
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline

from aft.errors import SettingsError, StoreError
from aft.files import digest
from aft.hooks.mlflow_tracking import MlflowSettings, MlflowTrackingHook
from aft.models.directory import ModelDirectory

ON = {"enabled": True, "tracking_uri": None, "experiment": "aft"}
PARENT = "align_train, evaluate@smoke seed 3"
STEPS = 600  # with two columns more metrics than a server takes in one call
CATALOG = {
    "questions": {"type": "MemoryDataset", "metadata": {"mlflow": {"log": "data_hash"}}},
    "align.{variant}.training_curve": {"type": "MemoryDataset", "metadata": {"mlflow": {"log": "history"}}},
    "align.{variant}.metrics": {"type": "MemoryDataset", "metadata": {"mlflow": {"log": "metrics"}}},
    "comparison": {"type": "MemoryDataset", "metadata": {"mlflow": {"log": "table"}}},
}
PARAMETERS = {
    "seed": 3,
    "base_model": {"source": "/home/someone/models/llama"},
    "task": {f"key_{i}": i for i in range(150)},
    "api_key": "hunter2",
    "align": {"aft": {"objective": {"term": "aft"}}, "rft": {"objective": {"term": "none"}}},
}


def ingest():
    return pd.DataFrame({"content_hash": ["a", "b"]}), ModelDirectory(Path("/home/someone/base"), "f0")


def train(questions):
    """The curve of seed 3 has a NaN at its first step; that of seed 4 is another run's."""
    curve = pd.DataFrame({"step": range(1, STEPS + 1), "loss": [1 / n for n in range(1, STEPS + 1)], "margin": 0.5})
    curve.loc[0, "margin"] = float("nan")
    other = pd.DataFrame({"step": [9999], "loss": [9.0]})
    return ModelDirectory(Path("/home/someone/aft"), "f1"), {"seed_3": curve, "seed_4": other}


def predict(model):
    return ["4", "5"]


def measure(predictions):
    return {"accuracy": 0.25, "perplexity": float("inf"), "maj_at_1": float("nan"), "assessment_questions": 7}


def compare(metrics):
    return pd.DataFrame({"variant": ["vft", "aft"], "accuracy": [0.5, 0.25], "std_over_seeds": [float("nan")] * 2})


def report(comparison):
    return {"rows": len(comparison)}


def fail(*_):
    raise RuntimeError("the node broke")


def interrupt(*_):
    raise KeyboardInterrupt


def pipeline_of(variant: str = "aft", measure=measure) -> Pipeline:
    """Training and accuracy of one variant, each with the tag that names its child run, and a shared report."""
    model, curve, predictions, metrics = (
        f"align.{variant}.{name}" for name in ("model", "training_curve", "predictions", "metrics")
    )
    accuracy = ["evaluate", f"run.accuracy.{variant}"]
    return Pipeline(
        [
            Node(ingest, None, ["questions", "base_model"], name="ingest"),
            Node(train, "questions", [model, curve], name="train", tags=["align_train", f"run.train.{variant}"]),
            Node(predict, model, predictions, name="predict", tags=accuracy),
            Node(measure, predictions, metrics, name="measure", tags=accuracy),
            Node(compare, metrics, "comparison", name="compare"),
            Node(report, "comparison", "report", name="report"),
        ]
    )


def catalog_in(folder: Path) -> DataCatalog:
    report = {"type": "json.JSONDataset", "filepath": str(folder / "report.json")}
    catalog = DataCatalog.from_config({**CATALOG, "report": {**report, "metadata": {"mlflow": {"log": "artifact"}}}})
    catalog["parameters"] = PARAMETERS
    return catalog


def runs_of(project: Path) -> list:
    """All runs of the experiment, newest first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("aft")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"]))


def family(project: Path, name: str) -> dict[str, str]:
    """The parent of this name and its children: name to status."""
    runs = runs_of(project)
    parent = next(run for run in runs if run.info.run_name == name)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return {run.info.run_name: run.info.status for run in (parent, *children)}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def calls():
    """The numbers of metrics and of parameters in each call to `log_batch`."""
    return []


@pytest.fixture(scope="module")
def recorded(project, calls, run_with_hook):
    """One whole run by a known user on a known host: its runs by name."""
    from mlflow import MlflowClient

    log_batch = MlflowClient.log_batch

    def spy(client, run_id, metrics=(), params=()):
        calls.append((len(metrics), len(params)))
        return log_batch(client, run_id, metrics, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", spy)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(name, "zaphod")
        patch.setattr(getpass, "getuser", lambda: "zaphod")
        patch.setattr(socket, "gethostname", lambda: "heartofgold")
        told = {"env": "smoke", "pipeline_names": ["evaluate", "align_train"]}
        run_with_hook(MlflowTrackingHook(), pipeline_of(), catalog_in(project), project, ON, **told)
    return {run.info.run_name: run for run in runs_of(project)}


def test_there_is_one_parent_and_one_child_per_kind_and_variant(recorded):
    """The nodes without a `run.` tag belong to the parent, which is named by pipelines, recipe and seed."""
    assert set(recorded) == {PARENT, "train aft", "accuracy aft"}
    assert {run.info.status for run in recorded.values()} == {"FINISHED"}
    for kind in ("train", "accuracy"):
        expected = {"mlflow.parentRunId": recorded[PARENT].info.run_id, "kind": kind, "variant": "aft", "seed": "3"}
        assert recorded[f"{kind} aft"].data.tags.items() >= expected.items()


def test_parameters_are_the_allow_list_and_the_objective_of_the_child(recorded):
    common = {"seed": "3", "base_model.source": "llama", **{f"task.key_{i}": str(i) for i in range(150)}}
    assert recorded[PARENT].data.params == common
    assert recorded["train aft"].data.params == common | {"objective.term": "aft"}


def test_tags_tell_the_data_the_models_and_the_version(recorded):
    parent = recorded[PARENT].data.tags
    assert parent["data_hash.questions"] == digest(["a", "b"])
    assert parent["model_fingerprint.base_model"] == "f0"
    assert parent["aft_version"].count(".") == 2
    assert recorded["train aft"].data.tags["model_fingerprint"] == "f1"


def test_only_finite_metrics_are_recorded(recorded):
    assert recorded["accuracy aft"].data.metrics == {"accuracy": 0.25, "assessment_questions": 7.0}


def test_a_curve_is_recorded_step_by_step_for_the_present_seed_only(recorded, project):
    """600 losses; 599 margins, as the first one is NaN; nothing of the step 9999 of seed 4."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    run_id = recorded["train aft"].info.run_id
    losses = {one.step: one.value for one in client.get_metric_history(run_id, "loss")}
    assert losses == {step: 1 / step for step in range(1, STEPS + 1)}
    assert [one.step for one in client.get_metric_history(run_id, "margin")] == list(range(2, STEPS + 1))


def test_no_call_has_more_than_a_server_takes(recorded, calls):
    """600 losses and 599 margins in two calls: 1000 and 199. Servers refuse more than 1000 or 100 params."""
    assert [metrics for metrics, _ in calls if metrics > 100] == [1000, 199]
    assert max(params for _, params in calls) == 100


def test_tables_and_files_are_artifacts_of_the_parent(recorded, project):
    from mlflow import MlflowClient

    run = recorded[PARENT]
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    assert sorted(file.path for file in client.list_artifacts(run.info.run_id)) == ["comparison.csv", "report.json"]
    stored = next((project / "mlartifacts").rglob("comparison.csv"))
    assert stored.read_text("utf-8").splitlines() == ["variant,accuracy,std_over_seeds", "vft,0.5,", "aft,0.25,"]
    assert run.data.metrics == {"vft.accuracy": 0.5, "aft.accuracy": 0.25}


def test_no_secret_user_host_or_folder_is_in_the_database(recorded, project):
    """MLflow itself keeps the folder of the artifacts, as an experiment's location; no tag and no param names it."""
    with sqlite3.connect(project / "mlflow.db") as database:
        everything = "\n".join(database.iterdump())
    for word in ("hunter2", "zaphod", "heartofgold", "/home/someone"):
        assert word not in everything
    told = [text for run in recorded.values() for text in (*run.data.tags.values(), *run.data.params.values())]
    assert not [text for text in told if text.startswith("/") or str(project) in text or "://" in text]


def test_a_failed_run_leaves_finished_what_was_finished(recorded, project, run_with_hook):
    """Training of rft is done and saved when the second node of its evaluation breaks; SIGTERM is left as it was."""
    told = {"pipeline_names": ["failing"]}
    with pytest.raises(RuntimeError, match="the node broke"):
        pipeline = pipeline_of("rft", measure=fail)
        run_with_hook(MlflowTrackingHook(), pipeline, catalog_in(project), project, ON, **told)
    statuses = {"failing@base seed 3": "FAILED", "train rft": "FINISHED", "accuracy rft": "FAILED"}
    assert family(project, "failing@base seed 3") == statuses
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_an_interrupt_left_open_is_closed_when_the_next_run_starts(recorded, project, run_with_hook):
    """Kedro calls no hook for Ctrl-C; in a notebook the process goes on."""
    hook, told = MlflowTrackingHook(), {"pipeline_names": ["interrupted"]}
    with pytest.raises(KeyboardInterrupt):
        run_with_hook(hook, pipeline_of("rft", measure=interrupt), catalog_in(project), project, ON, **told)
    assert family(project, "interrupted@base seed 3")["accuracy rft"] == "RUNNING"
    run_with_hook(hook, Pipeline([]), catalog_in(project), project, ON, pipeline_names=["next"])
    killed = {"interrupted@base seed 3": "KILLED", "train rft": "FINISHED", "accuracy rft": "KILLED"}
    assert family(project, "interrupted@base seed 3") == killed
    assert family(project, "next@base seed 3") == {"next@base seed 3": "FINISHED"}


SCRIPT = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from conftest import run_pipeline
    from kedro.io import DataCatalog
    from kedro.pipeline import Node, Pipeline
    from aft.hooks.mlflow_tracking import MlflowTrackingHook

    def node():
        {body}

    catalog = DataCatalog.from_config({{}})
    catalog["parameters"] = {{"seed": 3}}
    pipeline = Pipeline([Node(node, None, "x", name="node", tags="run.train.aft")])
    mlflow = {{"enabled": {enabled}, "tracking_uri": None, "experiment": "aft"}}
    run_pipeline(MlflowTrackingHook(), pipeline, catalog, Path({project!r}), mlflow, pipeline_names=["script"])
"""


def start(project: Path, body: str, enabled: bool) -> subprocess.Popen:
    """A process of its own that runs a pipeline of one node."""
    filled = textwrap.dedent(SCRIPT).format(
        tests=str(Path(__file__).parent), project=str(project), body=body, enabled=enabled
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen([sys.executable, "-c", filled], env=environment, stdout=subprocess.PIPE, encoding="utf-8")


def test_sigterm_closes_the_record_as_killed(recorded, project):
    process = start(project, 'print("started", flush=True); time.sleep(60)', enabled=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.terminate()
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    assert family(project, "script@base seed 3") == {"script@base seed 3": "KILLED", "train aft": "KILLED"}


def test_what_was_killed_is_closed_by_the_next_run_and_what_still_runs_is_not(tmp_path, run_with_hook):
    """No hook is called for SIGKILL. One more run goes on meanwhile."""
    waits = 'print("started", flush=True); time.sleep(300)'
    processes = [start(tmp_path, waits, enabled=True)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        if len(processes) == 1:
            process.kill()
            process.wait()
            processes.append(start(tmp_path, waits, enabled=True))
    try:
        run_with_hook(MlflowTrackingHook(), Pipeline([]), catalog_in(tmp_path), tmp_path, ON, pipeline_names=["next"])
        statuses = sorted((run.info.run_name, run.info.status) for run in runs_of(tmp_path))
    finally:
        processes[1].kill()
        processes[1].wait()
    scripts = ["script@base seed 3", "train aft"]
    ended = [
        ("next@base seed 3", "FINISHED"),
        *((name, status) for name in scripts for status in ("KILLED", "RUNNING")),
    ]
    assert statuses == ended


def test_mlflow_is_not_imported_when_recording_is_off(tmp_path):
    """Nor is torch by the hooks; and nothing is written."""
    heavy = 'print(sorted({"mlflow", "torch"} & set(sys.modules)))'
    out, _ = start(tmp_path, heavy, enabled=False).communicate(timeout=120)
    assert out == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_refused_before_any_node_runs(tmp_path, monkeypatch, caplog, run_with_hook):
    """Port 9 of this machine is closed; the sentence and the log name the server without its credentials."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = {**ON, "tracking_uri": "http://arthur:dent42@127.0.0.1:9"}
    pipeline = Pipeline([Node(fail, None, "x", name="node")])
    with (
        caplog.at_level("INFO"),
        pytest.raises(SettingsError, match=r"MLflow at http://127.0.0.1:9 cannot be used") as caught,
    ):
        run_with_hook(MlflowTrackingHook(), pipeline, catalog_in(tmp_path), tmp_path, settings)
    assert "enabled: false" in str(caught.value)
    assert "http://127.0.0.1:9" in caplog.text
    assert not [text for text in (str(caught.value), caplog.text) if "dent42" in text or "arthur" in text]


@pytest.fixture
def server():
    """A tracking server that agrees to everything, and the paths and bodies of what it was asked."""
    asked = []

    class Agreeing(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append((self.path, self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()))
            info = {"run_id": "r1", "experiment_id": "1", "status": "RUNNING", "artifact_uri": "mlflow-artifacts:/1"}
            experiment = {"experiment_id": "1", "name": "aft", "lifecycle_stage": "active"}
            answer = {"experiment": experiment, "run": {"info": info, "data": {}}, "run_info": info}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST

        def log_message(self, *_):
            """Nothing: standard error is looked at."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Agreeing) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd.server_port, asked
        httpd.shutdown()


def test_a_servers_password_is_never_printed(server, tmp_path, monkeypatch, capfd, caplog, run_with_hook):
    """MLflow by itself prints the whole address when a run ends."""
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
    port, asked = server
    settings = {**ON, "tracking_uri": f"http://arthur:dent42@127.0.0.1:{port}"}
    pipeline = Pipeline([Node(predict, "params:x", "y", tags="run.accuracy.aft")])
    catalog = catalog_in(tmp_path)
    catalog["params:x"] = 1
    with caplog.at_level("INFO"):
        run_with_hook(MlflowTrackingHook(), pipeline, catalog, tmp_path, settings)
    assert [path for path, body in asked if "FINISHED" in body] == ["/api/2.0/mlflow/runs/update"] * 2
    said = "".join(capfd.readouterr()) + caplog.text
    assert f"http://127.0.0.1:{port}" in said
    assert "dent42" not in said


def test_a_kind_of_record_that_does_not_exist_is_refused(tmp_path, run_with_hook):
    catalog = DataCatalog.from_config({"x": {"type": "MemoryDataset", "metadata": {"mlflow": {"log": "metric"}}}})
    catalog["parameters"] = PARAMETERS
    with pytest.raises(SettingsError, match="log 'metric' of x; choose one of metrics, history"):
        run_with_hook(MlflowTrackingHook(), Pipeline([Node(fail, None, "x")]), catalog, tmp_path, ON)


def test_two_first_runs_do_not_make_the_database_at_once(tmp_path, monkeypatch):
    """While one holds the lock the other waits, and says so when it has waited too long; a server needs no lock."""
    from aft.hooks import mlflow_connection

    monkeypatch.setattr(mlflow_connection, "_PATIENCE_S", 0.05)
    with mlflow_connection._one_at_a_time("sqlite:///mlflow.db", tmp_path):
        with mlflow_connection._one_at_a_time("http://host", tmp_path):
            pass
        with (
            pytest.raises(StoreError, match="Another run"),
            mlflow_connection._one_at_a_time("sqlite:///x.db", tmp_path),
        ):
            pass


def test_the_address_is_the_setting_then_the_environment_then_the_projects_file(monkeypatch):
    default, given = MlflowSettings(**ON), MlflowSettings(**{**ON, "tracking_uri": "http://set"})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default.uri(Path("/project")) == "sqlite:////project/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert default.uri(Path("/project")) == "http://environment"
    assert given.uri(Path("/project")) == "http://set"


def test_the_projects_settings_are_accepted_and_a_misspelt_key_is_not(tmp_path, run_with_hook):
    shipped = yaml.safe_load((Path(__file__).parents[2] / "conf/base/mlflow.yml").read_text(encoding="utf-8"))
    assert MlflowSettings(**shipped) == MlflowSettings(**ON)
    with pytest.raises(
        SettingsError, match=r"experimant: Extra inputs.*its keys are enabled, tracking_uri, experiment"
    ):
        misspelt = {**ON, "experimant": "aft"}
        run_with_hook(MlflowTrackingHook(), Pipeline([]), catalog_in(tmp_path), tmp_path, misspelt)
