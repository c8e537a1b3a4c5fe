"""Settings classes that check themselves: an unknown key or a misfit is a `SettingsError` that names it."""

import re
from collections.abc import Sequence
from dataclasses import field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache, wraps
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from aft.bounds import shown
from aft.errors import SettingsError

_T = TypeVar("_T")
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def checked(cls: type[_T]) -> type[_T]:
    """A frozen dataclass of pydantic's in which an unknown key is an error, and a misfit raises `SettingsError`.

    Numbers are of the types in `aft.bounds`, for which `true` is no number. A contradiction of several fields is what
    `__post_init__` raises, and a field that only says how a thing is computed is an `aft.code.How`.
    """
    made: Any = dataclass(config=ConfigDict(extra="forbid"), frozen=True, slots=True)(cls)
    check, names = made.__init__, [one.name for one in fields(made)]
    key = _CAPITAL.sub("_", cls.__name__.removesuffix("Settings")).lower() or "settings"

    @wraps(check)
    def __init__(self: Any, *values: Any, **given: Any) -> None:
        try:  # by name, which errors then have
            check(self, *values[len(names) :], **dict(zip(names, values, strict=False)), **given)
        except ValidationError as error:
            raise SettingsError(_message(error, made, key)) from None

    made.__init__ = __init__
    return made


def read(kind: Any, value: Any, key: str) -> Any:
    """`value` as the settings of a type; raises `SettingsError` with a sentence for each fault, named from `key` on."""
    try:
        return _adapter(kind).validate_python(value, extra="forbid")
    except ValidationError as error:
        raise SettingsError(_message(error, kind, key)) from None


@cache  # what a tokenizer's configuration says of chats is read with every prompt
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _message(error: ValidationError, kind: Any, key: str) -> str:
    return " ".join(dict.fromkeys(_sentence(kind, key, fault) for fault in error.errors()))


def _sentence(kind: Any, key: str, fault: ErrorDetails) -> str:
    path = [part for part in fault["loc"] if "[" not in str(part)]  # pydantic names alternatives, as list[str]
    name = ".".join(map(str, (key, *path)))
    match fault["type"]:
        case "unexpected_keyword_argument" | "invalid_key":
            known = _keys_of(kind, path[:-1])
            near = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
            guess = f"did you mean '{near[0]}'? There are" if near else "there are"
            return f"There is no parameter '{name}': {guess} {', '.join(known)}."
        case "missing":
            return f"{name} is missing."
        case "dataclass_type":
            known = _keys_of(kind, path)
            return (
                f"{name} is {shown(fault['input'])}, but holds {', '.join(known)}: give each by its dotted key, as in "
                f"--params={name}.{known[0]}=…"
            )
        case "literal_error":
            expected = fault["ctx"]["expected"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
            near = get_close_matches(str(fault["input"]), re.findall("'(.*?)'", expected), n=1)
            guess = f"did you mean '{near[0]}'? It" if near else "it"
            return f"{name} is {shown(fault['input'])}: {guess} should be {expected}."
        case "bounds" | "must":
            return f"{name} {fault['msg']}."
        case "value_error":
            said = str(fault["ctx"]["error"])  # pyright: ignore[reportTypedDictNotRequiredAccess]
            return said if name in said else f"{name}: {said}"
    return f"{name} is {shown(fault['input'])}: {fault['msg'].replace('Input', 'it', 1)}."


def _keys_of(kind: Any, path: Sequence[str | int]) -> list[str]:
    """The keys that there are at a place below `kind`."""
    for part in path:
        kind = _with_keys(kind)
        kind = get_type_hints(kind)[str(part)] if is_dataclass(kind) else get_args(kind)[-1]
    kind = _with_keys(kind)
    return [one.name for one in fields(kind)] if is_dataclass(kind) else []


def _with_keys(kind: Any) -> Any:
    """Of alternatives, such as settings or None, the one that has keys."""
    if get_origin(kind) is Annotated:
        return get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        return next((one for one in get_args(kind) if is_dataclass(one)), kind)
    return kind
