"""What is kept with a seal: files with their hash in a small file beside them, JSON that holds its own.

What was damaged, cut or replaced since it was written is reported, and never read.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aft.errors import StoreError
from aft.files import digest, hash_file, write_atomically, write_text
from aft.locks import locked

_ABSENT = "absent"  # in a seal: there was no file before the one that is being written


def write_sealed(path: Path, write: Callable[[Path], object]) -> None:
    """As `write_atomically`, and seal the file: its SHA-256 stands in `.<name>.sha256`, as `sha256sum` would write it.

    Killed at any moment, it leaves a file that its seal names: the seal names the old content and the new one before
    the new one takes the name, and only the new one after that. A seal that names what is written stays as it is.
    Writers of one folder wait for each other.
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
            if after != before:
                _write_seal(path, [*before, *after])

        write_atomically(path, fill)
        if after != before:
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
