"""A variant and a comparison of a user's own, written into `conf/local` and nowhere else."""

import shutil
from typing import Any

import pandas as pd
import pytest

pytestmark = pytest.mark.e2e

OWN = """
align:
  aft_wide:
    objective: {term: aft, constraint: boundary, beta: 0.4}
    note: as aft_bc, with a wide margin
    extension: true
comparisons:
  margins: [aft_bc, aft_wide]
"""


@pytest.fixture
def own(finished: Any, fresh: Any) -> Any:
    """A finished smoke run, and a variant and a comparison more in the settings of this machine."""
    shutil.copytree(finished.data, fresh.data)
    (fresh.folder / "conf/local/parameters_own.yml").write_text(OWN, encoding="utf-8")
    return fresh


def test_it_is_trained_compared_told_and_tracked_like_any_other(own: Any) -> None:
    """What the comparison shares with the one before is made no second time, VFT above all."""
    reporting = own.data / "08_reporting/smoke"
    before = {path: path.stat().st_mtime_ns for path in (reporting / "binary").iterdir()}
    done = own.run("--pipelines=margins", "--params=parallel=1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("Reusing") == 5  # base, vft and aft_bc, and the scores of these two
    assert {path: path.stat().st_mtime_ns for path in before} == before
    table = pd.read_csv(reporting / "margins/comparison.csv")
    assert table["variant"].tolist() == ["vft", "aft_bc", "aft_wide"]
    page = (reporting / "margins/report.html").read_text(encoding="utf-8")
    assert "aft_wide*" in page and "as aft_bc, with a wide margin" in page
    assert "margins/report.html" in done.stderr and "margins/comparison.csv" in done.stderr
    check_record(own)


def check_record(project: Any) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(project.tracking_uri)
    experiment = client.get_experiment_by_name("aft")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    children = {run.info.run_name: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert children["train aft_wide"].data.params["objective.beta"] == "0.4"
    assert "accuracy" in children["accuracy aft_wide"].data.metrics
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert parent.info.run_name == "margins@smoke seed 0"
    told = {file.path for file in client.list_artifacts(parent.info.run_id, "margins")}
    assert {f"margins/{name}" for name in ("comparison.csv", "report.html", "answers.html", "accuracy.png")} <= told


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("compare: margin", "compare is 'margin', which is no comparison: did you mean 'margins'?"),
        ("comparisons: {mine: [aft_dcc]}", "The comparison 'mine' names 'aft_dcc': did you mean 'aft_dc'?"),
    ],
)
def test_a_name_that_is_not_there_is_answered_in_a_sentence(own: Any, changed: str, told: str) -> None:
    (own.folder / "conf/local/parameters_wrong.yml").write_text(changed, encoding="utf-8")
    done = own.run()
    assert done.returncode == 1
    assert told in " ".join(done.stderr.splitlines()[-1:]) and "Traceback" not in done.stderr
