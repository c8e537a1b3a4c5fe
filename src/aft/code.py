"""What a result follows from, for the key that it is kept under: the source of its rooms, and the settings that decide.

An edited rule is never answered from a cache, and a setting that only says how a thing is computed makes nothing anew.
"""

import hashlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

_T = TypeVar("_T")
_HOW = object()
How = Annotated[_T, _HOW]
"""The type of a setting that only says how a thing is computed, as in `How[int]`."""


def hash_sources(package: Path) -> dict[str, str]:
    """SHA-256 of every Python file of a package, in hexadecimal, by its path in the package."""
    files = sorted(package.rglob("*.py"))
    return {path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Taken when AFT is imported: a file that is edited while a run goes on is not the code that the run has in memory.
_SOURCES = hash_sources(Path(__file__).parent)


def source_hash(*rooms: str) -> str:
    """Hash of the source of these rooms (`"tasks"`) and files (`"server.py"`) of the package; 16 hexadecimal digits.

    It stands in the key of whatever these decide, and is that of the source when this process imported AFT. Bytes
    count, comments included: a result is rather made once too often than reused under another rule. The version of the
    package says less, and is in no key. Raises `ValueError` for a room that has no file.
    """
    names = {room: [name for name in _SOURCES if name == room or name.startswith(f"{room}/")] for room in rooms}
    empty = [room for room, files in names.items() if not files]
    if empty:
        raise ValueError(f"There is no source of {', '.join(empty)} in the package.")
    lines = [f"{name} {_SOURCES[name]}" for name in sorted({name for files in names.values() for name in files})]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def deciding(settings: Any) -> Any:
    """The settings that decide a result, by name: all fields but those whose type is `How`.

    What these say, how a thing is computed, changes it by the rounding of sums at most, and under dropout by the masks
    that are drawn. Settings in settings are told in the same way, and any other value is itself.
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    kinds = get_type_hints(type(settings), include_extras=True)
    names = [one.name for one in fields(settings) if _HOW not in getattr(kinds[one.name], "__metadata__", ())]
    return {name: deciding(getattr(settings, name)) for name in names}
