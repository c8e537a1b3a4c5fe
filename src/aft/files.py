"""Files that are whole or absent: atomic writes, hashes, locks, and directories that are built once.

Everything that AFT keeps is written beside its final name, synced and renamed, so that `kill -9` or a full disk at any
moment leaves either the old state or the new one.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aft.errors import AftError, StoreError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PATIENCE = "AFT_LOCK_PATIENCE_S"  # environment variable: how long to wait for another run's lock instead of giving up
Description = Mapping[str, Any]  # what a thing is made from, in JSON's types


def digest(description: Any) -> str:
    """Hash of anything that JSON can say, independent of the order of keys; 16 hexadecimal digits."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into one sentence that names the place and the way out."""
    try:
        yield
    except AftError:
        raise
    except Exception as error:
        number = _errno(error)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(
                f"The disk is full ({os.strerror(number)}) while writing {path}; free some space and run the same "
                "command again: finished work is kept."
            ) from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StoreError(f"Cannot write {path}: {os.strerror(number)}; choose another data folder.") from error
        raise


def _errno(error: Exception) -> int | None:
    """The operating system's number of an error; safetensors and tokenizers say it in their text only."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error ([0-9]+)\)", str(error))
    return int(told.group(1)) if told else None


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


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    text = json.dumps(content, indent=2, sort_keys=True, default=str) + "\n"
    write_atomically(path, lambda staged: staged.write_text(text, encoding="utf-8"))


def finish_directory(staged: Path, final: Path, description: Description) -> None:
    """Give a filled directory its manifest (what it is made from, a hash per file), sync it and rename it.

    An earlier `final` is moved aside first and removed last: there is never a part of it.
    """
    replaced = final.with_name(f".{final.name}.replaced")
    with writing(final):
        remove_leftovers(staged)
        files = sorted(path for path in staged.rglob("*") if path.is_file() and path.name != MANIFEST)
        for path in files:
            _sync(path)
        hashes = {str(path.relative_to(staged)): hash_file(path) for path in files}
        write_json(staged / MANIFEST, {"made_from": description, "files": hashes})
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


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a finished directory; None if there is none of ours, or if a file that it names is missing."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and "made_from" in manifest and isinstance(manifest.get("files"), dict)
    return manifest if ours and all((directory / name).is_file() for name in manifest["files"]) else None


def is_intact(directory: Path) -> bool:
    """Whether every file of a finished directory still has the hash that its manifest names."""
    manifest = read_manifest(directory)
    return manifest is not None and all(
        hash_file(directory / name) == expected for name, expected in manifest["files"].items()
    )


def build_once(root: Path, description: Description, build: Callable[[Path], object]) -> Path:
    """The directory under `root` that is made from `description`: reused if finished, else built and kept.

    `build` fills the directory that it is given; what an interrupted build left there is still there, so that it can
    continue. Two processes never build the same thing: the second is refused with `StoreError`.
    """
    key = digest(description)
    final, staged = root / key, root / f".{key}.partial"
    if is_intact(final):
        kind = description.get("kind", "directory")
        logger.info("Reusing %s (%s): same inputs, same settings.", final.name, kind)
        return final
    with locked(root / f".{key}.lock"):
        if is_intact(final):  # another run has finished it in between
            return final
        if final.exists():
            logger.warning("%s is incomplete or changed since it was finished; it is made anew.", final)
        with writing(staged):
            staged.mkdir(exist_ok=True)
            build(staged)
        finish_directory(staged, final, description)
    return final


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the operating system frees it when the process ends, however it ends.

    A lock that another run holds is waited for as many seconds as the environment variable `PATIENCE` says, else not.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=float(os.environ.get(PATIENCE, "0")))
    try:
        with writing(path):
            lock.acquire()
    except Timeout as error:
        raise StoreError(
            f"Another run is working on {path.parent}; wait until it has ended, or stop it, and run again."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without sync, as that of a linked read-only image
            raise
    finally:
        os.close(descriptor)
