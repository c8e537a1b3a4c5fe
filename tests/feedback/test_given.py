"""Labels and ratings that came with responses: compared with the task's own, used if asked, and never lost."""

import logging

import numpy as np
import pandas as pd
import pytest

from aft.errors import SettingsError
from aft.feedback.given import given_ratings, told_of_labels, with_given_labels

LABELLED = pd.DataFrame(
    {
        "question_id": ["a", "a", "a", "b", "b"],
        "sample_index": [0, 1, 2, 0, 1],
        "response": ["x", "y", "x", "x", "z"],
        "finish_reason": "stop",
        "token_ids": [[1], [2], [1], [1], [3]],
        "is_correct": [True, False, True, False, False],
        "given_label": pd.array([True, True, None, False, None], dtype="boolean"),
        "given_rating": [4.0, 1.0, 7.0, np.nan, 2.0],
    }
)


@pytest.mark.parametrize(("use", "labels"), [(False, [1, 0, 1, 0, 0]), (True, [1, 1, 1, 0, 0])])
def test_other_labels_are_told_and_decide_where_asked(
    use: bool, labels: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Of three given labels that of a's sample 1 differs."""
    with caplog.at_level(logging.INFO):
        table, counts = with_given_labels(LABELLED, use=use)
        told = told_of_labels(counts, use=use)
    assert table["is_correct"].tolist() == list(map(bool, labels)) and table["is_correct"].dtype == bool
    assert (told["given"], told["differ_from_check"], told["examples"]) == (3, 1, "a sample 1")
    assert told["share_that_differs"] == pytest.approx(1 / 3)
    assert "Labels are given of 3 of 5 responses; 1 (33.3 %) differ" in caplog.text and "(a sample 1)" in caplog.text


def test_one_response_that_is_called_right_and_wrong_has_no_given_label() -> None:
    both = LABELLED.assign(given_label=pd.array([False, None, True, True, None], dtype="boolean"))
    table, counts = with_given_labels(both, use=True)
    assert table["is_correct"].tolist() == [True, False, True, True, False], "b's x is another question's"
    assert counts["contradictory"] == 2 and counts["given"] == 1


def test_a_label_holds_for_all_equal_responses() -> None:
    """Of a's two x the second has one, and the check says otherwise: they are one response after de-duplication."""
    one = LABELLED.assign(given_label=pd.array([None, None, False, None, None], dtype="boolean"))
    table, counts = with_given_labels(one, use=True)
    assert table["is_correct"].tolist() == [False, False, False, False, False]
    assert (counts["given"], counts["differ"], counts["contradictory"]) == (1, 1, 0)


def test_sampled_candidates_have_nothing_to_compare() -> None:
    sampled = LABELLED.drop(columns=["given_label", "given_rating"])
    table, report = with_given_labels(sampled, use=True)
    assert table is sampled and report == {}
    with pytest.raises(SettingsError, match=r"labelling\.judge is 'given', but these candidates were sampled"):
        given_ratings(sampled, sampled)


def test_ratings_of_the_same_tokens_are_averaged() -> None:
    feedback = LABELLED.iloc[[0, 1, 3, 4]].reset_index(drop=True)
    ratings = given_ratings(LABELLED, feedback)
    assert ratings.fillna(-1).tolist() == [5.5, 1.0, -1, 2.0] and ratings.index.equals(feedback.index)
