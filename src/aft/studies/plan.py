"""Which runs a study needs: a cell is one run of the recipe under one seed, in a folder that its settings name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from aft.files import digest
from aft.studies.definition import Study

Params = dict[str, Any]  # settings that differ from the recipe's, by dotted keys
_SAFE = re.compile(r"-?[A-Za-z0-9_][A-Za-z0-9_.-]{0,23}")
_LONGEST = 79  # characters of a label


@dataclass(frozen=True)
class Point:
    """One place of a study: some variants under some settings, whose results lie under `label`."""

    value: Any  # of the sweep, or the number of the round; None where nothing is swept
    label: str
    params: Params
    variants: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One run: settings, a seed, and the variants that are wanted of it."""

    label: str
    params: Params = field(hash=False)
    seed: int
    variants: tuple[str, ...]
    wanted: str = "metrics"  # what is made of each, and all that this needs


def points_of(study: Study, recipe: str, data: str) -> list[Point]:
    """The points of a study, in an order in which they can be run; equal settings have one label in all studies."""

    def point(value: Any, params: Params, variants: list[str]) -> Point:
        return Point(value, label_of(recipe, params), params, tuple(variants))

    if study.sweep is not None:
        outside = [point(None, study.params, study.baselines)] if study.baselines else []
        key = study.sweep.parameter
        return outside + [point(value, {**study.params, key: value}, study.variants) for value in study.sweep.values]
    if study.rounds is None:
        return [point(None, study.params, study.variants)]
    points = [point(1, study.params, study.variants)]
    for number in range(2, study.n_rounds + 1):
        sampler = f"{data}/06_models/{points[-1].label}/seed_{{seed}}/{study.rounds}"
        points.append(point(number, {**study.params, "sample_from": sampler}, [study.rounds]))
    return points


def batches_of(studies: Iterable[tuple[Study, list[Point]]]) -> list[list[Cell]]:
    """The cells of some studies, each once; those of a batch can run at once, a round follows another.

    Cells of one seed stand together: neighbours then seldom wait for one base model that both need.
    """
    batches: list[list[Cell]] = []
    for study, points in studies:
        for place, point in enumerate(points):
            number = place if study.rounds is not None else 0
            batches += [[] for _ in range(number + 1 - len(batches))]
            batches[number] += [Cell(point.label, point.params, seed, point.variants) for seed in study.seeds]
    return [merged(batch) for batch in batches]


def merged(cells: Iterable[Cell]) -> list[Cell]:
    """The cells, of one label and seed a single one that makes all variants that are wanted of any; seed by seed."""
    found: dict[tuple[str, int], Cell] = {}
    for cell in cells:
        known = found.setdefault((cell.label, cell.seed), cell)
        found[cell.label, cell.seed] = replace(known, variants=tuple(dict.fromkeys((*known.variants, *cell.variants))))
    return sorted(found.values(), key=lambda cell: cell.seed)


def label_of(recipe: str, params: Params) -> str:
    """The folder of a run with these settings, beside the recipe's own, which runs of other settings may overwrite."""
    label = f"{recipe}.study" + "".join(f".{_short(key)}={_told(params[key])}" for key in sorted(params))
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 9]}.{digest(label)[:8]}"


def nested(params: Params) -> Params:
    """Dotted keys as nested dictionaries, as Kedro takes them."""
    tree: Params = {}
    for key, value in params.items():
        *path, last = key.split(".")
        place = tree
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return tree


def _short(key: str) -> str:
    return key.removeprefix("align.").replace(".objective.", ".")


def _told(value: Any) -> str:
    text = str(value)
    return text if isinstance(value, int | float | str) and _SAFE.fullmatch(text) else digest(value)[:8]
