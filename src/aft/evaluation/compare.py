"""The comparison of variants: differences paired by test question and seed, over all common seeds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from aft.errors import DataError, SettingsError
from aft.evaluation.assessment import accuracy_by_question
from aft.evaluation.predictions import GREEDY, greedy_by_set, measure, sampled_accuracy, samples_per_question
from aft.evaluation.statistics import mcnemar_exact, mean_std, two_level_bootstrap, wilson_interval

Seeds = dict[int, pd.DataFrame]  # tables of one variant, by seed
_SEED_END = re.compile(r"(accuracy|assessment_accuracy|mean_at_[0-9]+)_(low|high)")


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


@dataclass(frozen=True)
class Results:
    """A variant's tables by seed: predictions, scored held-out groups, and predictions for other sets (`measure`)."""

    predictions: Seeds
    groups: Seeds
    others: Seeds = field(default_factory=dict)


def comparison_table(
    results: Mapping[str, Results], ks: list[int], baseline: str, level: float, resamples: int
) -> pd.DataFrame:
    """One row per variant, by its name in `results`: see `comparison_row`."""
    rows = [
        {"variant": name, **comparison_row(name, own, results[baseline], ks, level, resamples)}
        for name, own in results.items()
    ]
    return pd.DataFrame(rows)


def comparison_row(
    name: str, own: Results, baseline: Results, ks: list[int], level: float, resamples: int
) -> dict[str, Any]:
    """Every figure of a variant as a mean over its seeds, with intervals, and its difference to the baseline.

    The interval of an accuracy is Wilson's for one seed; for several it is a bootstrap over seeds and questions (see
    `two_level_bootstrap`), as those of mean@k and assessment accuracy are, over the seeds and questions that have one.
    Differences are paired by question and seed, over the seeds that both have, which `shared_seeds` names; all else is
    over the variant's own `seeds`. Each other question set adds `accuracy_{set}`, its interval `{set}_low` and
    `{set}_high`, and `{set}_difference` to the baseline with `{set}_difference_low` and `_high`.

    Raises `DataError`, with the variant's `name`, if seeds or the two do not have the same questions in every set,
    `SettingsError` if the name of a set makes a column that is there already.
    """
    _check_others(name, own, baseline)
    correct, theirs = greedy_correctness(own.predictions), greedy_correctness(baseline.predictions)
    figures = [  # without the intervals of single seeds, which `_means` leaves out
        measure(rows, own.groups[seed], ks, others=own.others.get(seed), resamples=1)
        for seed, rows in own.predictions.items()
    ]
    row: dict[str, Any] = {"seeds": " ".join(map(str, own.predictions)), "questions": len(correct)}
    row |= _accuracy(correct, level, resamples)
    row |= _difference(correct, theirs, level, resamples)
    row |= _means(figures) | _mean_at_k(own.predictions, level, resamples)
    row |= _assessment(own.groups, level, resamples)
    row["per_seed"] = " ".join(f"{one['accuracy']:.4f}" for one in figures)
    theirs_in_sets = _correctness_by_set(baseline.others)
    for one, in_set in _correctness_by_set(own.others).items():
        _add_set(row, one, in_set, theirs_in_sets[one], level, resamples)
    return row


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


def _accuracy(correct: pd.DataFrame, level: float, resamples: int) -> dict[str, float]:
    """Mean accuracy over seeds, its interval, and its standard deviation over seeds."""
    accuracy, std = mean_std(correct.mean())
    low, high = _interval(correct, level, resamples)
    return {"accuracy": accuracy, "low": low, "high": high, "std_over_seeds": std}


def _means(figures: list[dict[str, float]]) -> dict[str, float]:
    """Every figure's mean over seeds, but for the ends of one seed's intervals, whose means are no interval."""
    return {
        name: float(np.mean([one[name] for one in figures])) for name in figures[0] if not _SEED_END.fullmatch(name)
    }


def _check_others(name: str, own: Results, baseline: Results) -> None:
    """Both have answered the same other sets, under each of their seeds."""
    sets = {frozenset(one for one, _ in greedy_by_set(rows)) for its in (own, baseline) for rows in its.others.values()}
    if len(sets) > 1 or any(its.others.keys() != its.predictions.keys() for its in (own, baseline) if sets):
        raise DataError(
            f"{name} was not evaluated on the same other question sets under every seed; run evaluate again."
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


def _mean_at_k(predictions: Seeds, level: float, resamples: int) -> dict[str, float]:
    """mean@k of all k samples, with the ends of its interval over seeds and questions; nothing without samples."""
    shares = pd.DataFrame({seed: sampled_accuracy(rows) for seed, rows in predictions.items()})
    if shares.empty:
        return {}
    name = f"mean_at_{max(map(samples_per_question, predictions.values()))}"
    mean, low, high = two_level_bootstrap(shares.T, resamples=resamples, level=level)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _assessment(groups: Seeds, level: float, resamples: int) -> dict[str, float]:
    """Macro assessment accuracy with the ends of its interval, all over the same seeds and questions."""
    by_question = pd.DataFrame({seed: accuracy_by_question(rows) for seed, rows in groups.items()})
    if by_question.empty:
        return dict.fromkeys(("assessment_accuracy", "assessment_low", "assessment_high"), float("nan"))
    mean, low, high = two_level_bootstrap(by_question.T, resamples=resamples, level=level)
    return {"assessment_accuracy": mean, "assessment_low": low, "assessment_high": high}


def _interval(correct: pd.DataFrame, level: float, resamples: int) -> tuple[float, float]:
    if correct.shape[1] == 1:
        return wilson_interval(int(correct.to_numpy().sum()), len(correct), level)
    _, low, high = two_level_bootstrap(correct.T, resamples=resamples, level=level)
    return low, high


def _difference(correct: pd.DataFrame, other: pd.DataFrame, level: float, resamples: int) -> dict[str, float | str]:
    shared = [seed for seed in correct.columns if seed in other.columns]
    if not shared:
        raise DataError("Two variants have no seed in common; run align_train and evaluate for the same seeds.")
    if not correct.index.equals(other.index):
        raise DataError("Two variants were evaluated on different test questions; run evaluate again.")
    one, two = correct[shared], other[shared]
    difference = two_level_bootstrap((one - two).T, resamples=resamples, level=level)
    p_values = [mcnemar_exact(one[seed], two[seed]) for seed in shared]
    return {
        "difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "mcnemar_p": " ".join(f"{p:.2g}" for p in p_values),
        "shared_seeds": " ".join(map(str, shared)),
    }
