"""`kedro run` of this project: the same options; a mistake of the user ends in one sentence instead of a traceback."""

import os
import re
from pathlib import Path
from typing import Any

import click
from kedro.config import MissingConfigException
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import KedroCliError
from kedro.utils import find_kedro_project
from kedro.validation.exceptions import ParameterValidationError

from aft.errors import AftError, SettingsError
from aft.studies.cli import studies


@click.group(name="aft")
def cli() -> None:
    """Commands of the project."""


def _run(**options: Any) -> Any:
    if options.get("conf_source"):
        options["conf_source"] = str(Path(options["conf_source"]).resolve())
    os.chdir(find_kedro_project(Path.cwd()) or Path.cwd())  # paths in parameters are relative to the project
    try:
        _check_recipe(options.get("env"), Path(options.get("conf_source") or "conf"))
        return kedro_run.callback(**options)  # type: ignore[misc]
    except Exception as error:
        sentence = _one_sentence(error)
        if sentence is None:
            raise
        raise click.ClickException(sentence) from error


run = click.Command("run", callback=_run, params=kedro_run.params, help=kedro_run.help)
cli.add_command(run)
cli.add_command(studies)


def _check_recipe(env: str | None, conf: Path) -> None:
    """Raise `SettingsError` with the list of recipes if there is none of the name `env`."""
    recipes = sorted(path.name for path in conf.iterdir() if path.is_dir()) if conf.is_dir() else []
    if env is not None and recipes and env not in recipes:
        shown = ", ".join(name for name in recipes if name != "local")
        raise SettingsError(f"There is no recipe '{env}' in {conf}; choose one of {shown}.")


def _one_sentence(error: BaseException) -> str | None:
    """What the user should read, if the error is one that a user can cause: it or what caused it is ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AftError):
            return str(cause)
        if isinstance(cause, ParameterValidationError):
            return _without_pydantic(str(cause))
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, MissingConfigException | KedroCliError | ValueError) and _is_kedros(error):
        return " ".join(str(error).split())
    return None


def _without_pydantic(message: str) -> str:
    """Kedro's message about a parameter that does not fit, in one line and without pydantic's notes to developers."""
    kept = [line.strip() for line in message.splitlines() if not line.strip().startswith("For further information")]
    return re.sub(r"\.? \[type=.*?\](?= |$)", ";", " ".join(kept)).rstrip("; .") + "."


def _is_kedros(error: BaseException) -> bool:
    """Whether Kedro raised the error itself: an unknown pipeline, namespace, node, tag or parameter key."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith("kedro.")
