"""Ratings by the task's own check of every step (a rule-based process reward): the paper's protocol without a judge."""

import math
from collections.abc import Mapping

import pandas as pd

from aft.errors import DataError
from aft.tasks import Question, get_task

_BEST, _WORST = 10, 1


def rate_steps(feedback: pd.DataFrame, questions: Mapping[str, Question]) -> pd.Series:
    """The rating of every row of `feedback`, in its index: 10 less one point per wrong step, at least 1.

    Of a family without `wrong_steps` (`aft.tasks.base.StepwiseTask`) every row is unrated, NaN.
    Raises `DataError` for a response to an unknown question.
    """
    unknown = sorted(set(feedback["question_id"]) - set(questions))
    if unknown:
        raise DataError(f"Feedback on {len(unknown)} unknown questions ({', '.join(unknown[:3])}); label again.")
    rows = zip(feedback["question_id"], feedback["response"], strict=True)
    ratings = [_rating(questions[question_id], response) for question_id, response in rows]
    return pd.Series(ratings, index=feedback.index, dtype="float64", name="rating")


def _rating(question: Question, response: str) -> float:
    wrong_steps = getattr(get_task(question.dataset), "wrong_steps", None)
    return math.nan if wrong_steps is None else float(max(_WORST, _BEST - len(wrong_steps(question, response))))
