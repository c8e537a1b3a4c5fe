"""What a result follows from, for the key that it is kept under: the source of its rooms, and the settings that decide.

An edited rule is never answered from a cache, and a setting that only says how a thing is computed makes nothing anew.
"""

import hashlib
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent


@cache
def source_hash(*rooms: str) -> str:
    """Hash of the source of these rooms (`"alignment"`, `"tasks"`) of the package; 16 hexadecimal digits.

    It stands in the key of whatever these rooms decide. Bytes count, comments included: a result is rather made once
    too often than reused under another rule. The version of the package says less, and is in no key.
    """
    files = sorted(path for room in rooms for path in (_PACKAGE / room).rglob("*.py"))
    lines = [f"{path.relative_to(_PACKAGE).as_posix()} {_hash(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def deciding(settings: Any) -> Any:
    """The settings that decide a result, by name: all fields but those that their class lists in `HOW`.

    What these say, how a thing is computed, changes it by the rounding of sums at most, and under dropout by the masks
    that are drawn. Settings in settings are told in the same way, and any other value is itself.
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    how = getattr(settings, "HOW", ())
    return {one.name: deciding(getattr(settings, one.name)) for one in fields(settings) if one.name not in how}
