"""Studies in MLflow: trouble with it costs no study."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aft.errors import AftError
from aft.hooks.mlflow_connection import connected
from aft.hooks.mlflow_tracking import MlflowSettings
from aft.studies import tracking


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowSettings:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "_PATIENCE_S", 0, raising=False)
    (tmp_path / "study").mkdir()
    (tmp_path / "study/table.csv").write_text("a\n", encoding="utf-8")
    return MlflowSettings(enabled=True, tracking_uri=None, experiment="aft")


def statuses(project: Path) -> dict[str, str]:
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        return dict(database.execute("SELECT name, status FROM runs"))


def test_studies_are_recorded_and_those_that_failed_say_so(settings, tmp_path):
    with tracking.parent_run(settings, tmp_path, "good") as parent:
        tracking.record_study(settings, tmp_path, parent, "one", tmp_path / "study")
    with pytest.raises(RuntimeError), tracking.parent_run(settings, tmp_path, "bad"):
        raise RuntimeError
    assert statuses(tmp_path) == {"good": "FINISHED", "study one": "FINISHED", "bad": "FAILED"}
    assert list((tmp_path / "mlartifacts").rglob("table.csv"))


def test_a_study_is_told_to_its_end_without_mlflow(settings, tmp_path, caplog):
    """Its database is spoiled meanwhile: both studies are told, with a warning each; the command fails in the end."""
    told = []
    with (
        pytest.raises(AftError, match="studies are complete"),
        tracking.parent_run(settings, tmp_path, "all") as parent,
    ):
        (tmp_path / "mlflow.db").unlink()
        (tmp_path / "mlflow.db").write_text("no database", encoding="utf-8")
        for name in ("one", "two"):
            tracking.record_study(settings, tmp_path, parent, name, tmp_path / "study")
            told.append(name)
    assert told == ["one", "two"]
    assert caplog.text.count("and not in MLflow") == 2


@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("nobody foresaw this")])
@pytest.mark.parametrize("broken", [["log_artifacts"], ["log_artifacts", "set_terminated"]])
def test_a_study_whose_files_mlflow_cannot_take_has_failed_there_and_the_command_says_so(
    broken, error, settings, tmp_path, caplog, monkeypatch
):
    """Where even that cannot be told, the next start tells it."""
    from mlflow import MlflowClient

    def fail(*_: Any, **__: Any) -> None:
        raise error

    with (
        monkeypatch.context() as patch,
        pytest.raises(AftError, match=f"complete; of {len(broken)} of their runs MLflow lacks"),
        tracking.parent_run(settings, tmp_path, "all") as parent,
    ):
        for method in broken:
            patch.setattr(MlflowClient, method, fail)
        tracking.record_study(settings, tmp_path, parent, "one", tmp_path / "study")
    assert caplog.text.count("and not in MLflow") == 1 and str(error) in caplog.text
    with connected(settings.uri(tmp_path), "aft", tmp_path):
        assert statuses(tmp_path) == {"all": "FINISHED", "study one": "FAILED"}


def test_cells_whose_record_has_gaps_make_the_command_fail_when_all_is_told(settings, tmp_path):
    with (
        pytest.raises(AftError, match="complete; of 2 of their runs MLflow lacks"),
        tracking.parent_run(settings, tmp_path, "all") as parent,
    ):
        parent.incomplete += 2
    assert statuses(tmp_path) == {"all": "FINISHED"}
