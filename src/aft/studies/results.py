"""What the cells of a study give together: its table, and the verdict on each claim about an order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from aft.alignment.variants import BASELINE
from aft.errors import DataError, SettingsError
from aft.evaluation.assessment import accuracy_by_question
from aft.evaluation.compare import Results, Seeds, comparison_row, greedy_correctness
from aft.evaluation.predictions import sampled_accuracy
from aft.evaluation.statistics import Estimate, two_level_bootstrap
from aft.pipelines.comparisons import dataset
from aft.pipelines.evaluate.nodes import COUNTING, KINDS, alike_seeds, kept
from aft.pipelines.parameters import Evaluation
from aft.pipelines.training import seed_key
from aft.reporting.study_pages import NOTHING_TO_COMPARE, VERDICTS
from aft.studies.definition import Ordering, Study
from aft.studies.plan import Point
from aft.studies.run import Workplace

_CLAIM = ("claim", "source", "above", "below", "metric")  # what a verdict repeats of its `Ordering`


@dataclass(frozen=True)
class Trained(Results):
    """The results of one variant under one label, and how it was trained."""

    curves: Seeds = field(default_factory=dict)


Key = tuple[Any, str]  # a point's value and a variant


def load_results(place: Workplace, study: Study, points: list[Point]) -> tuple[dict[Key, Trained], Evaluation, Path]:
    """The results of every point's variants for the study's seeds, how they were evaluated, and where what follows from
    them is kept."""
    found: dict[Key, Trained] = {}
    evaluation = cache = None
    for point in points:
        catalog = place.context(point.label, study.seeds[0], point.params).catalog
        evaluation = evaluation or catalog.load("params:evaluation")
        cache = cache or Path(catalog.load("params:score_cache"))
        for variant in point.variants:
            tables = [catalog.load(dataset(variant, kind)) for kind in KINDS]
            alike = alike_seeds(variant, *tables, seed=study.seeds[0])
            missing = [seed for seed in study.seeds if seed not in alike[0]]
            if missing:
                raise DataError(
                    f"{point.label} has no {variant} of seed {missing[0]} that was made as that of seed "
                    f"{study.seeds[0]}; delete {place.shown(place.reports(point.label))} and run the study again."
                )
            predictions, groups, others = ({seed: rows[seed] for seed in study.seeds} for rows in alike)
            curves = catalog.load(dataset(variant, "training_curve"))
            trained = {seed: curves[seed_key(seed)]() for seed in study.seeds}
            found[point.value, variant] = Trained(predictions, groups, others, trained)
    return found, cast(Evaluation, evaluation), cast(Path, cache)


def study_table(results: Mapping[Key, Trained], evaluation: Evaluation, cache: Path) -> pd.DataFrame:
    """One row per point and variant: `value`, `variant`, the figures of `comparison_row`, and what training took.

    Differences are to VFT at the same point, or else at the first point that has it, or else to the variant itself.
    Rows are kept in `cache`: many studies have the same.
    """
    rows = []
    for (value, variant), own in results.items():
        at_other_points = (key for key in results if key[1] == BASELINE)
        key = (value, BASELINE) if (value, BASELINE) in results else next(at_other_points, (value, variant))
        row = _row(variant, own, results[key], evaluation, cache)
        rows.append({"value": value, "variant": variant, **row, **_took(own.curves)})
    return pd.DataFrame(rows)


def _row(variant: str, own: Results, theirs: Results, evaluation: Evaluation, cache: Path) -> dict[str, Any]:
    """`comparison_row`, kept for these tables and settings."""
    how = evaluation.ks, evaluation.level, evaluation.resamples

    def row() -> dict[str, Any]:
        (made,) = pd.DataFrame([comparison_row(variant, own, theirs, *how)]).to_dict("records")  # numbers as JSON's
        return {str(name): value for name, value in made.items()}

    tables = [(one.predictions, one.groups, one.others) for one in (own, theirs)]
    return kept(str(cache), "row of a study", (variant, tables, *how), row, *COUNTING)


def _took(curves: Seeds) -> dict[str, float]:
    """What a training took, as means over seeds: optimiser steps, tokens read (prompts and responses), and seconds.

    Seconds are those of the steps, without exams, probes and checkpoints; of one process with one thread, its
    processor's. Nothing if there are no curves.
    """
    tables = list(curves.values())
    seconds = [(one["tokens"] / one["tokens_per_s"]).sum() for one in tables]
    taken = {
        "training_steps": [len(one) for one in tables],
        "training_tokens": [one["tokens"].sum() for one in tables],
        "training_seconds": seconds,
    }
    return {name: float(np.mean(values)) for name, values in taken.items() if tables}


def verdicts(study: Study, results: Mapping[Key, Trained], evaluation: Evaluation) -> pd.DataFrame:
    """One row per claim: the difference with its paired interval over seeds and questions (see `two_level_bootstrap`),
    the interval's level, how many of how many seeds have the claimed sign, and one of `VERDICTS`, or
    `NOTHING_TO_COMPARE` where no question has the metric under both results."""
    columns = (*_CLAIM, "difference", "low", "high", "level", "seeds_agreeing", "seeds", "verdict")
    return pd.DataFrame([_verdict(one, results, evaluation) for one in study.orderings], columns=list(columns))


def _verdict(ordering: Ordering, results: Mapping[Key, Trained], evaluation: Evaluation) -> dict[str, Any]:
    measure = _measure(ordering.metric)
    above, below = (measure(_find(name, results)) for name in (ordering.above, ordering.below))
    shared = above.index.intersection(below.index)
    # One row per question, one column per seed; a seed without a question to compare under both says nothing.
    gaps = (above.loc[shared] - below.loc[shared]).dropna(axis=1, how="all")
    claim = {name: getattr(ordering, name) for name in _CLAIM}
    if gaps.empty:
        return {**claim, "level": evaluation.level, "seeds_agreeing": 0, "seeds": 0, "verdict": NOTHING_TO_COMPARE}
    difference = two_level_bootstrap(gaps.T, resamples=evaluation.resamples, level=evaluation.level)
    return {
        **claim,
        **{"difference": difference.mean, "low": difference.low, "high": difference.high, "level": evaluation.level},
        **{"seeds_agreeing": int((gaps.mean() > 0).sum()), "seeds": gaps.shape[1]},
        "verdict": _judged(difference, gaps.shape[1]),
    }


def _judged(difference: Estimate, n_seeds: int) -> str:
    """A verdict on a claim about trainings: the interval of one seed knows nothing of other trainings."""
    agrees, contradicts, not_separable, one_seed = VERDICTS
    if n_seeds == 1:
        return one_seed
    return agrees if difference.low > 0 else contradicts if difference.high < 0 else not_separable


def _find(name: str, results: Mapping[Key, Trained]) -> Results:
    named = {own if at is None else f"{own}@{at}": one for (at, own), one in results.items()}
    if name not in named:
        raise SettingsError(f"An ordering names '{name}', which is no result of its study: {', '.join(named)}.")
    return named[name]


def _measure(metric: str) -> Callable[[Results], pd.DataFrame]:
    """The function that gives a metric of each question (row) under each seed (column)."""
    if metric == "accuracy":
        return lambda one: greedy_correctness(one.predictions)
    if metric.startswith("mean_at_"):  # of all samples
        return lambda one: pd.DataFrame({seed: sampled_accuracy(rows) for seed, rows in one.predictions.items()})
    if metric == "assessment_accuracy":
        return lambda one: pd.DataFrame({seed: accuracy_by_question(rows) for seed, rows in one.groups.items()})
    if metric == "perplexity_of_positives":
        return lambda one: pd.DataFrame({seed: _perplexities(rows) for seed, rows in one.groups.items()})
    return lambda one: greedy_correctness({seed: rows[rows["set"] == metric] for seed, rows in one.others.items()})


def _perplexities(groups: pd.DataFrame) -> pd.Series:
    positives = groups[groups["is_correct"]]
    perplexities = positives.assign(perplexity=np.exp(-positives["score"]))
    return perplexities.groupby("question_id")["perplexity"].mean()
