"""The configured variants and comparisons, and the names of their namespaces and datasets."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from aft.alignment.variants import BASELINE, Variant
from aft.checked import read
from aft.errors import SettingsError
from aft.pipelines.faults import faults
from aft.pipelines.parameters import AlignedVariant

SHAPING = ("align", "comparisons", "compare")
"""The parameters that decide which pipelines there are."""

_NAME = re.compile(r"[A-Za-z0-9_]{1,60}")
_COMPARE = "compare"  # the namespace of all comparisons, among those of the variants
_FOLDERS = re.compile(r"seed_[0-9]+|training_curves|studies")  # what lies beside the folders of the comparisons
_METRICS = re.compile(rf"(?:({BASELINE})_|align\.([^.]+)\.)metrics")


@dataclass(frozen=True)
class Plan:
    """What the pipelines are made for."""

    variants: tuple[str, ...]  # all but the baseline, in the order of the configuration
    comparisons: tuple[tuple[str, tuple[str, ...]], ...]  # name, and the variants with the baseline first
    compare: str  # the comparison that a plain run makes

    @property
    def compared(self) -> tuple[str, ...]:
        """The variants of a plain run."""
        return dict(self.comparisons)[self.compare]


def plan_of(parameters: Mapping[str, Any], taken: Collection[str]) -> Plan:
    """The plan in the parameters; a comparison can have no name that is `taken` by another pipeline.

    Raises `SettingsError` naming what is unknown or cannot be called so, and the nearest known name.
    """
    found = faults({key: parameters.get(key) for key in SHAPING})
    if found:
        raise SettingsError(" ".join(found))
    variants, comparisons, compare = (parameters[key] for key in SHAPING)
    for what, names in {"variant": variants, "comparison": comparisons}.items():
        for name in names:
            if not _NAME.fullmatch(name) or (what == "variant" and name == _COMPARE):
                raise SettingsError(
                    f"A {what} cannot be called '{name}': it names a folder and a namespace, in letters, digits and _, "
                    f"and '{_COMPARE}' is that of all comparisons."
                )
            if what == "comparison" and (name in taken or _FOLDERS.fullmatch(name)):
                raise SettingsError(f"A comparison cannot be called '{name}', which is taken; rename it.")
    for name, compared in comparisons.items():
        unknown = [one for one in compared if one not in variants]
        if unknown:
            raise SettingsError(f"The comparison '{name}' names '{unknown[0]}': {_nearest(unknown[0], variants)}")
        if not set(compared) - {BASELINE}:
            raise SettingsError(f"The comparison '{name}' names no variant beside {BASELINE}.")
    if compare not in comparisons:
        raise SettingsError(f"compare is '{compare}', which is no comparison: {_nearest(compare, comparisons)}")
    return Plan(
        tuple(name for name in variants if name != BASELINE),
        tuple((name, tuple(dict.fromkeys((BASELINE, *compared)))) for name, compared in comparisons.items()),
        compare,
    )


def variants_of(align: Mapping[str, Any]) -> dict[str, Variant]:
    """The variants of the parameter `align`, as it is configured or as Kedro has checked it."""
    return dict(read(dict[str, AlignedVariant], align, "align"))


def namespace(variant: str) -> str:
    """Where a variant's nodes live; the baseline comes before all others, and has one of its own."""
    return BASELINE if variant == BASELINE else f"align.{variant}"


def dataset(variant: str, kind: str) -> str:
    """A variant's dataset, such as its model; those of the baseline have no dot, since other namespaces read them."""
    return f"{BASELINE}_{kind}" if variant == BASELINE else f"{namespace(variant)}.{kind}"


def measured(dataset_name: str) -> str | None:
    """The variant whose figures a dataset holds, if it holds any."""
    found = _METRICS.fullmatch(dataset_name)
    return found and (found[1] or found[2])


def space_of_comparison(name: str) -> str:
    """Where a comparison's nodes and datasets live: beside the variants, whose datasets it reads."""
    return f"align.{_COMPARE}.{name}"


def comparison_of(space: str) -> str | None:
    """The comparison whose nodes live in a namespace, if it is one of a comparison's."""
    before = space_of_comparison("")
    return space.removeprefix(before) if space.startswith(before) else None


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}."
