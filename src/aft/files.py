"""Files that are whole or absent: atomic writes, hashes, locks, and directories that are built once.

Everything that AFT keeps is written beside its final name, synced and renamed, so that `kill -9` or a full disk at any
moment leaves either the old state or the new one. What is kept is also sealed: a directory by its manifest, a file by a
small one beside it. What was damaged, cut or replaced since is reported, and never read.
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from filelock import FileLock, Timeout

from aft.code import load_rooms, source_hash
from aft.errors import AftError, SettingsError, StoreError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
LOCKS = ".locks"  # the folder of the locks of runs, in the data folder
CLEANING = "cleaning.lock"  # the one there that no run holds: whoever removes what no result names
PATIENCE = "AFT_LOCK_PATIENCE_S"  # environment variable: how long to wait for another run's lock; unset: without end
Description = Mapping[str, Any]  # what a thing is made from, in JSON's types

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_ABSENT = "absent"  # in a seal: there was no file before the one that is being written
_MOMENT_S = 1.0  # how long a lock is waited for in silence
_SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system, FAT's
_hashes: dict[tuple[int, ...], str] = {}  # of files, by their `_state`
_listeners: list[Callable[[], object]] = []


def digest(description: Any) -> str:
    """Hash of anything that JSON can say, independent of the order of keys; 16 hexadecimal digits."""
    return hashlib.sha256(_as_json(description)).hexdigest()[:16]


class ListDigest:
    """`digest` of a list, of which one item after the other is told."""

    def __init__(self) -> None:
        self._hash, self._between = hashlib.sha256(b"["), b""

    def add(self, item: Any) -> None:
        """Tell the next item."""
        self._hash.update(self._between + _as_json(item))
        self._between = b", "

    def value(self) -> str:
        """The digest of the list of all that was told so far."""
        whole = self._hash.copy()
        whole.update(b"]")
        return whole.hexdigest()[:16]


def _as_json(description: Any) -> bytes:
    return json.dumps(description, sort_keys=True, ensure_ascii=True, default=str).encode()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; a process reads a file again only if it was changed or replaced.

    That is told by device, inode, size and the times of the last changes. A file that was changed just now may change
    again within one tick of the file system's clock, and is not remembered.
    """
    with path.open("rb") as file:
        state = _state(file.fileno())
        known = _hashes.get(state)
        if known is None:
            known = hashlib.file_digest(file, "sha256").hexdigest()
            if _state(file.fileno()) == state and time.time_ns() - max(state[3:]) > _SETTLED_NS:
                _hashes[state] = known
    return known


def _state(descriptor: int) -> tuple[int, ...]:
    """What changes when a file does; the times, in ns, are last."""
    now = os.fstat(descriptor)
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a place where nothing can be written into one sentence that names it and the way out."""
    try:
        yield
    except AftError:
        raise
    except Exception as error:
        number = errno.ENOTDIR if _errno(error) == errno.EEXIST else _errno(error)  # a file where a folder has to be
        if number in _FULL:
            raise StoreError(
                f"The disk is full ({os.strerror(number)}) while writing {path}; free some space and run the same "
                "command again: finished work is kept."
            ) from error
        if number in _FORBIDDEN or (number in _NO_PLACE and _is_about(error, path)):
            raise StoreError(f"Cannot write {path}: {os.strerror(number)}; choose another data folder.") from error
        if isinstance(error, ValueError) and not _is_name(path):
            raise StoreError(f"Cannot write {str(path)!r}: that is no name; choose another data folder.") from error
        raise


def warn_of_space(folder: Path, needed: int, what: str) -> None:
    """Warn where `what`, so many bytes, may not fit on the disk of an existing folder."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        logger.warning(
            "%s may take up to %.3g GB in %s, where %.3g GB are free: free some space, or choose another data folder. "
            "A run that fills the disk stops, and the next one goes on.",
            *(what, needed / 1e9, folder, free / 1e9),
        )


def _errno(error: Exception) -> int:
    """The operating system's number of an error, 0 if it has none; safetensors and tokenizers say it as text only."""
    if isinstance(error, OSError):
        return error.errno or 0
    named = re.search(r"\(os error ([0-9]+)\)", str(error))
    return int(named.group(1)) if named else 0


