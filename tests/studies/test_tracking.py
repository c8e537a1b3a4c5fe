"""Studies in MLflow: trouble with it costs no study."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aft.errors import AftError
from aft.hooks.mlflow_tracking import MlflowSettings
from aft.studies import tracking


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowSettings:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "_PATIENCE_S", 0, raising=False)
    (tmp_path / "study").mkdir()
    (tmp_path / "study/table.csv").write_text("a\n")
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
        (tmp_path / "mlflow.db").write_text("no database")
        for name in ("one", "two"):
            tracking.record_study(settings, tmp_path, parent, name, tmp_path / "study")
            told.append(name)
    assert told == ["one", "two"]
    assert caplog.text.count("and not in MLflow") == 2
