"""Nested settings as dotted keys, for whoever lists, compares or shows them."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each leaf of nested mappings and dataclasses, in their order; an empty one is a leaf.

    Nothing if `value` itself is empty.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {one.name: getattr(value, one.name) for one in fields(value)}
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{prefix}.{name}")
    elif prefix:
        yield prefix.removeprefix("."), value
