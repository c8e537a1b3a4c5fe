"""Tuning with an equal budget: every variant has as many trials, judged on validation; its best is then tested once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from aft.errors import SettingsError
from aft.pipelines.comparisons import dataset
from aft.pipelines.training import seed_key
from aft.studies.definition import Study, Tuning
from aft.studies.plan import Cell, Params, Point, label_of, merged
from aft.studies.run import Workplace
from aft.training.selection import ACCURACY

CURVE = "training_curve"  # all that is made of a trial beside its model: no test question is asked


@dataclass(frozen=True)
class Chosen:
    """What was chosen of a variant's settings, by the accuracy of the selected epoch, mean over the trials' seeds."""

    settings: Params  # those that were tried out, by the keys of the grid
    accuracy: float
    trials: int  # trainings that it took


def trials_of(study: Study, tuning: Tuning, recipe: str) -> list[Point]:
    """The points at which a study's variants are tuned: one for each variant and setting, which is its value."""
    return [_point(study, name, settings, recipe) for name in study.variants for settings in tuning.settings(name)]


def trial_cells(trials: Sequence[Point], tuning: Tuning) -> list[Cell]:
    """The cells of these trials, which make nothing but models and their curves."""
    return merged(
        Cell(point.label, point.params, seed, point.variants, CURVE) for point in trials for seed in tuning.seeds
    )


def check_selects(study: Study, place: Workplace, trials: Sequence[Point]) -> None:
    """Raise `SettingsError` unless a trial selects its epoch on validation, by which it is judged."""
    if place.context(trials[0].label, study.seeds[0], trials[0].params).params["training"].select != "validation":
        raise SettingsError(
            f"The study '{study.title}' is tuned by validation: set training.select to validation in its params."
        )


def choose(place: Workplace, study: Study, trials: Sequence[Point], tuning: Tuning) -> dict[str, Chosen]:
    """Of each variant the best setting, of equals the earlier one of the grid; the trials' curves must be there."""
    found: dict[str, list[Chosen]] = {name: [] for name in study.variants}
    for point in trials:
        (variant,) = point.variants
        chosen = selected(place, point, variant, tuning.seeds)
        mean = sum(row[ACCURACY] for row in chosen) / len(chosen)
        found[variant].append(Chosen(point.value, mean, len(tuning.settings(variant)) * len(tuning.seeds)))
    return {name: max(tried, key=lambda one: one.accuracy) for name, tried in found.items()}


def selected(place: Workplace, point: Point, variant: str, seeds: Sequence[int]) -> list[pd.Series]:
    """The curve's row of the epoch that became the variant's model, for each seed."""
    curves = place.context(point.label, seeds[0], point.params).catalog.load(dataset(variant, CURVE))
    tables = [curves[seed_key(seed)]() for seed in seeds]
    if any(table.empty for table in tables):
        raise SettingsError(f"{variant} is not trained, so that nothing of it can be tuned; leave it out of the study.")
    return [table.loc[table[ACCURACY].idxmax()] for table in tables]


def final_points(study: Study, chosen: dict[str, Chosen], recipe: str) -> list[Point]:
    """The points at which each variant is tested, under its own settings."""
    return [replace(_point(study, name, one.settings, recipe), value=None) for name, one in chosen.items()]


def tuned_columns(
    place: Workplace, study: Study, chosen: dict[str, Chosen], points: Sequence[Point]
) -> dict[str, list[str | float]]:
    """Columns of the study's table: what was chosen, the epochs of the tested models by seed, accuracy and trials."""
    rows = [selected(place, point, name, study.seeds) for name, point in zip(chosen, points, strict=True)]
    return {
        "chosen": [", ".join(f"{_short(k)} {_number(v)}" for k, v in one.settings.items()) for one in chosen.values()],
        "epochs": [" ".join(f"{row['epoch']:.3g}" for row in own) for own in rows],
        "trial_accuracy": [one.accuracy for one in chosen.values()],
        "trials": [one.trials for one in chosen.values()],
    }


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _short(key: str) -> str:
    return key.removeprefix("training.").removeprefix("objective.")


def _point(study: Study, variant: str, settings: Params, recipe: str) -> Point:
    """A variant under settings of its grid, in which `objective.` is the variant's."""
    full = {f"align.{variant}.{k}" if k.startswith("objective.") else k: value for k, value in settings.items()}
    params = study.params | full
    return Point(settings, label_of(recipe, params), params, (variant,))
