"""`kedro cache`: what is kept for later, and what of it may go."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project

from aft.cache import CACHES, Entry, find_entries, refuse_shared, refuse_while_running, remove
from aft.errors import StoreError
from aft.files import CLEANING, LOCKS, locked
from aft.mistakes import check_recipe, one_sentence

_DAY_S = 86_400


@click.group()
def cache() -> None:
    """What is kept for later: models, samples, scores, ratings, and what was abandoned before it was finished."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose recipe and configuration; the command gets the data folder and the caches."""

    @click.option("--env", "-e", help="The recipe; without it pocket.")
    @click.option("--conf-source", help="The folder of the configuration; without it conf.")
    @wraps(command)
    def wrapped(env: str | None, conf_source: str | None, **options: Any) -> None:
        from aft.studies.run import Workplace

        project = find_kedro_project(Path.cwd()) or Path.cwd()
        where = None if conf_source is None else str(Path(conf_source).resolve())
        os.chdir(project)
        try:
            check_recipe(env, Path(where or "conf"))
            bootstrap_project(project)
            place = Workplace(project, env, where)
            with place.context() as context:
                caches = [Path(str(context.params[name])) for name in CACHES]
            data = Path(place.globals["data"])
            command(data, caches, **options)
        except Exception as error:
            sentence = one_sentence(error)
            if sentence is None:
                raise
            raise click.ClickException(sentence) from error

    return wrapped


@cache.command("list")
@_options
def list_cache(data: Path, caches: list[Path]) -> None:
    """Tell size, age and kind of all that is kept, the oldest first.

    What is `unused` is in no result of the data folder: it is made again when it is needed.
    """
    _tell(find_entries(data, caches))


@cache.command("clean")
@click.option("--unused", is_flag=True, help="Remove what is finished and in no result of the data folder, too.")
@click.option("--older-than", metavar="DAYS", type=click.FloatRange(min=0), default=0.0, help="Leave what is younger.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_options
def clean_cache(data: Path, caches: list[Path], unused: bool, older_than: float, yes: bool) -> None:
    """Remove what was abandoned before it was finished, such as the checkpoints of a training that is not wanted.

    What a running process makes is left alone, and so are a judge's ratings, which cost money.
    """

    def choose() -> list[Entry]:
        states = ("unfinished", "unused") if unused else ("unfinished",)
        found = find_entries(data, caches)
        return [entry for entry in found if entry.state in states and entry.age_s >= older_than * _DAY_S]

    if unused:
        refuse_shared(data, caches)
    shown = choose()
    _tell(shown)
    if not shown:
        return
    if not yes:
        click.confirm("Remove all of these?", abort=True)
    with locked(data / LOCKS / CLEANING, f"room in {data}"):
        if unused:
            refuse_while_running(data)
        paths = {entry.path for entry in shown}
        for entry in (one for one in choose() if one.path in paths):  # a run may have named some meanwhile
            try:
                remove(entry)
            except StoreError as error:
                click.echo(f"Left alone: {error}")


def _tell(entries: list[Entry]) -> None:
    rows = [("size", "age", "state", "kind", "folder")]
    rows += [(_size(one.size), f"{one.age_s / _DAY_S:.1f} d", one.state, one.kind, str(one.path)) for one in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for size, age, *told in rows:
        columns = (size.rjust(widths[0]), age.rjust(widths[1]), *map(str.ljust, told, widths[2:]))
        click.echo("  ".join(columns).rstrip())
    click.echo(f"{len(entries)} folders, {_size(sum(one.size for one in entries))}")


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
