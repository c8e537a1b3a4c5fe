"""What is wrong with the parameters of a run, by what each of them must be: a sentence each, with the known keys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from textwrap import shorten
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from aft.errors import SettingsError
from aft.pipelines.content import paths_of, refuse_address
from aft.pipelines.parameters import KINDS
from aft.pipelines.variants import BASELINE
from aft.tasks import get_source
from aft.tasks.base import misplaced_truth_values


def faults(parameters: Mapping[str, Any]) -> list[str]:
    """A sentence for each fault of the parameters as they are configured, those that `KINDS` lacks left aside."""
    told = [one for key in KINDS if key in parameters for one in _faults(KINDS[key], parameters[key], key)]
    return told or [*_faults_of_tasks(parameters), *_faults_of_baseline(parameters), *_faults_of_paths(parameters)]


def _faults_of_tasks(parameters: Mapping[str, Any]) -> Iterator[str]:
    """The faults of the settings of the task family, and of those of each test set."""
    choices = {key: choice for key, choice in parameters.items() if key == "task"}
    choices |= {f"test_sets.{name}": choice for name, choice in parameters.get("test_sets", {}).items()}
    for key, choice in choices.items():
        try:
            kind = get_source(choice["family"]).Settings
        except SettingsError as error:
            yield f"{key}.family: {error}"
        else:
            settings = choice.get("settings", {})
            yield from _faults(kind, settings, f"{key}.settings")
            for name in misplaced_truth_values(kind, settings, f"{key}.settings"):
                yield f"{name} is a truth value, which does not belong there."


def _faults_of_baseline(parameters: Mapping[str, Any]) -> Iterator[str]:
    """The baseline learns the references, whatever its objective says."""
    objective = parameters.get("align", {}).get(BASELINE, {}).get("objective")
    if objective:
        given = ", ".join(f"align.{BASELINE}.objective.{key}" for key in objective)
        yield f"{given}: {BASELINE} is the baseline, which has no objective to set; choose another variant."


def _faults_of_paths(parameters: Mapping[str, Any]) -> Iterator[str]:
    """What is to be read from or kept in a file system, and is an address."""
    for key, path in paths_of(parameters):
        try:
            refuse_address(path, key)
        except SettingsError as error:
            yield str(error)


def _faults(kind: Any, value: Any, key: str) -> list[str]:
    try:
        TypeAdapter(kind).validate_python(value, extra="forbid")
    except ValidationError as error:
        return list(dict.fromkeys(_sentence(kind, key, one) for one in error.errors()))
    return []


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
                f"{name} is {_shown(fault['input'])}, but holds {', '.join(known)}: give each by its dotted key, as in "
                f"--params={name}.{known[0]}=…"
            )
        case "value_error":
            said = str(fault["ctx"]["error"])  # pyright: ignore[reportTypedDictNotRequiredAccess]
            return said if name in said else f"{name}: {said}"
    return f"{name} is {_shown(fault['input'])}: {fault['msg'].replace('Input', 'it', 1)}."


def _shown(value: Any) -> str:
    return shorten(repr(value), 60, placeholder=" ...")


def _keys_of(kind: Any, path: Sequence[str | int]) -> list[str]:
    """The keys that there are at a place below `kind`."""
    for part in path:
        kind = _with_keys(kind)
        kind = get_type_hints(kind)[str(part)] if is_dataclass(kind) else get_args(kind)[-1]
    kind = _with_keys(kind)
    return [field.name for field in fields(kind)] if is_dataclass(kind) else []


def _with_keys(kind: Any) -> Any:
    """Of alternatives, such as settings or None, the one that has keys."""
    if get_origin(kind) is Annotated:
        return get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        return next((one for one in get_args(kind) if is_dataclass(one)), kind)
    return kind
