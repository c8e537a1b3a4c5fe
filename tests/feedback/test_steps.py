"""Ratings by the task's own check: ten less one point per wrong step."""

import sys
import types

import pandas as pd
import pytest

from aft.errors import DataError
from aft.feedback.steps import rate_steps
from aft.tasks import Question

POCKET = Question("p", "pocket", "train", "Ben has 20 pens. He finds 7. He sells 5. How many?", None, "", "22", "p")
GSM8K = Question(
    "g", "gsm8k", "train", "48 clips and half as many?", None, "<<48/2=24>>\n<<48+24=72>>\n#### 72", "72", "g"
)
QUESTIONS = {"p": POCKET, "g": GSM8K}


def feedback(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["question_id", "response"])


def test_ten_less_one_point_per_wrong_step_by_hand():
    """Pocket: flawless; a slip; both events the wrong way; nothing (two events and the answer are missing).

    GSM8K: the reference; a mark that does not hold, with the right answer and with a wrong one.
    """
    rows = feedback(
        ("p", "finds 7: 20 + 7 = 27.\nsells 5: 27 - 5 = 22.\n#### 22"),
        ("g", "<<48/2=24>>\n<<48+24=72>>\n#### 72"),
        ("p", "finds 7: 20 + 7 = 28.\nsells 5: 28 - 5 = 23.\n#### 23"),
        ("p", "finds 7: 20 - 7 = 13.\nsells 5: 13 + 5 = 18.\n#### 18"),
        ("g", "<<48/2=25>>\n#### 72"),
        ("g", "<<48/2=25>>\n#### 73"),
        ("p", ""),
    )
    ratings = rate_steps(rows, QUESTIONS)
    assert ratings.tolist() == [10, 10, 9, 8, 9, 8, 7]
    assert ratings.dtype == "float64" and ratings.name == "rating"


def test_the_index_is_that_of_the_feedback():
    rows = feedback(("p", ""), ("g", "#### 72"), ("p", "")).set_index(pd.Index([7, 3, 5]))
    assert rate_steps(rows, QUESTIONS).to_dict() == {7: 7.0, 3: 10.0, 5: 7.0}


@pytest.mark.parametrize(("lines", "rating"), [(6, 1.0), (5, 2.0), (50, 1.0)])
def test_no_rating_is_below_one(lines, rating):
    """A line of no form is a wrong step; two events and the answer are missing: 3 wrong steps more."""
    assert rate_steps(feedback(("p", "?\n" * lines)), QUESTIONS).tolist() == [rating]


def test_a_family_without_a_check_leaves_its_responses_unrated(monkeypatch):
    family = types.ModuleType("stranger.family")
    for name in ("Settings", "load_questions", "prompt", "extract_answer", "answers_equal"):
        setattr(family, name, None)
    monkeypatch.setitem(sys.modules, "stranger", types.ModuleType("stranger"))
    monkeypatch.setitem(sys.modules, "stranger.family", family)
    question = Question("s", "stranger.family", "train", "?", None, "", "1", "s")
    assert rate_steps(feedback(("s", "")), {"s": question}).isna().all()


def test_an_unknown_question_is_refused():
    with pytest.raises(DataError, match=r"2 unknown questions \(y, z\); label again"):
        rate_steps(feedback(("z", ""), ("p", ""), ("y", "")), QUESTIONS)


def test_nothing_to_rate():
    ratings = rate_steps(feedback(), QUESTIONS)
    assert ratings.empty and ratings.dtype == "float64"
