"""Which variant reasons better: all seeds that are there, the same test questions, paired."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from aft.errors import DataError, SettingsError
from aft.evaluation.assessment import accuracy_by_question
from aft.evaluation.predictions import GREEDY, greedy_by_set, measure
from aft.evaluation.statistics import (
    bootstrap_interval,
    mcnemar_exact,
    mean_std,
    paired_bootstrap,
    wilson_interval,
)

Seeds = Mapping[int, pd.DataFrame]  # tables of one variant, by seed
_SEED_ENDS = {"accuracy_low", "accuracy_high", "assessment_accuracy_low", "assessment_accuracy_high"}


def greedy_correctness(predictions: Seeds) -> pd.DataFrame:
    """Whether each question (row) was answered right under each seed (column), greedily.

    Raises `DataError` if the seeds do not have the same questions.
    """
    columns = {
        seed: rows[rows["sample_index"] == GREEDY].set_index("question_id")["is_correct"].astype(float)
        for seed, rows in predictions.items()
    }
    table = pd.DataFrame(columns).sort_index()
    if table.isna().any(axis=None):
        raise DataError("The seeds were evaluated on different test questions; run evaluate again for each seed.")
    return table


def comparison_table(
    predictions: Mapping[str, Seeds],
    groups: Mapping[str, Seeds],
    ks: list[int],
    baseline: str,
    level: float,
    resamples: int,
    others: Mapping[str, Seeds] | None = None,
) -> pd.DataFrame:
    """One row per variant: every figure as a mean over its seeds, with intervals, and the difference to `baseline`.

    The interval of an accuracy is Wilson's for one seed; for several it is a bootstrap over questions of each
    question's mean over seeds. Differences are paired by question over the seeds that both variants have.

    `others` holds predictions for other question sets (see `measure`). Each set adds `accuracy_{set}`, its interval
    `{set}_low` and `{set}_high`, and `{set}_difference` to the baseline with `{set}_difference_low` and `_high`.

    Raises `DataError` if seeds or variants do not have the same questions in every set, `SettingsError` if the name of
    a set makes a column that is there already.
    """
    if others is not None:
        _check_others(predictions, others)
    correct = {variant: greedy_correctness(seeds) for variant, seeds in predictions.items()}
    correct_in_sets = {variant: _correctness_by_set(seeds) for variant, seeds in (others or {}).items()}
    rows = []
    for variant, seeds in predictions.items():
        own_others = others[variant] if others is not None else {}
        figures = [measure(seeds[seed], groups[variant][seed], ks, others=own_others.get(seed)) for seed in seeds]
        row = {"variant": variant, "seeds": " ".join(map(str, seeds)), "questions": len(correct[variant])}
        row |= _accuracy(figures, correct[variant], level, resamples)
        row |= _difference(correct[variant], correct[baseline], level, resamples)
        row |= {name: value for name, value in _means(figures).items() if name not in row}
        row |= _assessment_interval(groups[variant], level, resamples)
        row["per_seed"] = " ".join(f"{one['accuracy']:.4f}" for one in figures)
        for name, own in correct_in_sets.get(variant, {}).items():
            _add_set(row, name, own, correct_in_sets[baseline][name], level, resamples)
        rows.append(row)
    return pd.DataFrame(rows)


def paired_differences(predictions: Mapping[str, Seeds], level: float, resamples: int) -> pd.DataFrame:
    """The difference in greedy accuracy between every two variants, its paired interval and exact McNemar tests."""
    correct = {variant: greedy_correctness(seeds) for variant, seeds in predictions.items()}
    names = list(correct)
    return pd.DataFrame(
        [
            {"variant": one, "other": other} | _difference(correct[one], correct[other], level, resamples)
            for i, other in enumerate(names)
            for one in names[i + 1 :]
        ]
    )


def _accuracy(figures: list[dict[str, float]], correct: pd.DataFrame, level: float, resamples: int) -> dict[str, float]:
    """Mean accuracy over seeds, its interval, and its standard deviation over seeds."""
    accuracy, std = mean_std([one["accuracy"] for one in figures])
    low, high = _interval(correct, level, resamples)
    return {"accuracy": accuracy, "low": low, "high": high, "std_over_seeds": std}


def _means(figures: list[dict[str, float]]) -> dict[str, float]:
    """Every figure's mean over seeds, but for the ends of one seed's intervals, whose means are no interval."""
    return {name: float(np.mean([one[name] for one in figures])) for name in figures[0] if name not in _SEED_ENDS}


def _check_others(predictions: Mapping[str, Seeds], others: Mapping[str, Seeds]) -> None:
    """Every variant has answered the same other sets, under each of the seeds that are compared."""
    sets = {
        variant: [{name for name, _ in greedy_by_set(rows)} for rows in seeds.values()]
        for variant, seeds in others.items()
    }
    first = next((names for of_seeds in sets.values() for names in of_seeds), set())
    for variant, seeds in predictions.items():
        if others.get(variant, {}).keys() != seeds.keys() or any(names != first for names in sets[variant]):
            raise DataError(
                f"{variant} was not evaluated on the same other question sets under every seed; run evaluate again."
            )


def _correctness_by_set(seeds: Seeds) -> dict[str, pd.DataFrame]:
    """`greedy_correctness` of each other question set."""
    by_set: dict[str, dict[int, pd.DataFrame]] = {}
    for seed, rows in seeds.items():
        for name, own in greedy_by_set(rows):
            by_set.setdefault(name, {})[seed] = own
    return {name: greedy_correctness(own) for name, own in by_set.items()}


def _add_set(
    row: dict[str, Any], name: str, correct: pd.DataFrame, baseline: pd.DataFrame, level: float, resamples: int
) -> None:
    """Add to the row the interval of the accuracy in one other set, and of its difference to the baseline's."""
    low, high = _interval(correct, level, resamples)
    difference = _difference(correct, baseline, level, resamples)
    columns = {f"{name}_low": low, f"{name}_high": high}
    columns |= {f"{name}_{end}": difference[end] for end in ("difference", "difference_low", "difference_high")}
    taken = columns.keys() & row.keys()
    if taken:
        raise SettingsError(f"A question set cannot be called {name!r}, {min(taken)} is taken; rename it.")
    row |= columns


