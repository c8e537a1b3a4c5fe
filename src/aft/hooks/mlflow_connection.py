"""The connection to MLflow: client and experiment, or one sentence at once if it cannot be used."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from aft.errors import AftError, SettingsError, StoreError
from aft.hooks.mlflow_alive import close_killed
from aft.hooks.mlflow_database import check_file, database_file, is_sqlite, make_whole
from aft.pipelines.recorded import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it does not honour DO_NOT_TRACK=1
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # it tells of every step of making its database, and of errors that we tell
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints a server's address with user and password
}
# A connection that is kept goes on writing into a file that was deleted.
_ENVIRONMENT_OF_A_FILE = {"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool"}
_ARTIFACTS = "mlartifacts"  # the folder in the project for what is recorded beside a database in a file
_PATIENCE_S = 60  # how long a run waits while another one prepares the database


@contextmanager
def connected(uri: str, experiment: str, project: Path) -> "Iterator[tuple[MlflowClient, str]]":
    """A client and the id of the experiment, which is made if it is not there; runs that were killed are closed.

    Raises `SettingsError` if the tracking server or file cannot be used.
    """
    with explained(uri), little_patience():
        check_file(uri)
        file = database_file(uri)
        for name, value in (_ENVIRONMENT | (_ENVIRONMENT_OF_A_FILE if file else {})).items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        with _one_at_a_time(uri, project):
            if file:
                make_whole(file)
            client = MlflowClient(tracking_uri=uri)
            artifacts = (project / _ARTIFACTS).as_uri() if file else None
            experiment_id = _experiment(client, experiment, artifacts)
            close_killed(client, project, uri, experiment_id)
            yield client, experiment_id


def reason(error: Exception, uri: str) -> str:
    """What an error says, short, on one line, and without credentials, SQL statements and addresses to read more."""
    text = re.split(r"\s*(?:\[SQL: |\(Background on this error)", str(error).replace(uri, without_credentials(uri)))[0]
    return shorten(without_credentials(text), 200).rstrip(".")


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn MLflow's failures into one sentence that names the place, without its credentials, and the way out."""
    try:
        yield
    except AftError:
        raise
    except Exception as error:
        if not _is_mlflows(error):
            raise
        raise SettingsError(
            f"MLflow at {without_credentials(uri)} cannot be used: {reason(error, uri)}; correct tracking_uri or "
            "experiment in mlflow.yml, or set enabled: false there (what was computed is kept)."
        ) from error


def _is_mlflows(error: Exception) -> bool:
    """Whether MLflow, what it stands on or the operating system raised it, told without importing MLflow."""
    rooms = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    theirs = not rooms.isdisjoint(("mlflow", "sqlalchemy", "alembic", "sqlite3"))
    return theirs or isinstance(error, OSError | ImportError | ValueError)


@contextmanager
def little_patience() -> Iterator[None]:
    """Give a server that does not answer seconds instead of MLflow's minutes, unless the environment says otherwise."""
    brief = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    ours = {name: value for name, value in brief.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _one_at_a_time(uri: str, project: Path) -> Iterator[None]:
    """Wait until no other run makes the tables of the same file: MLflow fails if two do it at once."""
    lock = nullcontext()
    if is_sqlite(uri):
        (project / _ARTIFACTS).mkdir(exist_ok=True)
        lock = FileLock(project / _ARTIFACTS / ".lock", timeout=_PATIENCE_S)
    try:
        with lock:
            yield
    except Timeout as error:
        raise StoreError(
            f"Another run has been preparing MLflow's database for {_PATIENCE_S} seconds; "
            "wait until it has ended, or stop it, and run again."
        ) from error


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except MlflowException:  # another machine's first run may have been quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found.experiment_id
