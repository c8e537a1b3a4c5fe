"""The comparison of variants: differences paired by test question and seed, over all common seeds."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from aft.errors import DataError, SettingsError
from aft.evaluation.assessment import accuracy_by_question
from aft.evaluation.predictions import GREEDY, greedy_by_set, measure, sampled_accuracy, samples_per_question
from aft.evaluation.statistics import mcnemar_exact, mean_std, two_level_bootstrap, wilson_interval

Seeds = Mapping[int, pd.DataFrame]  # tables of one variant, by seed
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

    The interval of an accuracy is Wilson's for one seed; for several it is a bootstrap over seeds and questions (see
    `two_level_bootstrap`), as those of mean@k and assessment accuracy are, over the seeds and questions that have one.
    Differences are paired by question and seed, over the seeds that both variants have, which `shared_seeds` names; all
    else is over the variant's own `seeds`.

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
        row |= _accuracy(correct[variant], level, resamples)
        row |= _difference(correct[variant], correct[baseline], level, resamples)
        row |= _means(figures) | _mean_at_k(seeds, level, resamples)
        row |= _assessment(groups[variant], level, resamples)
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
