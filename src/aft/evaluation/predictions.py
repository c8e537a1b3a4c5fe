"""A variant's predictions on the test questions, and its metrics."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from aft.errors import SettingsError
from aft.evaluation.assessment import (
    assessment_accuracy,
    check_finite,
    paper_assessment_accuracy,
    perplexity_of_positives,
    rows_by_question,
)
from aft.evaluation.calibration import auroc, expected_calibration_error, reliability
from aft.evaluation.statistics import best_of_k, bootstrap_interval, maj_at_k, pass_at_k, wilson_interval

GREEDY = -1
PREDICTION_COLUMNS = ("question_id", "sample_index", "response", "extracted_answer", "is_correct", "score")


def predictions(labelled: pd.DataFrame, asked: Iterable[str] = ()) -> pd.DataFrame:
    """`PREDICTION_COLUMNS` of labelled generations; the score is the mean token log-probability under the writer.

    A question that was `asked` and has no response has one row, a wrong greedy answer without response and score.
    """
    scores = labelled["sum_logprob"] / labelled["n_tokens"]
    table = labelled.assign(score=scores)[list(PREDICTION_COLUMNS)].reset_index(drop=True)
    answered = set(labelled["question_id"])
    unanswered = [question_id for question_id in asked if question_id not in answered]
    if not unanswered:
        return table
    wrong = pd.DataFrame({"question_id": unanswered, "sample_index": GREEDY, "is_correct": False})
    rows = wrong.reindex(columns=list(PREDICTION_COLUMNS)).astype(table.dtypes.to_dict())
    return pd.concat([table, rows], ignore_index=True)


def measure(
    rows: pd.DataFrame,
    scored_groups: pd.DataFrame,
    ks: list[int],
    level: float = 0.95,
    others: pd.DataFrame | None = None,
    resamples: int = 10_000,
) -> dict[str, float]:
    """All figures of one variant and seed, by name: shares in [0, 1], perplexity, and numbers of questions.

    `rows` are predictions, `scored_groups` the held-out groups with this variant's scores, `others` predictions for
    other question sets, named by a column `set`: each set adds `accuracy_{set}`, of its greedy answers. mean@k is of
    all k samples of each question. maj@k, pass@k and best-of-k are of the samples, and so are AUROC and calibration
    error, which judge the scores that the writer gave them; both are NaN without samples. A question without a
    response, whose greedy row has no score, is wrong in all of them but the last two, which it does not touch. `level`
    and `resamples` are those of every interval.

    Raises `SettingsError` if a k is larger than the number of samples or a set has the name of another figure,
    `NumericalError`, with the questions' ids, if a score is not finite.
    """
    greedy = rows[rows["sample_index"] == GREEDY]
    correct = int(greedy["is_correct"].sum())
    low, high = wilson_interval(correct, len(greedy), level)
    figures = {"accuracy": correct / len(greedy), "accuracy_low": low, "accuracy_high": high}
    figures["parse_failures"] = float(greedy["extracted_answer"].isna().mean())
    unanswered = int(greedy["score"].isna().sum())
    figures["questions_without_response"] = unanswered
    sampled = rows[rows["sample_index"] != GREEDY]
    if ks and sampled.empty:
        raise SettingsError(
            "maj@k, pass@k and best-of-k need samples: set evaluation.sampling.samples to at least the largest k."
        )
    check_finite(sampled)
    figures |= _of_all_samples(rows, level, resamples)
    figures |= _of_k_samples(sampled, ks, unanswered) | _of_own_scores(sampled)
    figures |= _of_groups(scored_groups, level, resamples)
    for name, own in greedy_by_set(others):
        if f"accuracy_{name}" in figures:
            raise SettingsError(f"A question set cannot be called {name!r}, accuracy_{name} is taken; rename it.")
        figures[f"accuracy_{name}"] = float(own["is_correct"].mean())
    return figures


def greedy_by_set(others: pd.DataFrame | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """The greedy answers to each other question set with its name, in the order in which the sets appear."""
    if others is not None:
        greedy = others[others["sample_index"] == GREEDY]
        for name in greedy["set"].unique():
            yield str(name), greedy[greedy["set"] == name]


def sampled_accuracy(rows: pd.DataFrame) -> pd.Series:
    """Of each question, the share of its samples that are right: 0 without a response; nothing if none has samples."""
    is_greedy = rows["sample_index"] == GREEDY
    shares = rows[~is_greedy].groupby("question_id")["is_correct"].mean().astype(float)
    unanswered = rows.loc[is_greedy & rows["score"].isna(), "question_id"]
    return shares if shares.empty else shares.reindex(sorted({*shares.index, *unanswered}), fill_value=0.0)


def samples_per_question(rows: pd.DataFrame) -> int:
    """The k of mean@k: how many samples a question has, at most."""
    return int((rows["sample_index"] != GREEDY).groupby(rows["question_id"]).sum().max())


def _of_all_samples(rows: pd.DataFrame, level: float, resamples: int) -> dict[str, float]:
    """mean@k of all k samples: the accuracy of a sample, as a mean over questions, with its interval."""
    shares, name = sampled_accuracy(rows), f"mean_at_{samples_per_question(rows)}"
    if shares.empty:
        return {}
    low, high = bootstrap_interval(shares, level=level, resamples=resamples)
    return {name: float(shares.mean()), f"{name}_low": low, f"{name}_high": high}


def _of_k_samples(sampled: pd.DataFrame, ks: list[int], unanswered: int) -> dict[str, float]:
    """maj@k, pass@k and best-of-k: means over questions of the expectation over k of a question's samples.

    So many questions more are `unanswered`, which is 0 in each.
    """
    answers, scores = (sampled[name].to_numpy(dtype=object) for name in ("extracted_answer", "score"))
    is_correct = sampled["is_correct"].to_numpy(dtype=bool)
    by_question = [
        (answers[places].tolist(), scores[places].tolist(), is_correct[places].tolist())
        for places in rows_by_question(sampled["question_id"])
    ]
    none = [0.0] * unanswered
    figures = {}
    for k in ks:
        majority = [maj_at_k(given, right, k) for given, _, right in by_question]
        passed = [pass_at_k(len(right), sum(right), k) for _, _, right in by_question]
        best = [best_of_k(score, right, k) for _, score, right in by_question]
        for name, values in (("maj_at", majority), ("pass_at", passed), ("best_of", best)):
            figures[f"{name}_{k}"] = float(np.mean(values + none))
    return figures


def _of_own_scores(sampled: pd.DataFrame) -> dict[str, float]:
    """What the scores of the samples, under their writer, say of their being right."""
    scores, is_correct = sampled["score"], sampled["is_correct"]
    return {
        "auroc": auroc(scores, is_correct),
        "calibration_error": expected_calibration_error(reliability(scores, is_correct)),
    }


def _of_groups(scored_groups: pd.DataFrame, level: float, resamples: int) -> dict[str, float]:
    """Assessment accuracy, ours and the paper's, and perplexity of positives."""
    ours = assessment_accuracy(scored_groups, level=level, resamples=resamples)
    papers = paper_assessment_accuracy(scored_groups)
    return {
        "assessment_accuracy": ours.macro,
        "assessment_accuracy_low": ours.low,
        "assessment_accuracy_high": ours.high,
        "assessment_accuracy_micro": ours.micro,
        "assessment_questions": ours.n_questions,
        "paper_assessment_accuracy": papers.accuracy,
        "paper_assessment_questions": papers.n_questions,
        "perplexity_of_positives": perplexity_of_positives(scored_groups),
    }