def _assessment_interval(groups: Seeds, level: float, resamples: int) -> dict[str, float]:
    """Ends of the interval of the macro assessment accuracy: a bootstrap over questions of their means over seeds."""
    by_question = pd.concat([accuracy_by_question(rows) for rows in groups.values()]).groupby(level=0).mean()
    ends = bootstrap_interval(by_question, resamples=resamples, level=level) if len(by_question) else (np.nan, np.nan)
    return {"assessment_low": ends[0], "assessment_high": ends[1]}


def _interval(correct: pd.DataFrame, level: float, resamples: int) -> tuple[float, float]:
    if correct.shape[1] == 1:
        return wilson_interval(int(correct.to_numpy().sum()), len(correct), level)
    return bootstrap_interval(correct.mean(axis=1), resamples=resamples, level=level)


def _difference(
    correct: pd.DataFrame, other: pd.DataFrame, level: float, resamples: int
) -> dict[str, float | str | int]:
    shared = [seed for seed in correct.columns if seed in other.columns]
    if not shared:
        raise DataError("Two variants have no seed in common; run align_train and evaluate for the same seeds.")
    if not correct.index.equals(other.index):
        raise DataError("Two variants were evaluated on different test questions; run evaluate again.")
    one, two = correct[shared], other[shared]
    difference = paired_bootstrap((one - two).mean(axis=1), resamples=resamples, level=level)
    p_values = [mcnemar_exact(one[seed] > 0, two[seed] > 0) for seed in shared]
    return {
        "difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "mcnemar_p": " ".join(f"{p:.2g}" for p in p_values),
        "shared_seeds": len(shared),
    }
