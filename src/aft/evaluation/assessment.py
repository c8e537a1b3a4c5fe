"""Assessment accuracy: does a model score its right responses above its wrong ones? (arXiv 2309.02144)

Every function takes scored groups, a table with one row per response: `question_id`, `is_correct` (bool) and
`score`, the mean token log-probability of the response (Eq. 2, <= 0, natural log). A positive is a correct
response, a negative a wrong one.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from aft.errors import NumericalError
from aft.evaluation.statistics import bootstrap_interval


class AssessmentAccuracy(NamedTuple):
    """Assessment accuracy over pairs (micro) and over questions (macro, with its interval [low, high])."""

    micro: float
    macro: float
    low: float
    high: float
    n_questions: int
    n_pairs: int
    n_excluded: int


class PaperAssessmentAccuracy(NamedTuple):
    """Assessment accuracy as the paper defines it, and how many questions it could and could not take."""

    accuracy: float
    n_questions: int
    n_excluded: int


def assessment_accuracy(groups: pd.DataFrame, *, level: float = 0.95, resamples: int = 10_000) -> AssessmentAccuracy:
    """Share of (positive, negative) pairs of a question whose positive scores higher; a tie counts 1/2.

    For question q: A_q = Σ_{p,n} [I(s_p > s_n) + ½ I(s_p = s_n)] / (n_p n_n). Micro is Σ_q (n_p n_n A_q) /
    Σ_q n_p n_n, macro the mean of A_q. The interval is of the macro value, by bootstrap over questions: pairs
    of one question are not independent. Questions without a positive or without a negative say nothing;
    they are left out and counted in `n_excluded`. When no question is left, the four numbers are NaN.

    Raises NumericalError, with the questions' ids, when a score is not finite.
    """
    by_question = _scores_by_kind(groups)
    pairs = [(positive, negative) for positive, negative in by_question if positive.size and negative.size]
    n_excluded = len(by_question) - len(pairs)
    if not pairs:
        nan = float("nan")
        return AssessmentAccuracy(nan, nan, nan, nan, 0, 0, n_excluded)
    n_pairs_N = np.array([positive.size * negative.size for positive, negative in pairs])
    wins_N = np.array([_wins(positive, negative) for positive, negative in pairs])
    accuracy_N = wins_N / n_pairs_N
    low, high = bootstrap_interval(accuracy_N, level=level, resamples=resamples)
    return AssessmentAccuracy(
        micro=float(wins_N.sum() / n_pairs_N.sum()),
        macro=float(accuracy_N.mean()),
        low=low,
        high=high,
        n_questions=len(pairs),
        n_pairs=int(n_pairs_N.sum()),
        n_excluded=n_excluded,
    )


def accuracy_by_question(groups: pd.DataFrame) -> pd.Series:
    """A_q (see `assessment_accuracy`) of each question that has both kinds, by question id.

    Raises NumericalError, with the questions' ids, when a score is not finite.
    """
    ids = groups["question_id"].drop_duplicates()
    accuracies = {
        question_id: _wins(positive, negative) / (positive.size * negative.size)
        for question_id, (positive, negative) in zip(ids, _scores_by_kind(groups), strict=True)
        if positive.size and negative.size
    }
    return pd.Series(accuracies, dtype="float64")


def paper_assessment_accuracy(groups: pd.DataFrame, per_kind: int = 3) -> PaperAssessmentAccuracy:
    """Assessment accuracy of Eq. 3: the first `per_kind` positives and negatives of each question, strict >.

    A = 1 / (9N) Σ_i Σ_{j,k ≤ 3} I(s_{p_j} > s_{n_k}), in the order of the rows, which is the order of
    sampling. The paper takes N as the whole training set and does not say what becomes of a question with
    fewer of either kind: here it is left out and counted. When no question is left, the accuracy is NaN.

    Raises NumericalError, with the questions' ids, when a score is not finite.
    """
    by_question = _scores_by_kind(groups)
    accuracies = [
        (positive[:per_kind, None] > negative[None, :per_kind]).mean()
        for positive, negative in by_question
        if min(positive.size, negative.size) >= per_kind
    ]
    accuracy = float(np.mean(accuracies)) if accuracies else float("nan")
    return PaperAssessmentAccuracy(accuracy, len(accuracies), len(by_question) - len(accuracies))


def perplexity_of_positives(groups: pd.DataFrame) -> float:
    """Mean over all positives of exp(-s), the token-averaged perplexity of each (Table 4).

    NaN when there is no positive. Every positive weighs the same, whatever its question or length; the
    perplexities are averaged, not the scores.

    Raises NumericalError, with the questions' ids, when a score is not finite.
    """
    check_finite(groups)
    positive = groups["score"].to_numpy(dtype=np.float64)[groups["is_correct"].to_numpy(dtype=bool)]
    return float(np.exp(-positive).mean()) if positive.size else float("nan")


def rows_by_question(question_ids: pd.Series) -> list[np.ndarray]:
    """Places of each question's rows, in the order of the rows; questions in the order in which they appear.

    Much faster than looping over a pandas `groupby`, which makes a table of every group.
    """
    codes, _ = pd.factorize(question_ids)
    counts = np.bincount(codes)
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1]) if len(counts) else []


def check_finite(groups: pd.DataFrame) -> None:
    """Refuse scores that are not finite: raises NumericalError with the ids of their questions."""
    broken = groups.loc[~np.isfinite(groups["score"].to_numpy(dtype=np.float64)), "question_id"].unique()
    if len(broken):
        named = ", ".join(map(str, broken[:5])) + (" and others" if len(broken) > 5 else "")
        raise NumericalError(
            f"Scores are not finite for {len(broken)} question(s): {named}; check the model that gave them."
        )


def _scores_by_kind(groups: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores of the positives and of the negatives of each question, in the order of the rows."""
    check_finite(groups)
    score_N = groups["score"].to_numpy(dtype=np.float64)
    is_correct_N = groups["is_correct"].to_numpy(dtype=bool)
    return [
        (score_N[rows][is_correct_N[rows]], score_N[rows][~is_correct_N[rows]])
        for rows in rows_by_question(groups["question_id"])
    ]


def _wins(positive: np.ndarray, negative: np.ndarray) -> float:
    """Number of pairs won by the positive, a tie counting one half."""
    gap = positive[:, None] - negative[None, :]
    return float((gap > 0).sum() + 0.5 * (gap == 0).sum())
