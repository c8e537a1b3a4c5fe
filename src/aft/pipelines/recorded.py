"""The parameters that a record of a run may show: an allow-list, without credentials and folders."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aft.nested import leaves

RECORDED = (
    *("seed", "label", "task", "test_sets", "base_model", "training", "launch", "sample_from", "sampling", "sampler"),
    *("candidates_from", "labelling", "evaluation"),
)
"""The parameters that are recorded, by their first key; all others stay out, whatever they hold."""

_LONGEST_VALUE = 6000  # MLflow's limit, in characters


def recorded_parameters(parameters: Mapping[str, Any], variant: str | None = None) -> dict[str, str]:
    """The parameters on the allow-list `RECORDED` and the variant's objective, flattened: dotted key to text.

    Of a path only the last component is shown, and no value is longer than MLflow takes.
    """
    chosen = {key: parameters[key] for key in RECORDED if key in parameters}
    if variant is not None:
        chosen |= {"objective": parameters.get("align", {}).get(variant, {}).get("objective", {})}
    return {key: _text(value)[:_LONGEST_VALUE] for key, value in leaves(chosen) if value != {}}


def without_credentials(text: str) -> str:
    """`text` with every URL cut to scheme, host and path: no user, password or token."""
    return re.sub(r"(?<=://)(?!/)(?:\S*@)?([^\s?]*)(?:\?\S*)?", r"\1", text)  # a path after :// has no user


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value)
    if isinstance(value, Path) or (isinstance(value, str) and _is_path(value)):
        return Path(value).name
    return without_credentials(str(value))


def _is_path(text: str) -> bool:
    """Whether `text` is a path and not a model's name on the hub, which has the same form as a relative one."""
    if text.startswith(("/", "~", "./", "../", "file:")):
        return True
    try:
        return Path(text).exists()
    except OSError:  # a text that is longer than a file's name may be
        return False
