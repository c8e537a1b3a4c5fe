"""What the tests of training share: a small model, ragged examples, and runs that were killed."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


def _load(name: str) -> Any:
    """A script beside this file, as a module that others can import."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def killed_runs() -> Any:
    return _load("killed_runs")


@pytest.fixture(scope="session")
def processes_apart(killed_runs: Any) -> Any:
    return _load("processes_apart")


@pytest.fixture
def small_llama(killed_runs: Any) -> Any:
    return killed_runs.small_llama


@pytest.fixture
def ragged_examples(killed_runs: Any) -> Any:
    return killed_runs.ragged_examples


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Optimiser and schedule of every run that is made during the test, in order."""
    from aft.training import loop

    made: list[Any] = []
    original = loop.make_schedule

    def recorded(optimizer: Any, *args: Any) -> Any:
        schedule = original(optimizer, *args)
        made.append((optimizer, schedule))
        return schedule

    monkeypatch.setattr(loop, "make_schedule", recorded)
    return made
