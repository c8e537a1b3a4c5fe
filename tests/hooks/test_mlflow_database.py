"""MLflow's database is whole or not there, whenever a process ends; where it cannot be is told at once."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aft.errors import SettingsError
from aft.hooks.mlflow_connection import connected
from aft.hooks.mlflow_tracking import MlflowSettings

MAKE = """
import sys
from pathlib import Path
from aft.hooks.mlflow_connection import connected
with connected(sys.argv[1], "aft", Path(sys.argv[2])):
    pass
"""


def record_in(file: Path) -> None:
    """What every run begins with."""
    with connected(f"sqlite:///{file}", "aft", file.parent) as (client, experiment_id):
        client.create_run(experiment_id)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one run."""
    file = tmp_path_factory.mktemp("made") / "mlflow.db"
    record_in(file)
    return file


def statements(file: Path, *sql: str) -> list:
    with closing(sqlite3.connect(file)) as database, database:
        return [row for one in sql for row in database.execute(one).fetchall()]


def test_while_the_tables_are_made_no_step_waits_for_the_disk_and_afterwards_each_does(tmp_path, monkeypatch):
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    waits: list[tuple[str, bool]] = []

    def note(connection: Any, *_: object) -> None:
        ((mode,),) = connection.connection.dbapi_connection.execute("PRAGMA synchronous").fetchall()
        waits.append((Path(connection.engine.url.database).name, mode > 0))

    event.listen(Engine, "before_cursor_execute", note)
    record_in(tmp_path / "mlflow.db")
    event.remove(Engine, "before_cursor_execute", note)
    assert {*waits} == {(".mlflow.db.partial", False), ("mlflow.db", True)}


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_kill_while_the_tables_are_made_leaves_nothing_that_stands_in_the_way(size, tmp_path):
    """Once as soon as anything is written, once in the middle of some hundred steps; a whole one has 900 kB."""
    file = tmp_path / "mlflow.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", MAKE, f"sqlite:///{file}", str(tmp_path)], env=environment)
    places = (file, tmp_path / ".mlflow.db.partial")  # in its place, or beside it
    while process.poll() is None and not any(one.is_file() and one.stat().st_size >= size for one in places):
        time.sleep(0.001)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    record_in(file)
    assert not list(tmp_path.glob(".*.partial*"))


def test_what_was_half_made_in_its_place_is_set_aside(made, tmp_path, caplog):
    """As an earlier release or another program leaves it: some tables, an old revision, nothing recorded."""
    file = tmp_path / "mlflow.db"
    shutil.copy(made, file)
    emptied = ("runs", "tags", "params", "experiments", "logged_models")
    statements(file, *(f"DELETE FROM {name}" for name in emptied), "DROP TABLE metrics", "PRAGMA user_version")
    statements(file, "UPDATE alembic_version SET version_num = '451aebb31d03'")
    with caplog.at_level("WARNING"):
        record_in(file)
    assert "was never finished and is empty" in caplog.text
    assert (tmp_path / "mlflow.db.unfinished").is_file()


def test_an_empty_file_is_no_database_yet(tmp_path):
    file = tmp_path / "mlflow.db"
    file.touch()
    record_in(file)
    assert not (tmp_path / "mlflow.db.unfinished").exists()


def test_what_holds_a_run_is_never_set_aside(made, tmp_path):
    """An old revision with records is for its owner to upgrade."""
    file = tmp_path / "mlflow.db"
    shutil.copy(made, file)
    statements(file, "UPDATE alembic_version SET version_num = '451aebb31d03'")
    before = file.read_bytes()
    with pytest.raises(SettingsError, match="mlflow db upgrade"):
        record_in(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("sqlite:///{folder}", "it is a folder"),
        ("sqlite+pysqlite:///{folder}", "it is a folder"),
        ("sqlite:///{folder}/%74ext.txt", "is no SQLite database"),
        ("sqlite:///file:{folder}/text.txt?uri=true", "names no file"),
        ("sqlite:///{folder}/text.txt", "is no SQLite database"),
        ("sqlite:///{folder}/other.db", "not one of MLflow's"),
        ("sqlite:///{folder}/text.txt/mlflow.db", "text.txt is no folder"),
        ("sqlite:///", "names no file"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:mlflow.db", "names no file"),
        ("file://{folder}/mlruns", "maintenance mode"),
        ("{folder}/mlruns", "maintenance mode"),
        ("ftp://host", "unsupported URI"),
        ("http://[host", "Invalid IPv6 URL"),
    ],
)
def test_where_nothing_can_be_recorded_is_told_at_once(address, told, tmp_path, monkeypatch):
    """MLflow tries a folder for two minutes, asleep in between."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    (tmp_path / "text.txt").write_text("hello", encoding="utf-8")
    statements(tmp_path / "other.db", "CREATE TABLE books (title)")
    place = connected(address.format(folder=tmp_path), "aft", tmp_path)
    with pytest.raises(SettingsError, match=told) as caught, place:
        pass
    assert str(caught.value).count("cannot be used") == 1
    assert slept == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "mlartifacts") == ["other.db", "text.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
@pytest.mark.parametrize("forbidden", ["mlflow.db", "."])
def test_a_database_that_may_not_be_written_is_told_at_once(forbidden, made, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    if forbidden != ".":
        shutil.copy(made, folder)
    (folder / forbidden).chmod(0o555)
    place = connected(f"sqlite:///{folder}/mlflow.db", "aft", tmp_path)
    with pytest.raises(SettingsError, match="cannot be written"), place:
        pass


@pytest.mark.parametrize("address", ["sqlite:///{folder}/a%20b.db", "sqlite+pysqlite:///{folder}/a b.db?timeout=20"])
def test_however_a_database_is_spelt_it_is_whole_and_its_artifacts_lie_in_the_project(address, tmp_path):
    (tmp_path / "mlartifacts").mkdir()
    with connected(address.format(folder=tmp_path), "aft", tmp_path) as (client, experiment_id):
        assert client.get_experiment(experiment_id).artifact_location == (tmp_path / "mlartifacts").as_uri()
        assert (tmp_path / "mlartifacts/.lock").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.db", "mlartifacts"]


@pytest.mark.parametrize("name", ["50%25", "why?"])
def test_a_project_may_lie_in_a_folder_of_any_name(name, tmp_path):
    project = tmp_path / name
    (project / "mlartifacts").mkdir(parents=True)
    settings = MlflowSettings(enabled=True, tracking_uri=None, experiment="aft")
    with connected(settings.uri(project), "aft", project):
        assert (project / "mlflow.db").is_file()


def test_the_folder_of_a_database_is_made(tmp_path):
    (tmp_path / "mlartifacts").mkdir()
    with connected(f"sqlite:///{tmp_path}/new/folder/mlflow.db", "aft", tmp_path):
        assert (tmp_path / "new/folder/mlflow.db").is_file()
