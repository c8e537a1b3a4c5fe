"""`kedro cache`: list the entries of the caches, and remove unfinished or unused ones."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aft.cache import CACHES, Entry, find_entries, refuse_shared, refuse_while_running, remove
from aft.errors import StoreError
from aft.locks import CLEANING, LOCKS, locked
from aft.project import at_workplace

if TYPE_CHECKING:
    from aft.studies.run import Workplace

_DAY_S = 86_400


@click.group()
def cache() -> None:
    """List and clean the caches of models, samples, scores and ratings."""


@cache.command("list")
@at_workplace
def list_cache(place: "Workplace") -> None:
    """List size, age, state and kind of every entry, the oldest first.

    An `unused` entry is in no result of the data folder; it is made again when it is needed.
    """
    _print(find_entries(*_kept(place)))


@cache.command("clean")
@click.option("--unused", is_flag=True, help="Remove what is finished and in no result of the data folder, too.")
@click.option("--older-than", metavar="DAYS", type=click.FloatRange(min=0), default=0.0, help="Leave what is younger.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@at_workplace
def clean_cache(place: "Workplace", unused: bool, older_than: float, yes: bool) -> None:
    """Remove what was abandoned before it was finished, such as checkpoints of a training that is no longer wanted.

    What a running process makes is left alone, and so are a judge's ratings, which cost money.
    """
    data, caches = _kept(place)

    def choose() -> list[Entry]:
        states = ("unfinished", "unused") if unused else ("unfinished",)
        found = find_entries(data, caches)
        return [entry for entry in found if entry.state in states and entry.age_s >= older_than * _DAY_S]

    if unused:
        refuse_shared(data, caches)
    shown = choose()
    _print(shown)
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


def _kept(place: "Workplace") -> tuple[Path, list[Path]]:
    """The data folder and the caches."""
    params = place.context().params
    return Path(place.globals["data"]), [Path(str(params[name])) for name in CACHES]


def _print(entries: list[Entry]) -> None:
    rows = [("size", "age", "state", "kind", "folder")]
    rows += [(_size(one.size), f"{one.age_s / _DAY_S:.1f} d", one.state, one.kind, str(one.path)) for one in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for size, age, *others in rows:
        columns = (size.rjust(widths[0]), age.rjust(widths[1]), *map(str.ljust, others, widths[2:]))
        click.echo("  ".join(columns).rstrip())
    click.echo(f"{len(entries)} folders, {_size(sum(one.size for one in entries))}")


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
