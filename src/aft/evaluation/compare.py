"""Which variant reasons better: all seeds that are there, the same test questions, paired."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from aft.errors import DataError
from aft.evaluation.assessment import accuracy_by_question
from aft.evaluation.predictions import GREEDY, measure
from aft.evaluation.statistics import (
    bootstrap_interval,
    mcnemar_exact,
    mean_std,
    paired_bootstrap,
    wilson_interval,
)

Seeds = Mapping[int, pd.DataFrame]  # tables of one variant, by seed


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
) -> pd.DataFrame:
    """One row per variant: every figure as a mean over its seeds, with intervals, and the difference to `baseline`.

    The interval of an accuracy is Wilson's for one seed; for several it is a bootstrap over questions of each
    question's mean over seeds. Differences are paired by question over the seeds that both variants have.
    """
    correct = {variant: greedy_correctness(seeds) for variant, seeds in predictions.items()}
    rows = []
    for variant, seeds in predictions.items():
        figures = [measure(seeds[seed], groups[variant][seed], ks) for seed in seeds]
        accuracy, std = mean_std([one["accuracy"] for one in figures])
        low, high = _interval(correct[variant], level, resamples)
        names = [name for name in figures[0] if not name.endswith(("_low", "_high"))]  # ends of one seed's interval
        means = {name: float(np.mean([one[name] for one in figures])) for name in names}
        row = {"variant": variant, "seeds": " ".join(map(str, seeds)), "questions": len(correct[variant])}
        row |= {"accuracy": accuracy, "low": low, "high": high, "std_over_seeds": std}
        row |= _difference(correct[variant], correct[baseline], level, resamples)
        row |= {name: value for name, value in means.items() if name not in row}
        row |= _assessment_interval(groups[variant], level, resamples)
        row["per_seed"] = " ".join(f"{one['accuracy']:.4f}" for one in figures)
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
