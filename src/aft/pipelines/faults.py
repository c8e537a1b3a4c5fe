"""Validation of a run's parameters: a sentence for each fault, with the known keys."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from aft.alignment.variants import BASELINE
from aft.checked import read
from aft.errors import SettingsError
from aft.nested import leaves
from aft.pipelines.content import paths_of, refuse_address
from aft.pipelines.parameters import KINDS
from aft.tasks import get_source

_SET = re.compile(r"[A-Za-z0-9_.-]{1,60}")


def faults(parameters: Mapping[str, Any]) -> list[str]:
    """A sentence for each fault of the parameters as they are configured, those that `KINDS` lacks left aside."""
    found = list(_misspelt_variants(parameters.get("align")))
    found = found or [one for key in KINDS if key in parameters for one in _faults(KINDS[key], parameters[key], key)]
    checks = (_faults_of_tasks, _faults_of_sets, _faults_of_baseline, _faults_of_sampling, _faults_of_paths)
    return found or [fault for check in checks for fault in check(parameters)]


def _misspelt_variants(align: Any) -> Iterator[str]:
    """Settings of a variant that nobody defined, where the name is nearly that of another: a new entry has a note."""
    entries = {name: one for name, one in align.items() if isinstance(one, Mapping)} if isinstance(align, dict) else {}
    known = [name for name, entry in entries.items() if "note" in entry]
    for name in entries.keys() - known:
        for near in get_close_matches(str(name), known, n=1):
            for key, _ in leaves(entries[name]):
                yield f"There is no parameter 'align.{name}.{key}': did you mean 'align.{near}.{key}'?"


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
            yield from _faults(kind, choice.get("settings", {}), f"{key}.settings")


def _faults_of_baseline(parameters: Mapping[str, Any]) -> Iterator[str]:
    """The baseline learns the references, whatever its objective says."""
    objective = parameters.get("align", {}).get(BASELINE, {}).get("objective")
    if objective:
        given = ", ".join(f"align.{BASELINE}.objective.{key}" for key in objective)
        yield f"{given}: {BASELINE} is the baseline, which has no objective to set; choose another variant."


def _faults_of_sets(parameters: Mapping[str, Any]) -> Iterator[str]:
    """The name of a test set is part of names of figures, which MLflow takes in these letters only."""
    for name in parameters.get("test_sets", {}):
        if not _SET.fullmatch(str(name)):
            yield f"A test set cannot be called {name!r:.80}: its name is up to 60 letters, digits and _ . -."


def _faults_of_sampling(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Feedback is on samples."""
    sampling = parameters.get("sampling")
    if isinstance(sampling, Mapping) and sampling.get("greedy"):
        yield "sampling.greedy: there is no feedback on greedy responses; leave it out (evaluation.sampling.greedy)."


def _faults_of_paths(parameters: Mapping[str, Any]) -> Iterator[str]:
    """What is to be read from or kept in a file system, and is an address."""
    for key, path in paths_of(parameters):
        try:
            refuse_address(path, key)
        except SettingsError as error:
            yield str(error)


def _faults(kind: Any, value: Any, key: str) -> Iterator[str]:
    try:
        read(kind, value, key)
    except SettingsError as error:
        yield str(error)
