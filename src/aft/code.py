"""Cache keys: the source code and the settings that decide a result. A room is a package of `aft`, such as `tasks`.

An edited rule is never answered from a cache, and a setting that only says how a thing is computed makes nothing anew.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from aft.errors import StoreError

_T = TypeVar("_T")
_HOW = object()
How = Annotated[_T, _HOW]
"""The type of a setting that only says how a thing is computed, as in `How[int]`."""
_ADDED = object()
Added = Annotated[_T, _ADDED]
"""The type of a setting whose default does what was done before there was it: with it, keys are as they were."""
_PYTHON = ".py"


def hash_sources(package: Path) -> dict[str, str]:
    """SHA-256 of every Python file and template of a package, in hexadecimal, by its path in the package.

    What editors leave beside them, in hidden files and folders, is none.
    """
    found = {path.relative_to(package): path for path in package.rglob("*") if path.suffix in (_PYTHON, ".j2")}
    return {
        name.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(found.items())
        if not any(part.startswith(".") for part in name.parts)
    }


_PACKAGE = Path(__file__).parent
_SOURCES = hash_sources(_PACKAGE)  # when AFT is imported: `load_rooms` sees to it that the code in memory is that


def source_hash(*rooms: str) -> str:
    """Hash of the source of these rooms (`"tasks"`) and files (`"server.py"`) of the package; 16 hexadecimal digits.

    It stands in the key of whatever these decide, and is that of the source when this process imported AFT. Bytes
    count, comments included: a result is rather made once too often than reused under another rule. The version of the
    package says less, and is in no key. Raises `ValueError` for a room that has no file.
    """
    lines = [f"{name} {_SOURCES[name]}" for name in _files(rooms)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def load_rooms(*rooms: str) -> str:
    """Import all that these rooms consist of, and give their `source_hash`: it is that of the code in memory from here.

    Modules are else imported when they are needed first, perhaps long after the hash was taken. What is edited later
    than this changes nothing that the process makes, and costs nothing. Raises `StoreError` if a file was edited
    between the import of AFT and this call.
    """
    files = _files(rooms)
    for path in (Path("aft", name).with_suffix("") for name in files if name.endswith(_PYTHON)):
        import_module(".".join(path.parts if path.name != "__init__" else path.parent.parts))
    there = hash_sources(_PACKAGE)
    edited = [name for name in files if there.get(name) != _SOURCES[name]]
    if edited:
        raise StoreError(
            f"The code has changed since this run began ({', '.join(f'aft/{name}' for name in edited)}); run the same "
            "command again: what is finished is kept."
        )
    return source_hash(*rooms)


def _files(rooms: Sequence[str]) -> list[str]:
    """The source files of some rooms, sorted."""
    names = {room: [name for name in _SOURCES if name == room or name.startswith(f"{room}/")] for room in rooms}
    empty = [room for room, files in names.items() if not files]
    if empty:
        raise ValueError(f"There is no source of {', '.join(empty)} in the package.")
    return sorted({name for files in names.values() for name in files})


def deciding(settings: Any) -> Any:
    """The settings that decide a result, by name: all fields but those whose type is `How`.

    What these say, how a thing is computed, changes it by the rounding of sums at most, and under dropout by the masks
    that are drawn. One that was `Added` is left out while it has its default. Settings in settings are treated in the
    same way; any other value is itself.
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    kinds = get_type_hints(type(settings), include_extras=True)
    marks = {name: getattr(kind, "__metadata__", ()) for name, kind in kinds.items()}
    values = {one.name: getattr(settings, one.name) for one in fields(settings) if _HOW not in marks[one.name]}
    usual = {one.name: one.default for one in fields(settings) if _ADDED in marks[one.name]}
    return {name: deciding(value) for name, value in values.items() if name not in usual or value != usual[name]}
