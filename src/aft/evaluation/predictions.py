"""What a variant answered to the test questions, and all that is measured of it."""

import numpy as np
import pandas as pd

from aft.errors import SettingsError
from aft.evaluation.assessment import (
    assessment_accuracy,
    paper_assessment_accuracy,
    perplexity_of_positives,
    rows_by_question,
)
from aft.evaluation.statistics import maj_at_k, pass_at_k, wilson_interval

GREEDY = -1
PREDICTION_COLUMNS = ("question_id", "sample_index", "response", "extracted_answer", "is_correct", "score")


def predictions(labelled: pd.DataFrame) -> pd.DataFrame:
    """`PREDICTION_COLUMNS` of labelled generations; the score is the mean token log-probability under the writer."""
    scores = labelled["sum_logprob"] / labelled["n_tokens"]
    return labelled.assign(score=scores)[list(PREDICTION_COLUMNS)].reset_index(drop=True)


def measure(rows: pd.DataFrame, scored_groups: pd.DataFrame, ks: list[int], level: float = 0.95) -> dict[str, float]:
    """All figures of one variant and seed: accuracy, maj@k, pass@k, assessment accuracy, perplexity of positives.

    `rows` are predictions, `scored_groups` the held-out groups with this variant's scores. Raises `SettingsError` if a
    k is larger than the number of samples.
    """
    greedy = rows[rows["sample_index"] == GREEDY]
    correct = int(greedy["is_correct"].sum())
    low, high = wilson_interval(correct, len(greedy), level)
    figures = {"accuracy": correct / len(greedy), "accuracy_low": low, "accuracy_high": high}
    figures["parse_failures"] = float(greedy["extracted_answer"].isna().mean())
    sampled = rows[rows["sample_index"] != GREEDY]
    if ks and sampled.empty:
        raise SettingsError("maj@k and pass@k need samples: set evaluation.sampling.samples to at least the largest k.")
    answers, is_correct = sampled["extracted_answer"].to_numpy(dtype=object), sampled["is_correct"].to_numpy(dtype=bool)
    by_question = [
        (answers[places].tolist(), is_correct[places]) for places in rows_by_question(sampled["question_id"])
    ]
    for k in ks:
        figures[f"maj_at_{k}"] = float(np.mean([maj_at_k(given, right.tolist(), k) for given, right in by_question]))
        figures[f"pass_at_{k}"] = float(
            np.mean([pass_at_k(len(right), int(right.sum()), k) for _, right in by_question])
        )
    ours, papers = assessment_accuracy(scored_groups), paper_assessment_accuracy(scored_groups)
    figures["assessment_accuracy"] = ours.macro
    figures["assessment_accuracy_low"], figures["assessment_accuracy_high"] = ours.low, ours.high
    figures["assessment_accuracy_micro"] = ours.micro
    figures["assessment_questions"] = ours.n_questions
    figures["paper_assessment_accuracy"] = papers.accuracy
    figures["paper_assessment_questions"] = papers.n_questions
    figures["perplexity_of_positives"] = perplexity_of_positives(scored_groups)
    return figures
