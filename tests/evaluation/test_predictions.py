"""The figures of one variant and seed by hand."""

import math

import pandas as pd
import pytest

from aft.errors import DataError, NumericalError, SettingsError
from aft.evaluation.predictions import PREDICTION_COLUMNS, measure, predictions
from aft.evaluation.statistics import wilson_interval

ROW = ["question_id", "sample_index", "extracted_answer", "is_correct", "score"]
NONE = float("nan")

# Greedy: a and b right, c wrong, d without an answer. Samples of a: 2 of 3 right; of b: all wrong, two votes for 9.
# Confidence exp(score) of the samples: .9, .5 and .7 of a, .6, .6 and .4 of b.
ROWS = pd.DataFrame(
    [
        ("a", -1, "7", True, math.log(0.1)),
        ("b", -1, "3", True, math.log(0.1)),
        ("c", -1, "5", False, math.log(0.1)),
        ("d", -1, None, False, math.log(0.1)),
        ("a", 0, "7", True, math.log(0.9)),
        ("a", 1, "7", True, math.log(0.5)),
        ("a", 2, "8", False, math.log(0.7)),
        ("b", 0, "9", False, math.log(0.6)),
        ("b", 1, "9", False, math.log(0.6)),
        ("b", 2, None, False, math.log(0.4)),
    ],
    columns=ROW,
)
# a: the positive wins both pairs; b: one of two. exp(-s) of the positives: 1, e, e.
GROUPS = pd.DataFrame(
    [
        ("a", True, 0.0),
        ("a", False, -1.0),
        ("a", False, -2.0),
        ("b", True, -1.0),
        ("b", False, -0.5),
        ("b", True, -1.0),
    ],
    columns=["question_id", "is_correct", "score"],
)
GROUPS.loc[len(GROUPS)] = ["b", False, -3.0]


def test_predictions_carry_the_mean_log_probability():
    labelled = pd.DataFrame(
        {
            **{"question_id": ["a", "b"], "sample_index": [-1, 0], "response": ["x", "y"], "seed": [1, 2]},
            **{"extracted_answer": ["7", None], "is_correct": [True, False]},
            **{"sum_logprob": [-3.0, -1.0], "n_tokens": [6, 4]},
        },
        index=[5, 9],
    )
    table = predictions(labelled)
    assert tuple(table.columns) == PREDICTION_COLUMNS
    assert table["score"].tolist() == [-0.5, -0.25]
    assert table.index.tolist() == [0, 1]


def test_a_question_without_a_response_is_a_wrong_greedy_answer_without_score():
    labelled = pd.DataFrame(
        {
            **{
                "question_id": ["a", "b"],
                "sample_index": [-1, -1],
                "response": ["x", "y"],
                "is_correct": [True, False],
            },
            **{
                "extracted_answer": pd.Series(["7", None], dtype="str"),
                "sum_logprob": [-3.0, -1.0],
                "n_tokens": [6, 4],
            },
        }
    )
    table = predictions(labelled, ["z", "a", "y", "b"])
    assert table[:2].equals(predictions(labelled, ["a", "b"])) and table[:2].equals(predictions(labelled))
    assert table["question_id"].tolist() == ["a", "b", "z", "y"] and table["sample_index"].tolist() == [-1] * 4
    assert table["is_correct"].tolist() == [True, False, False, False]
    assert table[2:][["response", "extracted_answer", "score"]].isna().all(axis=None)
    assert table.dtypes.equals(predictions(labelled).dtypes)


def test_a_question_without_a_response_is_wrong_in_every_figure_that_counts_questions():
    """Two more: accuracy 2 of 6 and three of six without an answer; maj@k and others as by hand, times 2 / 4."""
    silent = pd.DataFrame([("y", -1, None, False, NONE), ("z", -1, None, False, NONE)], columns=ROW)
    before, figures = (measure(rows, GROUPS, [1, 2]) for rows in (ROWS, pd.concat([ROWS, silent], ignore_index=True)))
    assert (before["questions_without_response"], figures["questions_without_response"]) == (0, 2)
    assert figures["accuracy"] == pytest.approx(2 / 6)
    assert (figures["accuracy_low"], figures["accuracy_high"]) == wilson_interval(2, 6)
    assert figures["parse_failures"] == pytest.approx(3 / 6)
    for name in ("mean_at_3", "maj_at_1", "maj_at_2", "pass_at_1", "pass_at_2", "best_of_1", "best_of_2"):
        assert figures[name] == pytest.approx(before[name] / 2)
    for name in ("auroc", "calibration_error", "assessment_accuracy", "perplexity_of_positives"):
        assert figures[name] == before[name]


