"""Task families, found by name: a module each, but for the sets that are only evaluated on, which share a table.

The questions of a user's own file belong to a family that is named by how their answers are checked.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, cast

from aft.code import hash_sources
from aft.errors import SettingsError, StoreError
from aft.tasks.base import Question, Source, Task, content_hash
from aft.tasks.checks import OWN
from aft.tasks.evaluation_sets import EVALUATION_SETS
from aft.tasks.latex import verifier_versions

__all__ = [
    "Question",
    "Source",
    "Task",
    "content_hash",
    "get_source",
    "get_task",
    "marking_code",
    "own_code",
    "task_names",
]

_NOT_FAMILIES = {
    *("answers", "base", "calculator", "checks", "evaluation_sets", "latex", "math_worker", "multiple_choice"),
    *("near_duplicates", "rows", "run_on"),
}
_OF_A_SOURCE = ("Settings", "load_questions")
_OF_A_TASK = (*_OF_A_SOURCE, "prompt", "extract_answer", "answers_equal")

_imported: dict[str, dict[str, str]] = {}  # the source of each family of a user's own when it was imported


@cache  # a family is asked for with every response, and this looks into a folder
def task_names() -> tuple[str, ...]:
    """The task families that this package ships."""
    modules = {module.name for module in pkgutil.iter_modules(__path__)} - _NOT_FAMILIES
    return tuple(sorted(modules | EVALUATION_SETS.keys()))


def get_source(name: str) -> Source:
    """Where the family `name` has its questions from; errors are those of `get_task`."""
    return cast(Source, _family(name, _OF_A_SOURCE, "Source"))


def get_task(name: str) -> Task:
    """The task family `name`: one of `task_names()` or `OWN`, or the dotted name of a module that satisfies `Task`.

    Raises `SettingsError` if there is no such module, if it cannot be imported or if it lacks a name of the protocol.
    """
    return cast(Task, _family(name, _OF_A_TASK, "Task"))


def own_code(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Of each family that is no part of AFT, the SHA-256 of every source file of its package, by its path.

    Raises `StoreError` if one was edited since this process imported the family: what it does is the code of before.
    """
    return {name: _sources(name) for name in sorted(set(names)) if "." in name and name not in OWN}


def marking_code(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """What marks answers beside AFT itself: `own_code`, and what compares answers in LaTeX, as an own family may do."""
    named = set(names)
    in_latex = {"math", "jsonl", *(name for name, own in OWN.items() if own.check == "math")}
    own = own_code(named)
    return own | ({"math-verify": verifier_versions()} if own or named & in_latex else {})


def _sources(name: str) -> dict[str, str]:
    get_task(name)  # errors are its own
    there = _on_disk(name)
    imported = _imported.setdefault(name, there)
    if imported != there:
        edited = sorted(path for path in {*imported, *there} if imported.get(path) != there.get(path))
        raise StoreError(
            f"The code of the task family {name!r} has changed since this run began ({', '.join(edited)}); run the "
            "same command again: what is finished is kept."
        )
    return there


def _on_disk(name: str) -> dict[str, str]:
    """The hash of every source file of a family's package."""
    top = importlib.import_module(name.partition(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", [])]
    return {path: value for folder in folders for path, value in hash_sources(folder).items()}


def _family(name: str, wanted: tuple[str, ...], protocol: str) -> Any:
    if name in EVALUATION_SETS:
        return EVALUATION_SETS[name]
    if name in OWN:
        return OWN[name]
    known = f"choose one of {', '.join(task_names())}, or give the dotted name of a module of your own"
    shipped = name in task_names()
    if not shipped and ("." not in name or not all(part.isidentifier() for part in name.split("."))):
        raise SettingsError(f"There is no task family {name!r}; {known}.")
    try:
        module = importlib.import_module(f"{__name__}.{name}" if shipped else name)
    except Exception as error:  # the module may be of the user's own, and raise what it likes
        raise SettingsError(
            f"The task family {name!r} cannot be imported ({type(error).__name__}: {error}); {known}."
        ) from error
    if not shipped:
        _imported.setdefault(name, _on_disk(name))
    missing = [attribute for attribute in wanted if not hasattr(module, attribute)]
    if missing:
        raise SettingsError(
            f"The task family {name!r} lacks {', '.join(missing)}; see aft.tasks.base.{protocol}, or {known}."
        )
    return module