def _is_about(error: Exception, path: Path) -> bool:
    """Whether an error is about `path`, a folder above it or a file beside it, and not about one that was only read."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return False
    return Path(error.filename) in (path, *path.parents) or Path(error.filename).parent == path.parent


def _is_name(path: Path) -> bool:
    """Whether the operating system can have a file of this name: without NUL, in characters that it can encode."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def usable_folder(value: Any, name: str) -> Path:
    """The folder that the setting `name` gives, made if it is not there and tried by writing into it.

    Raises `SettingsError` for a value that is no path, and `StoreError` for one at which nothing can be written.
    """
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"{name} is {value!r}, but must be the path of a folder.")
    folder = Path(value)
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
    except StoreError as error:
        raise StoreError(f"{name} cannot be used: {error}") from error
    return folder


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it and rename it to `path`."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            write(staged)
            _sync(staged)
            staged.replace(path)
            _sync(path.parent)
        finally:
            staged.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8, atomically."""
    write_atomically(path, lambda staged: staged.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """`content` as JSON for a file: keys sorted, a line for each value."""
    return json.dumps(content, indent=2, sort_keys=True, default=str) + "\n"


# --- files with a seal ------------------------------------------------------------------------------------------------


def write_sealed(path: Path, write: Callable[[Path], object]) -> None:
    """As `write_atomically`, and seal the file: its SHA-256 stands in `.<name>.sha256`, as `sha256sum` would write it.

    Killed at any moment, it leaves a file that its seal names: the seal names the old content and the new one before
    the new one takes the name, and only the new one after that. Writers of one folder wait for each other.
    """
    seal = _seal(path)
    with locked(path.parent / ".lock", str(path)):
        for left in (left for one in (path, seal) for left in path.parent.glob(f".{one.name}.*.partial")):
            left.unlink()  # by a killed run
        before = _sealed(path) if seal.is_file() else [_ABSENT]
        after = []

        def fill(staged: Path) -> None:
            write(staged)
            after.append(hash_file(staged))
            _write_seal(path, [*before, *after])

        write_atomically(path, fill)
        _write_seal(path, after)


def check_seal(path: Path, way_out: str) -> None:
    """Raise `StoreError`, a sentence that ends in `way_out`, if `path` is missing or not as it was written."""
    fault = _fault(path)
    if fault is not None and _seal(path).is_file():
        with locked(path.parent / ".lock", str(path)):  # another run may be writing it just now
            fault = _fault(path)
    if fault is not None:
        raise StoreError(f"{path} {fault}; {way_out}.")


def sealed_files(directory: Path) -> list[Path]:
    """The sealed files of a folder, those that are no longer there included."""
    seals = directory.glob(".*.sha256")
    files = [path.with_name(path.name.removeprefix(".").removesuffix(".sha256")) for path in seals]
    return sorted(path for path in files if path.is_file() or _ABSENT not in _sealed(path))


def lost_files(directory: Path) -> list[Path]:
    """The sealed files of a folder that are no longer there."""
    return [path for path in sealed_files(directory) if not path.is_file()]


def _fault(path: Path) -> str | None:
    if not path.is_file():
        return "is missing"
    if not _seal(path).is_file():
        return "has no seal, so that it may be anything"
    return None if hash_file(path) in _sealed(path) else "has changed since it was written"


def _seal(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _sealed(path: Path) -> list[str]:
    """The hashes that a file may have by its seal; none if the seal is damaged."""
    lines = _seal(path).read_bytes().decode(errors="replace").splitlines()
    return [line.split(maxsplit=1)[0] for line in lines if line.strip()]


def _write_seal(path: Path, hashes: list[str]) -> None:
    write_text(_seal(path), "".join(f"{one}  {path.name}\n" for one in hashes))


# --- directories with a manifest --------------------------------------------------------------------------------------


@contextmanager
def announced(listener: Callable[[], object]) -> Iterator[None]:
    """Within, `listener` is called whenever this process is about to make something that is kept, and was not there."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def announce() -> None:
    """Tell those who listen (see `announced`) that something is going to be made; no lock is held yet."""
    for listener in list(_listeners):
        listener()


