"""Refuse, before anything runs, a parameter that no node reads, a seed or label that cannot be one, and `torchrun`.

A misspelt key must not silently leave the default in force.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import CatalogProtocol

from aft.errors import SettingsError

_PREFIX = "params:"
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]{0,79}")


class CheckParametersHook:
    """Compares the keys of all parameters with those that the project's nodes read."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: CatalogProtocol) -> None:
        """Raise `SettingsError` naming unknown keys and the nearest known ones, or what is wrong with seed or label."""
        if os.environ.get("WORLD_SIZE", "1") != "1":  # every process would write the same data
            raise SettingsError(
                "Do not start a run with torchrun: set launch.processes, and training starts them itself."
            )
        parameters, given = catalog.load("parameters"), run_params.get("runtime_params") or {}
        _check_seed(parameters.get("seed", 0), given)
        _check_label(parameters.get("label"), given)
        check_known(parameters)


def check_known(parameters: dict[str, Any]) -> None:
    """Raise `SettingsError` naming the keys that no node of the project reads, and the nearest known ones."""
    read = {
        name.removeprefix(_PREFIX)
        for pipeline in pipelines.values()
        for name in pipeline.inputs()
        if name.startswith(_PREFIX)
    }
    unknown = [
        key
        for key in _keys(parameters)
        if key != "label"  # names folders in the catalog
        and not any(key == known or key.startswith(f"{known}.") for known in read)
    ]
    if unknown:
        raise SettingsError(" ".join(_sentence(key, sorted(read)) for key in unknown))


def _check_seed(seed: Any, runtime_params: dict[str, Any]) -> None:
    """Folders are named by the seed of the command line: it must be a whole number, and the one in force."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise SettingsError(f"The seed is {seed!r}, but must be a whole number from 0 to {2**32 - 1}.")
    if seed != runtime_params.get("seed", 0):
        raise SettingsError(f"Set the seed on the command line (--params=seed={seed}), not in the configuration.")


def _check_label(label: Any, runtime_params: dict[str, Any]) -> None:
    """Folders are named by the label of the command line."""
    if label != runtime_params.get("label"):
        raise SettingsError(f"Set the label on the command line (--params=label={label}), not in the configuration.")
    if label is not None and not _LABEL.fullmatch(str(label)):
        raise SettingsError(f"The label is {label!r}, but must be a name of letters, digits and _ . = - for a folder.")


def _sentence(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    top = sorted({name.split(".", 1)[0] for name in known})
    hint = f"did you mean '{near[0]}'?" if near else f"the parameters are {', '.join(top)}."
    return f"There is no parameter '{key}': {hint}"


def _keys(value: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of the leaves of nested dictionaries and dataclasses."""
    items = value.items() if isinstance(value, dict) else None
    if is_dataclass(value) and not isinstance(value, type):
        items = ((field.name, getattr(value, field.name)) for field in fields(value))
    if items is None:
        yield prefix
        return
    for name, inner in items:
        yield from _keys(inner, f"{prefix}.{name}" if prefix else str(name))
