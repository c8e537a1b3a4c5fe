"""AUROC and calibration: a model's scores as a ranking of its own responses, and as a confidence.

The confidence of a response is exp(score), the geometric mean of its token probabilities, in (0, 1]. It is *not* the
probability that the model gives the whole response (that is its n-th power for n tokens), and no training objective
makes it the probability that the answer is right: most tokens of a chain of thought are easy, so it stands near 1 for
right and wrong responses alike. What it can tell is whether responses that a model finds more likely are more often
right, and how the scale of its scores differs between variants.

Everything is pooled over questions, unlike assessment accuracy, which compares the responses of one question: a
model that only tells easy questions from hard ones has a high AUROC and no assessment accuracy.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aft.errors import DataError, NumericalError
from aft.evaluation.statistics import flags

RELIABILITY_COLUMNS = ("low", "high", "confidence", "accuracy", "count")


def auroc(scores_N: ArrayLike, is_correct_N: ArrayLike) -> float:
    """Probability that a right response, drawn from all questions, scores above a wrong one; a tie counts 1/2.

    The Mann-Whitney statistic over n_p n_n, the area under the ROC curve: 1/2 is chance. NaN when all responses are
    right, all are wrong, or there is none.

    Raises DataError when the two differ in length or a label is missing, NumericalError when a score is not finite.
    """
    score_N, is_correct_N = _checked(scores_N, is_correct_N)
    positive, negative = score_N[is_correct_N], score_N[~is_correct_N]
    if not positive.size or not negative.size:
        return float("nan")
    ordered = np.sort(negative)
    won = sum(np.searchsorted(ordered, positive, side).sum() for side in ("left", "right")) / 2
    return float(won / (positive.size * negative.size))


def reliability(scores: ArrayLike, is_correct: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Accuracy by confidence (see the module) in at most `bins` bins of equal count, one row each, from the lowest.

    Columns: `low` and `high`, the least and the greatest confidence of the bin, `confidence` and `accuracy`, its means
    in [0, 1], and `count`. Equal confidences are never parted, so that the order of the responses says nothing; bins
    differ in count where there are many of them. Without responses there are no rows.

    Raises DataError when the two differ in length or a label is missing, NumericalError when a score is not finite.
    """
    score_N, is_correct_N = _checked(scores, is_correct)
    confidence_N = np.exp(score_N)
    bin_N = np.searchsorted(np.sort(confidence_N), confidence_N) * bins // max(len(confidence_N), 1)
    rows = pd.DataFrame({"confidence": confidence_N, "accuracy": is_correct_N.astype(float)}).groupby(bin_N)
    ends, means = rows["confidence"].agg(["min", "max"]), rows.mean()
    columns = (ends["min"], ends["max"], means["confidence"], means["accuracy"], rows.size())
    return pd.DataFrame(dict(zip(RELIABILITY_COLUMNS, columns, strict=True))).reset_index(drop=True)


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean over responses of |accuracy - confidence| of their bin, in [0, 1], of a table of `reliability`.

    NaN without responses. It says how far the geometric mean token probability is from the share of right responses;
    that confidence is not meant to be one (see the module), so compare variants by it and read no more into it.
    """
    if table.empty:
        return float("nan")
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["count"]))


def _checked(scores: ArrayLike, is_correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    score_N, is_correct_N = np.asarray(scores, dtype=np.float64), flags(is_correct)
    if score_N.shape != is_correct_N.shape:
        raise DataError(f"Each score needs its label, not {score_N.size} scores and {is_correct_N.size} labels.")
    if not np.isfinite(score_N).all():
        raise NumericalError(
            f"{int((~np.isfinite(score_N)).sum())} of {score_N.size} scores are not finite; "
            "check the model that gave them."
        )
    return score_N, is_correct_N
