"""Files that are whole or absent: atomic writes and hashes.

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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from aft.errors import AftError, SettingsError, StoreError

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system, FAT's
_hashes: dict[tuple[int, ...], str] = {}  # of files, by their `_state`


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

    A file is recognised by device, inode, size and the times of its last changes. One that was changed just now may
    change again within one tick of the file system's clock, and is not remembered.
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
        staged = path.with_name(f".{path.name}.{uuid4().hex}.partial")
        try:
            write(staged)
            sync(staged)
            staged.replace(path)
            sync(path.parent)
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


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without sync, as that of a linked read-only image
            raise
    finally:
        os.close(descriptor)
