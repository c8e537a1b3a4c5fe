"""MLflow's database as a SQLite file: inspected before MLflow opens it, and created atomically."""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_HEAD = b"SQLite format 3\0"
_FILLED_WHEN_MADE = ("alembic_version", "workspaces")  # tables that have rows before anything is recorded
_PATIENCE_S = 20  # as MLflow's own, for another process that writes


def is_sqlite(uri: str) -> bool:
    """Whether an address is one of a SQLite database; it may name the driver, as sqlite+pysqlite does."""
    return re.match(r"sqlite(\+\w+)?:", uri) is not None


def database_file(uri: str) -> Path | None:
    """The file of a SQLite database that `check_file` accepts; None if `uri` is another kind of address."""
    return Path(_path_of(uri)).absolute() if is_sqlite(uri) else None


def address_of(file: Path) -> str:
    """The address of a SQLite database, in which SQLAlchemy reads `%` as an escape and `?` as the path's end."""
    return "sqlite:///" + file.as_posix().replace("%", "%25").replace("?", "%3F")


def check_file(uri: str) -> None:
    """Raise `OSError` that says what is wrong if `uri` is a SQLite database that cannot be.

    MLflow itself tries a folder for two minutes, and keeps what names no file in memory.
    """
    if not is_sqlite(uri):
        return
    if ":///" not in uri or not _path_of(uri) or _path_of(uri).startswith((":memory:", "file:")):
        raise OSError("it names no file, as sqlite:///mlflow.db or sqlite:////folder/mlflow.db does")
    path = Path(_path_of(uri)).absolute()
    if path.is_dir():
        raise OSError("it is a folder, and must be a file")
    there = next(place for place in (path, *path.parents) if place.exists())
    folder = there.parent if there == path else there
    if not folder.is_dir():
        raise OSError(f"{folder} is no folder")
    if not all(os.access(place, os.W_OK) for place in (there, folder)):
        raise OSError(f"{there} cannot be written")
    if there == path and _head(path) not in (b"", _HEAD):
        raise OSError("the file is no SQLite database")


def make_whole(path: Path) -> None:
    """Make the tables beside `path` and rename the file, unless there is a database that holds anything.

    MLflow makes them in some hundred steps; a process that is killed between two of them leaves what no later run can
    use. Such a database, in which nothing was recorded yet, is set aside. Only one process at a time may call this.
    Raises `OSError` for the database of something else.
    """
    from mlflow import MlflowClient

    tables = _tables(path) if path.exists() else {}
    if tables and "experiments" not in tables:
        raise OSError("the database is not one of MLflow's")
    if any(filled for name, filled in tables.items() if name not in _FILLED_WHEN_MADE):
        return
    staged = path.with_name(f".{path.name}.partial")
    for leftover in (staged, staged.with_name(f"{staged.name}-journal")):
        leftover.unlink(missing_ok=True)
    with _synced_at_the_end(staged):
        MlflowClient(tracking_uri=address_of(staged)).search_experiments(max_results=1)
    if tables:
        aside = path.with_name(f"{path.name}.unfinished")
        path.replace(aside)
        logger.warning("MLflow's database %s was never finished and is empty; it now lies at %s.", path, aside)
    staged.replace(path)


@contextmanager
def _synced_at_the_end(path: Path) -> Iterator[None]:
    """Within, no database waits for the disk, which is half of the time: nobody needs this one before it is whole."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def wait_for_nothing(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", wait_for_nothing)
    try:
        yield
    finally:
        event.remove(Engine, "connect", wait_for_nothing)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _path_of(uri: str) -> str:
    """The path as MLflow's SQLAlchemy reads it."""
    from sqlalchemy.engine import make_url

    return make_url(uri).database or ""


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_HEAD))


def _tables(path: Path) -> dict[str, bool]:
    """The tables of a database, and whether each has a row."""
    with closing(sqlite3.connect(path, timeout=_PATIENCE_S)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: bool(database.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchall()) for name in names}
