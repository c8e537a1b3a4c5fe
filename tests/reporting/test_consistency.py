"""Inversions, their kinds and what changed them, against tables small enough to count by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft.errors import DataError, NumericalError
from aft.evaluation.assessment import assessment_accuracy
from aft.reporting.colours import scale_html, side_by_side, tokens_html
from aft.reporting.consistency import (
    by_question,
    case_studies,
    changes,
    changes_by,
    error_kind,
    first_wrong_step,
    inversions_by,
    quantile_ranges,
    response_pairs,
    step_means,
)

COLUMNS = ["question_id", "sample_index", "is_correct", "score", "kind"]
# q1: one right response at -2, wrong ones at -1 (above it) and -3 (below it). q2: right at -1 and -4, wrong at -2.
# q3 has no wrong response, q4 no right one.
ROWS = [
    *(("q1", 0, True, -2.0, ""), ("q1", 1, False, -1.0, "sum"), ("q1", 2, False, -3.0, "verb")),
    *(("q2", 0, False, -2.0, "sum"), ("q2", 1, True, -1.0, ""), ("q2", 2, True, -4.0, "")),
    *(("q3", 0, True, -1.0, ""), ("q4", 0, False, -1.0, "sum")),
]


@pytest.fixture
def scored() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=COLUMNS)


@pytest.fixture
def pairs(scored) -> pd.DataFrame:
    return response_pairs(scored, ["kind"])


@pytest.fixture
def after(scored) -> pd.DataFrame:
    """Another model raises q1's right response to -0.5, above both wrong ones, and q2's wrong one to -0.5, too."""
    score = scored["score"].mask((scored["question_id"] == "q1") & scored["is_correct"], -0.5)
    return response_pairs(
        scored.assign(score=score.mask((scored["question_id"] == "q2") & ~scored["is_correct"], -0.5))
    )


def rows(table: pd.DataFrame, *columns: str) -> list[tuple]:
    return list(table[list(columns)].itertuples(index=False, name=None))


def test_pairs_by_hand(pairs):
    found = rows(pairs, "question_id", "sample_index_right", "sample_index_wrong", "gap", "inverted", "kind_wrong")
    assert found == [
        ("q1", 0, 1, -1.0, True, "sum"),
        ("q1", 0, 2, 1.0, False, "verb"),
        ("q2", 1, 0, 1.0, False, "sum"),
        ("q2", 2, 0, -2.0, True, "sum"),
    ]


def test_a_tie_is_no_inversion():
    groups = pd.DataFrame([("q", 0, True, -1.0), ("q", 1, False, -1.0)], columns=COLUMNS[:4])
    assert rows(response_pairs(groups), "gap", "inverted") == [(0.0, False)]


def test_scores_that_are_not_finite_are_refused(scored):
    with pytest.raises(NumericalError, match="q4"):
        response_pairs(scored.assign(score=scored["score"].mask(scored["question_id"] == "q4")))


def test_questions_by_hand(pairs):
    """Both have one inversion of two; that of q2 is the wider one."""
    table = by_question(pairs)
    assert table.reset_index().to_numpy().tolist() == [["q2", 2, 1, 0.5, -2.0], ["q1", 2, 1, 0.5, -1.0]]


def test_inversions_by_kind(pairs):
    """sum: q1 inverted 1 of 1, q2 1 of 2, so (1 + .5) / 2 over questions, and 2 of 3 pairs. verb: none of 1."""
    table = inversions_by(pairs, ["kind_wrong"])
    assert rows(table, "kind_wrong", "questions", "pairs", "inversions", "share") == [
        ("sum", 2, 3, 2, 0.75),
        ("verb", 1, 1, 0, 0.0),
    ]
    assert rows(table, "low", "high") == [(0.5, 1.0), (0.0, 0.0)]  # a resample holds q1 twice, q2 twice, or both


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(-9, 0, allow_nan=False)), min_size=1, max_size=20
    )
)
def test_without_ties_the_share_is_what_assessment_accuracy_misses(responses):
    groups = pd.DataFrame(responses, columns=["question_id", "is_correct", "score"])
    groups = groups.drop_duplicates("score").assign(sample_index=lambda table: range(len(table)))
    pairs, accuracy = response_pairs(groups), assessment_accuracy(groups)
    assert len(pairs) == accuracy.n_pairs
    table = inversions_by(pairs.assign(all="all"), ["all"])
    if accuracy.n_pairs:
        assert table["share"].item() == pytest.approx(1 - accuracy.macro)
        assert (table["low"].item(), table["high"].item()) == pytest.approx((1 - accuracy.high, 1 - accuracy.low))
    else:
        assert table.empty and "share" in table


def test_what_changed(pairs, after):
    changed = changes(pairs, after)
    assert rows(changed, "question_id", "sample_index_right", "sample_index_wrong", "gap_after", "change") == [
        ("q1", 0, 1, 0.5, "mended"),
        ("q1", 0, 2, 2.5, "stays right"),
        ("q2", 1, 0, -0.5, "new"),
        ("q2", 2, 0, -3.5, "stays inverted"),
    ]


def test_the_order_of_the_other_models_rows_does_not_matter(pairs, after):
    pd.testing.assert_frame_equal(changes(pairs, after.iloc[::-1]), changes(pairs, after))


def test_other_pairs_are_refused(pairs, after):
    for before, later in ((pairs, after.iloc[:3]), (pairs.iloc[:3], after), (pairs, pd.concat([after, after]))):
        with pytest.raises(DataError, match=r"q[12]"):
            changes(before, later)


def test_changes_counted(pairs, after):
    """q1 loses one inversion of two, q2 gains one of two: -1/2 and +1/2, 0 on the whole."""
    table = changes_by(changes(pairs, after).assign(variant="aft"), ["variant"])
    assert table.to_dict("records") == [
        {
            **{"variant": "aft", "questions": 2, "pairs": 4, "mended": 1, "new": 1, "inverted_after": 2},
            **{"difference": 0.0, "low": -0.5, "high": 0.5},
        }
    ]
    by_kind = changes_by(changes(pairs, after), ["kind_wrong"])
    assert rows(by_kind, "kind_wrong", "mended", "new", "difference") == [("sum", 1, 1, -0.25), ("verb", 0, 0, 0.0)]


def test_a_model_that_changes_nothing_has_no_differences(pairs):
    changed = changes(pairs, pairs)
    assert set(changed["change"]) == {"stays right", "stays inverted"}
    assert rows(changes_by(changed, ["question_id"]), "difference", "low", "high") == [(0.0, 0.0, 0.0)] * 2


def test_cases_are_the_widest_mended_ones_of_different_questions(pairs, after):
    changed = changes(pairs, after)
    assert rows(case_studies(changed, 2), "question_id", "change") == [("q1", "mended")]
    none_mended = changed[changed["change"] != "mended"]  # gaps grow by 1.5 (q1), -1.5 and -1.5 (q2)
    assert case_studies(none_mended, 5)["question_id"].tolist() == ["q1", "q2"]
    assert case_studies(none_mended, 1)["question_id"].tolist() == ["q1"]
    assert case_studies(changed.iloc[:0], 2).empty


def test_ranges_hold_equal_numbers_and_never_part_equal_values():
    values = pd.Series([1, 2, 3, 4, 5, 6, 7, 8], index=range(8, 16))
    ranges = quantile_ranges(values, 4)
    assert ranges.tolist() == ["1 to 2", "1 to 2", "3 to 4", "3 to 4", "5 to 6", "5 to 6", "7 to 8", "7 to 8"]
    assert ranges.index.equals(values.index) and ranges.cat.ordered
    assert quantile_ranges(pd.Series([10, 9, 10, 10, 10, 11]), 3).cat.categories.tolist() == ["9 to 10", "11"]
    assert quantile_ranges(pd.Series([4, 4])).tolist() == ["4", "4"]
    assert quantile_ranges(pd.Series([], dtype=int)).empty


@given(st.lists(st.integers(-50, 50), min_size=1), st.integers(1, 6))
def test_ranges_are_few_ordered_and_disjoint(values, most):
    ranges = quantile_ranges(pd.Series(values), most)
    assert 1 <= len(ranges.cat.categories) <= most
    codes = ranges.cat.codes.to_numpy()
    order = np.argsort(values, kind="stable")
    assert (np.diff(codes[order]) >= 0).all()
    assert len({(value, code) for value, code in zip(values, codes, strict=True)}) == len(set(values))


def test_kinds_are_sentences_without_their_particulars():
    kinds = {
        "The equation 3+4=8 does not hold.": "The equation … does not hold",
        "The equation x=y+z does not hold.": "The equation … does not hold",
        "The reference does not have the result of 2.5*4=10.": "The reference does not have the result of",
        "Results that the reference does not have: 1+1=2, 2+2=4.": "Results that the reference does not have",
        "The final answer is 12, not 1/3.": "The final answer is …, not",
        "There is no final answer.": "There is no final answer",
        '"gains finds 3, "wins" 4: 3 + 4 = 7." takes a gain for a loss.': "takes a gain for a loss",
        '"wins 4: 3 + 4 = 8." starts from 3 where the total is 12.': "starts from … where the total is",
        "No step takes finds 3.": "No step takes",
    }
    assert {sentence: error_kind([sentence, "Another one."]) for sentence in kinds} == kinds
    assert error_kind([]) == "no wrong step named"


@pytest.mark.parametrize("text", ['"' * 50_001, "finds " * 50_000, "a" * 200_000, "1" * 200_000, "s 1" * 60_000])
@pytest.mark.usefixtures("linear_time")
def test_kinds_take_linear_time(text):
    error_kind([text])


def test_the_first_wrong_step_is_the_line_that_is_quoted():
    response = "wins 4: 3 + 4 = 7.\nfinds 5: 7 + 5 = 13.\n#### 13"

    def no_equations(text: str) -> list[str]:
        return []

    assert first_wrong_step(response, ['"finds 5: 7 + 5 = 13." has wrong arithmetic.'], no_equations) == 2
    assert first_wrong_step(response, ["There is no final answer."], no_equations) == 3
    assert (
        first_wrong_step(f"\n{response}\n", ['The text "" is empty.'], no_equations) == 4
    )  # blank lines are not quoted


def test_the_first_wrong_step_is_the_line_whose_equation_is_named():
    """2+2=4 in the first line is right; it stands within 12+2=4 and 2+2=45 only by its characters."""
    response = "a 2+2=4\nb 12+2=4\nc 2+2=45\n#### 4"
    equations = {"a 2+2=4": ["2+2=4"], "b 12+2=4": ["12+2=4"], "c 2+2=45": ["2+2=45"]}

    def of_line(text: str) -> list[str]:
        return equations.get(text, [])

    assert first_wrong_step(response, ["The equation 12+2=4 does not hold."], of_line) == 2
    assert first_wrong_step(response, ["The equation 2+2=45 does not hold."], of_line) == 3
    assert first_wrong_step(response, ["The equation 2+2=4 does not hold."], of_line) == 1


def test_steps_by_hand():
    """A line end belongs to the line that it ends."""
    table = step_means(["3", " +", "\n", "####", " 3", "</s>"], np.array([-1.0, -2.0, -3.0, -0.5, -0.25, 0.0]))
    assert rows(table, "step", "text", "tokens", "score") == [(1, "3 +", 3, -2.0), (2, "#### 3</s>", 3, -0.25)]
    assert step_means([], np.array([])).empty


def test_what_a_model_wrote_is_escaped():
    block = tokens_html("<right>", ["<b>", "\n", "x"], np.array([-0.1, -9.0, math.log(0.5)]))
    assert "<b>&lt;right&gt;</b>, score -3.26" in block
    assert "&lt;b&gt;</span>" in block and "<b></span>" not in block
    assert '1.00);" title="0.0% (-9.00)">↵\n</span>' in block  # full colour, and the line end can be seen
    assert 'title="50.0% (-0.69)">x<' in block
    assert side_by_side([[block, scale_html()]]).count("<td") == 2
