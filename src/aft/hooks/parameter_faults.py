"""What is wrong with the parameters of a run, by what each of them must be: a sentence each, with the known keys."""

from collections.abc import Iterator, Mapping
from typing import Any

from aft.checked import read
from aft.errors import SettingsError
from aft.pipelines.parameters import KINDS
from aft.pipelines.variants import BASELINE
from aft.tasks import get_source


def faults(parameters: Mapping[str, Any]) -> list[str]:
    """A sentence for each fault of the parameters as they are configured, those that `KINDS` lacks left aside."""
    told = [one for key in KINDS if key in parameters for one in _faults(KINDS[key], parameters[key], key)]
    return told or [*_faults_of_tasks(parameters), *_faults_of_baseline(parameters)]


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


def _faults(kind: Any, value: Any, key: str) -> Iterator[str]:
    try:
        read(kind, value, key)
    except SettingsError as error:
        yield str(error)
