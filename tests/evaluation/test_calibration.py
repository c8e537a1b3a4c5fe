"""Ranking and confidence by hand, by brute force and by their own laws."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft.errors import DataError, NumericalError
from aft.evaluation.calibration import RELIABILITY_COLUMNS, auroc, expected_calibration_error, reliability

responses = st.lists(st.tuples(st.sampled_from([-2.0, -1.0, -0.5, -0.1, 0.0]), st.booleans()), max_size=40)


def split(samples):
    return [score for score, _ in samples], [flag for _, flag in samples]


def test_auroc_by_hand():
    """Right: -1, -3. Wrong: -2, -3. The pairs: won, won, lost, tied: 2.5 of 4."""
    assert auroc([-1, -2, -3, -3], [True, False, True, False]) == 2.5 / 4


def test_auroc_of_one_kind_says_nothing():
    assert math.isnan(auroc([-1.0, -2.0], [True, True]))
    assert math.isnan(auroc([-1.0], [False]))
    assert math.isnan(auroc([], []))


@pytest.mark.parametrize("measure", [auroc, reliability])
def test_a_response_without_a_label_is_refused(measure):
    """NaN is not zero, and numpy takes it for true."""
    with pytest.raises(DataError, match="no label"):
        measure([-1.0, -2.0], [1.0, math.nan])


@given(responses)
def test_auroc_counts_pairs(samples):
    right = [score for score, flag in samples if flag]
    wrong = [score for score, flag in samples if not flag]
    won = [(p > n) + 0.5 * (p == n) for p, n in product(right, wrong)]
    found = auroc(*split(samples))
    assert found == pytest.approx(np.mean(won), rel=1e-12) if won else math.isnan(found)


def test_auroc_is_of_the_order_only():
    scores, is_correct = np.array([-0.1, -0.4, -0.2, -0.9]), [True, True, False, False]
    assert auroc(scores, is_correct) == auroc(-np.exp(-scores), is_correct) == 0.75
    assert auroc(-scores, is_correct) == 0.25


def test_reliability_by_hand():
    """Confidences .2, .4 | .6, .8 in two bins of two; right: .4, .6 and .8."""
    table = reliability(np.log([0.8, 0.2, 0.6, 0.4]), [True, False, True, True], bins=2)
    assert tuple(table.columns) == RELIABILITY_COLUMNS
    assert np.allclose(table, [[0.2, 0.4, 0.3, 0.5, 2], [0.6, 0.8, 0.7, 1.0, 2]])


def test_the_calibration_error_weighs_bins_by_their_count():
    """Of the table above: (2 · |.5 - .3| + 2 · |1 - .7|) / 4; with a third of three at no distance, 1 / 7."""
    table = reliability(np.log([0.8, 0.2, 0.6, 0.4]), [True, False, True, True], bins=2)
    assert expected_calibration_error(table) == pytest.approx(0.25)
    table.loc[2] = [0.9, 0.9, 0.5, 0.5, 3]
    assert expected_calibration_error(table) == pytest.approx(1 / 7)


def test_a_model_that_is_sure_and_right_has_no_error():
    assert expected_calibration_error(reliability([0.0] * 5, [True] * 5)) == 0
    assert expected_calibration_error(reliability([0.0] * 5, [False] * 5)) == 1


def test_equal_confidences_share_a_bin():
    """Two bins of ten equal ones would depend on the order of the rows: there is one."""
    table = reliability([-0.5] * 10, [True] * 5 + [False] * 5, bins=2)
    assert table[["accuracy", "count"]].to_numpy().tolist() == [[0.5, 10]]


@given(responses, st.integers(1, 12))
def test_bins_part_the_responses_in_order(samples, bins):
    """All are counted once, bins do not overlap, none is empty, and the order of the responses says nothing."""
    scores, is_correct = split(samples)
    table = reliability(scores, is_correct, bins)
    assert len(table) <= bins
    assert table["count"].sum() == len(samples)
    assert (table["count"] > 0).all()
    assert (table["low"].to_numpy()[1:] > table["high"].to_numpy()[:-1]).all()
    assert (table["accuracy"] * table["count"]).sum() == pytest.approx(sum(is_correct))
    assert np.allclose(table, reliability(scores[::-1], is_correct[::-1], bins))


def test_bins_of_distinct_scores_have_equal_counts():
    table = reliability(-np.linspace(0, 1, 1000), [True] * 1000)
    assert table["count"].tolist() == [100] * 10


def test_without_responses_there_is_an_empty_table_and_no_error():
    table = reliability([], [])
    assert table.empty and tuple(table.columns) == RELIABILITY_COLUMNS
    assert math.isnan(expected_calibration_error(table))


@pytest.mark.parametrize("function", [auroc, reliability])
def test_what_is_no_score_or_has_no_label_is_refused(function):
    with pytest.raises(NumericalError, match="1 of 2 scores are not finite"):
        function([-1.0, float("nan")], [True, False])
    with pytest.raises(DataError, match="2 scores and 1 labels"):
        function([-1.0, -2.0], [True])
