"""What the project's commands share: the folder that they work in, and a user's mistake as one sentence."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click
from kedro.framework.project import configure_project
from kedro.utils import find_kedro_project

from aft.errors import SettingsError
from aft.user_errors import one_sentence

_CONF = "conf"


@contextmanager
def in_project(env: str | None, conf_source: str | None) -> Iterator[tuple[Path, str | None]]:
    """Go to the project's folder, to which paths in parameters are relative; gives it and the folder `conf_source`.

    It is the present one if it holds a `conf/`, else the one that Kedro finds above it. Raises `click.ClickException`
    with one sentence for whatever a user can cause, such as a recipe that there is not.
    """
    here, where = Path.cwd(), None if conf_source is None else str(Path(conf_source).resolve())
    project = here if (here / _CONF).is_dir() else find_kedro_project(here) or here
    os.chdir(project)
    try:
        check_recipe(env, Path(where or _CONF))
        configure_project("aft")
        yield project, where
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None:
            raise
        raise click.ClickException(sentence) from error


def check_recipe(env: str | None, conf: Path) -> None:
    """Raise `SettingsError` if there is no configuration, or no recipe of the name `env`, with the list of recipes."""
    if not conf.exists():
        raise SettingsError(
            f"There is no folder {conf.resolve()}; go to the project's folder, or give another as --conf-source."
        )
    recipes = sorted(names.parent.name for names in conf.glob("*/globals.yml") if names.parent.name != "local")
    if env is not None and recipes and env not in recipes:
        raise SettingsError(
            f"There is no recipe '{env}' in {conf} (a folder with a globals.yml); choose one of {', '.join(recipes)}."
        )


def at_workplace(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose recipe and configuration; the command gets the `Workplace` that they make."""

    @click.option("--env", "-e", help="The recipe; without it pocket.")
    @click.option("--conf-source", help="The folder of the configuration; without it conf.")
    @wraps(command)
    def wrapped(env: str | None, conf_source: str | None, **options: Any) -> None:
        from aft.studies.run import Workplace

        with in_project(env, conf_source) as (project, where):
            command(Workplace(project, env, where), **options)

    return wrapped
