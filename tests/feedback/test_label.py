"""Labels, ranks and counts of sampled responses, by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.errors import DataError
from aft.feedback.label import FEEDBACK_COLUMNS, count, label_responses, rank_binary, summarise
from aft.tasks import Question


def question(name: str, answer: str) -> Question:
    return Question(name, "pocket", "train", f"{name}?", None, f"#### {answer}", answer, name)


QUESTIONS = {
    q.question_id: q for q in (question("a", "7"), question("b", "-3"), question("c", "12"), question("d", "5"))
}


def candidates(*rows: tuple[str, int, str, list[int]]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=["question_id", "sample_index", "response", "token_ids"])
    return table.assign(n_tokens=table["token_ids"].map(len), finish_reason="stop")


# a: right, right in other words, wrong (twice the same); b: only wrong, of which one has no answer; c: only right
# (twice the same); d: no response.
SAMPLES = candidates(
    ("a", 0, "finds 2: 5 + 2 = 7.\n#### 7", [2, 7]),
    ("a", 1, "#### 07", [7, 7]),
    ("a", 2, "#### 8", [8]),
    ("a", 3, "#### 8", [8]),
    ("b", 0, "#### 3", [3]),
    ("b", 1, "It is -3.", [3, 3]),
    ("c", 0, "#### 12", [12]),
    ("c", 1, "#### 12", [12]),
)


@pytest.fixture
def feedback():
    return rank_binary(label_responses(SAMPLES, QUESTIONS), deduplicate=True)


def test_labels_are_of_the_final_answer_in_canonical_form():
    labelled = label_responses(SAMPLES, QUESTIONS)
    assert labelled["extracted_answer"].fillna("none").tolist() == ["7", "7", "8", "8", "3", "none", "12", "12"]
    assert labelled["is_correct"].tolist() == [True, True, False, False, False, False, True, True]
    assert labelled["is_parsed"].tolist() == [True] * 5 + [False] + [True] * 2
    pd.testing.assert_frame_equal(labelled[SAMPLES.columns], SAMPLES)


def test_a_response_without_an_answer_is_wrong_and_says_so():
    """`-3` is the answer of b, but not behind `####`: a parse failure is a negative, not a hit."""
    labelled = label_responses(SAMPLES, QUESTIONS)
    failure = labelled[~labelled["is_parsed"]]
    assert failure[["question_id", "sample_index"]].to_numpy().tolist() == [["b", 1]]
    assert not failure["is_correct"].any()
    assert failure["extracted_answer"].isna().all()


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("#### 7", None),  # of 70, perhaps
        ("5 + 2 = 7.\n#### 7", None),
        ("#### 7\n", "7"),
        ("#### 7\nfinds", "7"),
        ("", None),
    ],
)
def test_the_unfinished_line_of_a_cut_response_does_not_count(response, answer):
    """The same text is an answer where the model itself ended it."""
    rows = candidates(("a", 0, response, [7]))
    cut = label_responses(rows.assign(finish_reason="length"), QUESTIONS)
    assert cut["is_correct"].tolist() == cut["is_parsed"].tolist() == [answer is not None]
    assert label_responses(rows, QUESTIONS)["is_correct"].tolist() == [bool(response)]


def test_questions_are_joined_by_id_whatever_the_order_and_the_index():
    mixed = SAMPLES.sample(frac=1, random_state=1).set_index(pd.Index(range(100, 108)))
    labelled = label_responses(mixed, dict(reversed(QUESTIONS.items())))
    assert labelled.index.tolist() == mixed.index.tolist()
    in_order = labelled.sort_values(["question_id", "sample_index"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(in_order, label_responses(SAMPLES, QUESTIONS))


def test_an_unknown_question_is_refused():
    with pytest.raises(DataError, match=r"2 unknown questions \(y, z\); sample again"):
        label_responses(candidates(("z", 0, "", [1]), ("a", 0, "", [1]), ("y", 0, "", [1])), QUESTIONS)


def test_equal_token_sequences_become_one_row_and_are_counted(feedback):
    kept = feedback[["question_id", "sample_index", "n_duplicates"]].to_numpy().tolist()
    assert kept == [["a", 0, 1], ["a", 1, 1], ["a", 2, 2], ["b", 0, 1], ["b", 1, 1], ["c", 0, 2]]


def test_without_deduplication_every_response_stays():
    rows = rank_binary(label_responses(SAMPLES, QUESTIONS), deduplicate=False)
    assert len(rows) == 8 and (rows["n_duplicates"] == 1).all()


def test_the_first_of_equal_responses_is_kept_whatever_the_order_of_the_rows():
    """Responses of two questions with the same tokens are two responses; equal text of other tokens is another."""
    rows = candidates(
        ("b", 1, "x", [8]), ("a", 5, "x", [8]), ("a", 2, "x", [8]), ("a", 3, "x", [9]), ("a", 4, "x", [8])
    )
    kept = rank_binary(label_responses(rows, QUESTIONS), deduplicate=True)
    assert kept[["question_id", "sample_index", "n_duplicates"]].to_numpy().tolist() == [
        ["a", 2, 3],
        ["a", 3, 1],
        ["b", 1, 1],
    ]


def test_ranks_are_dense(feedback):
    """Right 0, wrong 1; where all are wrong, or all right, there is one rank and it is 0."""
    assert feedback["rank"].tolist() == [0, 0, 1, 0, 0, 0]
    assert feedback["rank"].dtype == "int64"


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30))
def test_ranks_are_dense_and_order_right_above_wrong(responses):
    rows = candidates(
        *(
            (name, i, f"#### {QUESTIONS[name].answer if right else 99}", [i])
            for i, (name, right) in enumerate(responses)
        )
    )
    ranked = rank_binary(label_responses(rows, QUESTIONS), deduplicate=True)
    assert len(ranked) == len(responses)
    for _, group in ranked.groupby("question_id"):
        assert sorted(set(group["rank"])) == list(range(group["rank"].nunique()))
        of_right, of_wrong = group.loc[group["is_correct"], "rank"], group.loc[~group["is_correct"], "rank"]
        assert of_right.nunique() <= 1 and of_wrong.nunique() <= 1
        if len(of_right) and len(of_wrong):
            assert of_right.max() < of_wrong.min()


def test_the_feedback_table_has_its_columns_and_no_ratings(feedback):
    assert tuple(feedback.columns) == FEEDBACK_COLUMNS
    assert feedback["rating"].dtype == "float64" and feedback["rating"].isna().all()
    assert feedback["rating_rank"].dtype == "Int64" and feedback["rating_rank"].isna().all()
    assert feedback["is_correct"].dtype == feedback["is_parsed"].dtype == "bool"
    assert feedback.index.tolist() == list(range(6))


def test_the_samplers_log_probabilities_stay_with_their_rows():
    """Of equal responses that of the first; null for samples that came without, and for some without among others."""
    given = SAMPLES.assign(sum_logprob=[-1.0, -2.0, -3.0, -3.5, -4.0, np.nan, -6.0, -6.0])
    kept = rank_binary(label_responses(given.sample(frac=1, random_state=1), QUESTIONS), deduplicate=True)
    np.testing.assert_equal(kept["sum_logprob"].to_numpy(), [-1.0, -2.0, -3.0, -4.0, np.nan, -6.0])
    unknown = rank_binary(label_responses(SAMPLES, QUESTIONS), deduplicate=True)["sum_logprob"]
    assert unknown.isna().all() and unknown.dtype == "float64"


def test_token_ids_may_be_arrays():
    """As they come from Parquet."""
    arrays = SAMPLES.assign(token_ids=SAMPLES["token_ids"].map(np.array))
    ranked = rank_binary(label_responses(arrays, QUESTIONS), deduplicate=True)
    assert ranked["n_duplicates"].tolist() == [1, 1, 2, 1, 1, 2]


def test_the_summary_by_hand(feedback):
    """Eight samples, six distinct: a has 2 right and 1 wrong, b 2 wrong, c 1 right, d nothing.

    Right among all samples: a's 2 and c's 2 of 8.
    """
    assert summarise(count(feedback), len(QUESTIONS)) == {
        "questions": 4,
        "responses_sampled": 8,
        "responses_distinct": 6,
        "duplicates": 2,
        "positives": 3,
        "negatives": 3,
        "positives_per_question": 0.75,
        "negatives_per_question": 0.75,
        "questions_with_both": 1,
        "questions_without_positive": 1,
        "questions_without_negative": 1,
        "questions_without_response": 1,
        "parse_failures": 1,
        "sample_accuracy": 0.5,
    }


def test_parse_failures_count_duplicates():
    rows = candidates(("a", 0, "?", [1]), ("a", 1, "?", [1]), ("a", 2, "?", [2]))
    ranked = rank_binary(label_responses(rows, QUESTIONS), deduplicate=True)
    assert summarise(count(ranked), len(QUESTIONS))["parse_failures"] == 3


def test_nothing_to_label():
    """No response: tables of the right types without a row, and a summary of zeros."""
    labelled = label_responses(SAMPLES.iloc[:0], QUESTIONS)
    assert labelled["is_correct"].dtype == labelled["is_parsed"].dtype == "bool"
    for deduplicate in (True, False):
        ranked = rank_binary(labelled, deduplicate)
        assert tuple(ranked.columns) == FEEDBACK_COLUMNS and ranked.empty
        assert ranked["rank"].dtype == "int64" and ranked["rating_rank"].dtype == "Int64"
        summary = summarise(count(ranked), len(QUESTIONS))
        assert summary.pop("questions") == summary.pop("questions_without_response") == 4
        assert set(summary.values()) == {0}
