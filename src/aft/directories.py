"""Directories that are built once: whole, with a manifest (what they are made from, a hash per file), or absent."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aft.code import load_rooms, source_hash
from aft.files import digest, hash_file, sync, write_json, write_text, writing
from aft.locks import lock_of, locked
from aft.sealed import with_seal, without_seal

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
Description = Mapping[str, Any]  # what a thing is made from, in JSON's types
_listeners: list[Callable[[], object]] = []


def build_once(
    root: Path, description: Description, build: Callable[[Path], object], *rooms: str, brief: bool = False
) -> Path:
    """The directory under `root` that is made from `description`: reused if finished, else built and kept.

    `build` fills the directory that it is given; what an interrupted build left there is still there, so that it can
    continue. Two processes never build the same thing: the second waits for the first, and reuses what it made.

    The code of `rooms` decides what is made: its hash is part of the description, as `code`, where no other stands
    there. Raises `StoreError` before anything is built if it is not the code in memory, see `aft.code.load_rooms`. What
    is `brief` to build is not `announced`.
    """
    description = {**({"code": source_hash(*rooms)} if rooms else {}), **description}
    key, kind = digest(description), description.get("kind", "directory")
    final, staged = root / key, root / f".{key}.partial"
    if not is_intact(final):
        if not brief:
            announce()
        with locked(lock_of(final), f"the {kind}"):
            if not is_intact(final):  # another run may have finished it in between
                if final.exists():
                    logger.warning("%s is incomplete or changed since it was finished; it is made anew.", final)
                load_rooms(*rooms)
                with writing(staged):
                    staged.mkdir(exist_ok=True)
                    write_json(staged / MANIFEST, {"made_from": description})  # what it is going to be, if this is all
                    build(staged)
                finish_directory(staged, final, description)
                return final
    _tell_reused(final, kind)
    return final


def remembered(
    root: Path,
    description: Description,
    make: Callable[[], Any],
    *rooms: str,
    holds: Callable[[Any], bool] = lambda value: True,
) -> Any:
    """What `make` gives for `description`, as JSON has it: kept as its manifest alone, and not made again.

    The description names all that it follows from but the code of `rooms`, as in `build_once`. It is made again, too,
    where `holds` says that what was kept holds no longer, and where the manifest is damaged, which the log tells. Two
    processes may make the same at once: they write the same. Nobody is told of it (`announced`): it takes a moment, or
    tells itself.
    """
    description = {"code": source_hash(*rooms), **description}
    place = root / digest(description)
    kept = read_manifest(place)
    if kept is not None and holds(kept["value"]):
        return kept["value"]
    if kept is None and (place / MANIFEST).is_file():
        logger.warning("%s (%s) is damaged; it is made anew.", place, description["kind"])
    load_rooms(*rooms)
    sealed = with_seal({"made_from": description, "files": {}, "value": make()})
    write_text(place / MANIFEST, json.dumps(sealed) + "\n")  # unlike `write_json` in the order given
    return sealed["value"]


def reused(directory: Path) -> bool:
    """Whether a directory is finished and intact; if so, the log tells that it is reused."""
    if not is_intact(directory):
        return False
    _tell_reused(directory, (read_manifest(directory) or {})["made_from"].get("kind", "directory"))
    return True


def _tell_reused(directory: Path, kind: str) -> None:
    logger.info("Reusing %s (%s): same inputs, same settings.", directory.name, kind)


def finish_directory(staged: Path, final: Path, description: Description) -> None:
    """Give a filled directory its manifest (what it is made from, a hash per file, a seal), sync it and rename it.

    An earlier `final` is moved aside first and removed last: there is never a part of it.
    """
    replaced = final.with_name(f".{final.name}.replaced")
    with writing(final):
        remove_leftovers(staged)
        files = sorted(path for path in staged.rglob("*") if path.is_file() and path.name != MANIFEST)
        for path in files:
            sync(path)
        hashes = {str(path.relative_to(staged)): hash_file(path) for path in files}
        write_json(staged / MANIFEST, with_seal({"made_from": description, "files": hashes}))
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():
            final.rename(replaced)
        staged.rename(final)
        sync(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of writes that were killed; only whoever holds the directory's lock may do that."""
    for path in directory.rglob(".*.partial"):
        if path.is_file():
            path.unlink()


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a finished directory, with what it is made from and the hashes of its files.

    None if there is none of ours, if it was changed, or if a file that it names is missing.
    """
    try:
        manifest = without_seal(json.loads((directory / MANIFEST).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    if manifest is None or "made_from" not in manifest or not isinstance(manifest.get("files"), dict):
        return None
    return manifest if all((directory / name).is_file() for name in manifest["files"]) else None


def is_intact(directory: Path, *, but: str | None = None) -> bool:
    """Whether every file of a finished directory, `but` this one, still has the hash that its manifest names."""
    manifest = read_manifest(directory)
    return manifest is not None and all(
        name == but or hash_file(directory / name) == expected for name, expected in manifest["files"].items()
    )


@contextmanager
def announced(listener: Callable[[], object]) -> Iterator[None]:
    """Within, `listener` is called whenever this process is about to make something that is kept, and was not there.

    Not for what takes a moment.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def announce() -> None:
    """Tell those who listen (see `announced`) that something is going to be made; no lock is held yet."""
    for listener in list(_listeners):
        listener()