def test_the_figures_by_hand():
    """Accuracy 2 of 4, one of four without an answer.

    k = 1: of the samples of a 2 of 3 are right, of b none: mean 1/3. k = 2: {7, 7} wins, {7, 8} ties, twice: 2/3 of
    a, so 1/3; pass: a always, so 1/2. Pairs: a 2 of 2, b 2 of 4: macro .75, micro 4 of 6. best of 2: of a, .9 wins two
    pairs and the wrong .7 beats .5: 2/3, so 1/3.

    AUROC: the right .9 beats all four wrong ones (.7, .6, .6, .4), .5 only .4: 5 of 8. Calibration: each confidence is
    a bin of its own, .6 holds two: (.1 + .5 + .7 + 2 · .6 + .4) / 6.
    """
    figures = measure(ROWS, GROUPS, [1, 2])
    low, high = wilson_interval(2, 4)
    assert (figures["accuracy"], figures["accuracy_low"], figures["accuracy_high"]) == (0.5, low, high)
    assert figures["parse_failures"] == 0.25
    assert figures["maj_at_1"] == figures["pass_at_1"] == pytest.approx(1 / 3)
    assert figures["maj_at_2"] == pytest.approx(1 / 3)
    assert figures["pass_at_2"] == pytest.approx(1 / 2)
    assert figures["best_of_1"] == figures["best_of_2"] == pytest.approx(1 / 3)
    assert figures["auroc"] == pytest.approx(5 / 8)
    assert figures["calibration_error"] == pytest.approx(2.9 / 6)
    assert figures["assessment_accuracy"] == pytest.approx(0.75)
    assert figures["assessment_accuracy_micro"] == pytest.approx(4 / 6)
    assert figures["assessment_accuracy_low"] <= 0.75 <= figures["assessment_accuracy_high"]
    assert figures["assessment_questions"] == 2
    assert figures["paper_assessment_questions"] == 0 and math.isnan(figures["paper_assessment_accuracy"])
    assert figures["perplexity_of_positives"] == pytest.approx((1 + 2 * math.e) / 3)


def test_the_interval_has_the_level_that_is_asked_for():
    figures = measure(ROWS, GROUPS, [1], level=0.5)
    assert (figures["accuracy_low"], figures["accuracy_high"]) == wilson_interval(2, 4, 0.5)


def test_every_interval_of_a_seed_has_the_level_and_the_resamples_that_are_asked_for():
    """One resample has no spread, so its ends are one point."""
    many = pd.concat([GROUPS.assign(question_id=GROUPS["question_id"] + str(i)) for i in range(9)])
    at_95, at_50 = (measure(ROWS, many, [1], level=level) for level in (0.95, 0.5))
    for name in ("accuracy", "assessment_accuracy"):
        width_95, width_50 = (one[f"{name}_high"] - one[f"{name}_low"] for one in (at_95, at_50))
        assert 0 < width_50 < width_95, name
    once = measure(ROWS, many, [1], resamples=1)
    assert once["assessment_accuracy_low"] == once["assessment_accuracy_high"]


def test_more_samples_of_a_question_narrow_no_interval():
    """Resamples are of questions, never of responses: fifty times the same ones of each say no more."""
    greedy, sampled = ROWS[ROWS["sample_index"] == -1], ROWS[ROWS["sample_index"] != -1]
    few, many = measure(ROWS, GROUPS, []), measure(pd.concat([greedy, *[sampled] * 50]), pd.concat([GROUPS] * 50), [])
    for end in ("low", "high"):
        assert many[f"mean_at_150_{end}"] == few[f"mean_at_3_{end}"]
        assert many[f"assessment_accuracy_{end}"] == few[f"assessment_accuracy_{end}"]


def test_samples_do_not_touch_the_accuracy_nor_greedy_answers_the_votes():
    swapped = ROWS.assign(is_correct=ROWS["is_correct"].where(ROWS["sample_index"] == -1, False))
    assert measure(swapped, GROUPS, [3])["accuracy"] == 0.5
    greedy_wrong = ROWS.assign(is_correct=ROWS["is_correct"].where(ROWS["sample_index"] != -1, False))
    assert measure(greedy_wrong, GROUPS, [3])["pass_at_3"] == 0.5


def test_more_votes_than_samples_are_refused():
    with pytest.raises(SettingsError, match="k = 4 of 3 samples"):
        measure(ROWS, GROUPS, [4])
    greedy = ROWS[ROWS["sample_index"] == -1]
    with pytest.raises(SettingsError, match="need samples"):
        measure(greedy, GROUPS, [1])
    assert measure(greedy, GROUPS, [])["accuracy"] == 0.5


def test_no_greedy_answer_is_refused():
    with pytest.raises(DataError, match="no questions"):
        measure(ROWS[ROWS["sample_index"] != -1], GROUPS, [1])


def test_without_samples_their_scores_say_nothing():
    figures = measure(ROWS[ROWS["sample_index"] == -1], GROUPS, [])
    assert math.isnan(figures["auroc"]) and math.isnan(figures["calibration_error"])


def test_scores_of_the_greedy_answers_do_not_count():
    other = ROWS.assign(score=ROWS["score"].where(ROWS["sample_index"] != -1, -7.0))
    assert measure(other, GROUPS, [2]) == pytest.approx(measure(ROWS, GROUPS, [2]), nan_ok=True)


def test_a_sample_with_a_broken_score_is_named():
    broken = ROWS.assign(score=ROWS["score"].where(ROWS.index != 7, NONE))
    with pytest.raises(NumericalError, match=r"1 question\(s\): b"):
        measure(broken, GROUPS, [1])


def test_other_sets_have_the_accuracy_of_their_greedy_answers():
    """Greedy: two of four right in one set, of the other only d, which is wrong. Samples do not count."""
    others = pd.concat([ROWS.assign(set="validation"), ROWS[3:4].assign(set="ood")])
    figures = measure(ROWS, GROUPS, [1], others=others)
    assert (figures["accuracy_validation"], figures["accuracy_ood"]) == (0.5, 0.0)
    without = measure(ROWS, GROUPS, [1])
    assert figures.keys() - without.keys() == {"accuracy_validation", "accuracy_ood"}
    assert {name: figures[name] for name in without} == pytest.approx(without, nan_ok=True)


def test_a_set_cannot_take_the_name_of_a_figure():
    with pytest.raises(SettingsError, match="accuracy_low is taken"):
        measure(ROWS, GROUPS, [1], others=ROWS.assign(set="low"))
