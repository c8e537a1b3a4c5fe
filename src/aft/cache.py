"""The entries of the caches, and which may be removed: unfinished ones that were abandoned, and unused ones.

A finished entry is used if the data folder refers to it from outside the caches: by hard or symbolic links to its
files, as published models do, or by a list of shards.
"""

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aft.directories import MANIFEST
from aft.errors import StoreError
from aft.files import writing
from aft.locks import CLEANING, LOCKS, lock_of, locked
from aft.sealed import check_seal, sealed_files

CACHES = ("model_cache", "sample_cache", "score_cache", "rating_cache")  # the parameters that say where they are
DESCRIPTION = "description.json"  # what the things in an append-only store follow from

_UNFINISHED = re.compile(r"\.(.+)\.(?:partial|replaced)")
_KEY = re.compile(r"[0-9a-f]{16}")
_SHARD = ("path", "sha256")  # what a list of shards says of each
_PAID = "ratings"  # whose making again costs money


@dataclass(frozen=True, slots=True)
class Entry:
    """A folder that is kept."""

    path: Path
    kind: str  # what is in it, or was to be: "pocket base model", "samples"
    size: int  # bytes, but for files that an older one has as well, by hard links
    age_s: float  # since anything in it was last written
    state: Literal["unfinished", "unused", "used"]


def find_entries(data: Path, caches: Sequence[Path]) -> list[Entry]:
    """All unfinished folders in the data folder and the caches, and all finished ones in the caches, oldest first.

    What a running process removes meanwhile is not among them. Raises `StoreError` if a sealed file that may be a list
    of shards is damaged or gone, so that nobody knows which of them it names.
    """
    roots = [cache for cache in caches if cache.is_dir()]
    unfinished = {path for root in (data, *roots) for path, _ in _folders(root) if _UNFINISHED.fullmatch(path.name)}
    finished = [
        path
        for root in roots
        for path in root.iterdir()
        if _KEY.fullmatch(path.name) and any((path / name).is_file() for name in (MANIFEST, DESCRIPTION))
    ]
    named = _named(data, {cache.resolve() for cache in roots})
    changed = {path: when for path in (*unfinished, *finished) if (when := _changed(path)) is not None}
    counted: set[tuple[int, int]] = set()
    return [_entry(path, changed[path], named, counted) for path in sorted(changed, key=lambda path: changed[path])]


def remove(entry: Entry) -> None:
    """Remove an entry; raises `StoreError` if a running process is making it, or it cannot be removed."""
    unfinished = _UNFINISHED.fullmatch(entry.path.name)
    final = entry.path.with_name(unfinished[1]) if unfinished else entry.path
    with writing(entry.path), locked(lock_of(final), f"the {entry.kind} in {entry.path}", patience=0):
        shutil.rmtree(entry.path)


def refuse_while_running(data: Path) -> None:
    """Raise `StoreError` if a run is going on: what it has just made is not named yet."""
    for lock in sorted((data / LOCKS).glob("*.lock")):
        if lock.name != CLEANING:
            with locked(lock, f"results in {data}", patience=0):
                pass


def refuse_shared(data: Path, caches: Sequence[Path]) -> None:
    """Raise `StoreError` if a cache lies outside the data folder: what another data folder names is unknown here."""
    for cache in caches:
        if cache.is_dir() and not cache.resolve().is_relative_to(data.resolve()):
            raise StoreError(
                f"{cache} lies outside the data folder {data}, so that another one may use what is in it; clean "
                "without --unused, or delete by hand what none needs."
            )


def _entry(path: Path, changed: float, named: set[tuple[int, int]], counted: set[tuple[int, int]]) -> Entry:
    """What a folder is; the files that count for it are added to those that are `counted`, by device and number."""
    files = {(one.st_dev, one.st_ino): one.st_size for one in _stats(_inside(path))}
    kind = _kind(path)
    state = "used" if kind == _PAID or named & files.keys() else "unused"
    size = sum(size for file, size in files.items() if file not in counted)
    counted.update(files)
    return Entry(
        path, kind, size, max(time.time() - changed, 0.0), "unfinished" if _UNFINISHED.fullmatch(path.name) else state
    )


def _changed(path: Path) -> float | None:
    """When anything in a folder was last written, in seconds since 1970; None if it is gone."""
    try:
        own = path.stat()
    except FileNotFoundError:
        return None
    return max([own.st_mtime, *(one.st_mtime for one in _stats(_inside(path)))])


def _inside(path: Path) -> Iterator[Path]:
    return (Path(folder, name) for folder, _, names in os.walk(path) for name in names)


def _kind(path: Path) -> str:
    """What is in a folder, as its manifest or description says, which need not be finished."""
    for name, key in ((MANIFEST, "made_from"), (DESCRIPTION, None)):
        content = _json(path / name)
        content = content.get(key) if key and isinstance(content, dict) else content
        if isinstance(content, dict) and "kind" in content:
            return str(content["kind"])
    return "unknown"


def _named(data: Path, caches: set[Path]) -> set[tuple[int, int]]:
    """Device and number of every file that the data folder has outside the caches, or names in a list of shards."""
    named = set()
    for folder, names in _folders(data):
        if caches & {folder.resolve(), *folder.resolve().parents}:
            continue
        listed = (shard for path in sealed_files(folder) if path.suffix == ".json" for shard in _listed(path))
        own = (folder / name for name in names)
        named |= {(file.st_dev, file.st_ino) for file in _stats((*own, *listed))}
    return named


def _listed(path: Path) -> list[Path]:
    """The shards that a sealed file names, none if it is no list of shards."""
    check_seal(path, "it may name samples that are in use: run the stage that makes it, or delete it with its seal")
    content = _json(path)
    shards = content.get("shards") if isinstance(content, dict) else None
    listed = shards if isinstance(shards, list) else []
    return [path.parent.resolve() / one["path"] for one in listed if isinstance(one, dict) and {*one} == {*_SHARD}]


def _stats(paths: Iterable[Path]) -> Iterator[os.stat_result]:
    """What the system knows of the files that are there; a running process may take any of them away at any moment."""
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            yield found


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """`root` and all folders in it, but for those in an unfinished one, each with the names of its files."""
    seen = set()
    for name, inner, files in os.walk(root, followlinks=True):
        folder = Path(name)
        if folder.resolve() in seen or _UNFINISHED.fullmatch(folder.name):
            inner.clear()
        if folder.resolve() not in seen:
            yield folder, files
        seen.add(folder.resolve())


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