def finish_directory(staged: Path, final: Path, description: Description) -> None:
    """Give a filled directory its manifest (what it is made from, a hash per file, a seal), sync it and rename it.

    An earlier `final` is moved aside first and removed last: there is never a part of it.
    """
    replaced = final.with_name(f".{final.name}.replaced")
    with writing(final):
        remove_leftovers(staged)
        files = sorted(path for path in staged.rglob("*") if path.is_file() and path.name != MANIFEST)
        for path in files:
            _sync(path)
        hashes = {str(path.relative_to(staged)): hash_file(path) for path in files}
        write_json(staged / MANIFEST, with_seal({"made_from": description, "files": hashes}))
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():
            final.rename(replaced)
        staged.rename(final)
        _sync(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of writes that were killed; only whoever holds the directory's lock may do that."""
    for path in directory.rglob(".*.partial"):
        if path.is_file():
            path.unlink()


def with_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON can say, with the hash of all of it as `seal`: a changed byte in a file of it does not go unseen."""
    plain = json.loads(json.dumps(content, default=str))
    return {**plain, "seal": digest(plain)}


def without_seal(content: Any) -> dict[str, Any] | None:
    """What `with_seal` was given; None if it is not all of that, or anything else."""
    if not isinstance(content, dict):
        return None
    plain = {name: value for name, value in content.items() if name != "seal"}
    return plain if content.get("seal") == digest(plain) else None


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


def is_intact(directory: Path) -> bool:
    """Whether every file of a finished directory still has the hash that its manifest names."""
    manifest = read_manifest(directory)
    return manifest is not None and all(
        hash_file(directory / name) == expected for name, expected in manifest["files"].items()
    )


def build_once(root: Path, description: Description, build: Callable[[Path], object], *rooms: str) -> Path:
    """The directory under `root` that is made from `description`: reused if finished, else built and kept.

    `build` fills the directory that it is given; what an interrupted build left there is still there, so that it can
    continue. Two processes never build the same thing: the second waits for the first, and reuses what it made.

    The code of `rooms` decides what is made: its hash is part of the description, as `code`, where no other stands
    there. Raises `StoreError` before anything is built if it is not the code in memory, see `aft.code.load_rooms`.
    """
    description = {**({"code": source_hash(*rooms)} if rooms else {}), **description}
    key, kind = digest(description), description.get("kind", "directory")
    final, staged = root / key, root / f".{key}.partial"
    if not is_intact(final):
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
    logger.info("Reusing %s (%s): same inputs, same settings.", final.name, kind)
    return final


# --- locks ------------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path, what: str | None = None, *, patience: float | None = None) -> Iterator[None]:
    """Hold the lock file `path`; the operating system frees it when the process ends, however it ends.

    A lock that another run holds is waited for, and the log says so: `what` is what that run makes, which is else told
    by the lock's name. Raises `StoreError` after `patience` seconds, which are those of the environment variable
    `PATIENCE` if they are not given; without either it waits without end.
    """
    patience = patience_s() if patience is None else patience
    what = what or str(path.parent / path.name.removeprefix(".").removesuffix(".lock"))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        if not _acquired(lock, min(patience, _MOMENT_S)):
            if patience > _MOMENT_S:
                logger.info("Waiting for another run that makes %s (its lock is %s).", what, path)
            if not _acquired(lock, patience - _MOMENT_S):
                raise StoreError(f"Another run is making {what}; wait until it has ended, or stop it, and run again.")
    try:
        yield
    finally:
        lock.release()


def lock_of(directory: Path) -> Path:
    """The lock of whoever fills `directory`: beside it, so that it outlives it."""
    return directory.with_name(f".{directory.name}.lock")


def patience_s() -> float:
    """How many seconds a run waits for another one, by the environment variable `PATIENCE`; infinite if it is unset.

    Raises `SettingsError` if it is no number of at least 0.
    """
    value = os.environ.get(PATIENCE)
    try:
        patience = math.inf if value is None else float(value)
    except ValueError:
        patience = math.nan
    if not patience >= 0:
        raise SettingsError(f"{PATIENCE} is {value!r}, but must be a number of seconds of at least 0, or unset.")
    return patience


def _acquired(lock: FileLock, patience: float) -> bool:
    """Whether the lock could be had within so many seconds."""
    try:
        lock.acquire(timeout=-1 if patience == math.inf else max(patience, 0))
    except Timeout:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without sync, as that of a linked read-only image
            raise
    finally:
        os.close(descriptor)
