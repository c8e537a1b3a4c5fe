"""Ratings by the task's own check of every step: the paper's protocol without a judge to ask."""

from collections.abc import Mapping

import pandas as pd

from aft.errors import DataError, SettingsError
from aft.tasks import Question, get_task

_BEST, _WORST = 10, 1


def rate_steps(feedback: pd.DataFrame, questions: Mapping[str, Question]) -> pd.Series:
    """The rating of every row of `feedback`, in its index: 10 less one point per wrong step, at least 1.

    Raises `SettingsError` for a family that has no `wrong_steps`, `DataError` for a response to an unknown question.
    """
    unknown = sorted(set(feedback["question_id"]) - set(questions))
    if unknown:
        raise DataError(f"Feedback on {len(unknown)} unknown questions ({', '.join(unknown[:3])}); label again.")
    ratings = [
        float(max(_WORST, _BEST - _count_wrong_steps(questions[question_id], response)))
        for question_id, response in zip(feedback["question_id"], feedback["response"], strict=True)
    ]
    return pd.Series(ratings, index=feedback.index, dtype="float64", name="rating")


def _count_wrong_steps(question: Question, response: str) -> int:
    wrong_steps = getattr(get_task(question.dataset), "wrong_steps", None)
    if wrong_steps is None:
        raise SettingsError(
            f"The task family '{question.dataset}' cannot tell wrong steps: choose another judge, or none, or give the "
            "family the function wrong_steps of aft.tasks.base.StepwiseTask."
        )
    return len(wrong_steps(question, response))
