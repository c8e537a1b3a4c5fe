"""Assessment accuracy and perplexity against values derived by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft.errors import NumericalError
from aft.evaluation.assessment import (
    accuracy_by_question,
    assessment_accuracy,
    paper_assessment_accuracy,
    perplexity_of_positives,
)


def make_groups(**questions: tuple[list[float], list[float]]) -> pd.DataFrame:
    """Scored groups from the scores of the positives and of the negatives of each question."""
    return pd.DataFrame(
        [
            (question_id, is_correct, score)
            for question_id, kinds in questions.items()
            for is_correct, scores in zip((True, False), kinds, strict=True)
            for score in scores
        ],
        columns=["question_id", "is_correct", "score"],
    )


def test_micro_and_macro_by_hand():
    """q1: -1 beats -2 and ties -1: 1.5 of 2. q2: -1 and -3 against -2: 1 of 2. q3: 6 of 6.

    The others lack a kind. Micro = 8.5 / 10, macro = (.75 + .5 + 1) / 3 = .75.
    """
    groups = make_groups(
        q1=([-1], [-2, -1]),
        q2=([-1, -3], [-2]),
        q3=([-1, -1, -2], [-3, -4]),
        q4=([-1, -2], []),
        q5=([], [-1]),
    )
    result = assessment_accuracy(groups)
    assert result.micro == pytest.approx(0.85)
    assert result.macro == pytest.approx(0.75)
    assert (result.n_questions, result.n_pairs, result.n_excluded) == (3, 10, 2)
    assert 0.5 <= result.low <= 0.75 <= result.high <= 1


def test_interval_is_over_questions_not_pairs():
    """Two questions of 10,000 pairs, one all right, one all wrong: so a resample has mean 0, 1/2 or 1."""
    result = assessment_accuracy(make_groups(right=([-1] * 100, [-2] * 100), wrong=([-2] * 100, [-1] * 100)))
    assert (result.macro, result.low, result.high) == (0.5, 0.0, 1.0)


def test_constant_scores_are_chance():
    """All ties: 1/2 for us, 0 under the paper's strict >."""
    groups = make_groups(q1=([-1] * 3, [-1] * 3), q2=([-1] * 4, [-1] * 5))
    assert assessment_accuracy(groups).macro == 0.5
    assert paper_assessment_accuracy(groups).accuracy == 0.0


def test_paper_takes_the_first_three_of_each_kind_in_the_order_of_the_rows():
    """q1 has four of each; the last positive (-9) and the last negative (0) are not looked at.

    Against -2, -2, -4: -1 beats three, -2 ties two and beats one, -3 beats one: 5 of 9. q2 lacks a negative.
    """
    groups = make_groups(q1=([-1, -2, -3, -9], [-2, -2, -4, 0]), q2=([-1, -1, -1], [-5, -5]))
    result = paper_assessment_accuracy(groups)
    assert result.accuracy == pytest.approx(5 / 9)
    assert (result.n_questions, result.n_excluded) == (1, 1)


def test_paper_definition_with_one_of_each_kind_takes_every_question():
    groups = make_groups(q1=([-1, -9], [-2]), q2=([-3], [-2, -9]))
    assert paper_assessment_accuracy(groups, per_kind=1) == (0.5, 2, 0)


@pytest.mark.parametrize("groups", [make_groups(q1=([-1.0], [])), make_groups()])
def test_without_a_comparable_question_there_is_no_accuracy(groups):
    result = assessment_accuracy(groups)
    assert all(math.isnan(value) for value in result[:4])
    assert (result.n_questions, result.n_pairs) == (0, 0)
    assert math.isnan(paper_assessment_accuracy(groups).accuracy)


score = st.sampled_from([-3.0, -2.0, -1.0, -0.5])
kind = st.lists(score, min_size=1, max_size=5)


@given(st.lists(st.tuples(kind, kind), min_size=1, max_size=6))
def test_swapping_the_labels_mirrors_the_accuracy(questions):
    """Every pair gives one point to a side or half to each, so the two accuracies sum to one."""
    groups = make_groups(**{f"q{index}": kinds for index, kinds in enumerate(questions)})
    result = assessment_accuracy(groups)
    mirrored = assessment_accuracy(groups.assign(is_correct=~groups["is_correct"]))
    assert result.micro + mirrored.micro == pytest.approx(1)
    assert result.macro + mirrored.macro == pytest.approx(1)


@given(st.lists(st.tuples(kind, kind), min_size=1, max_size=6), st.integers(0, 99))
def test_order_of_the_rows_does_not_matter(questions, seed):
    groups = make_groups(**{f"q{index}": kinds for index, kinds in enumerate(questions)})
    shuffled = groups.sample(frac=1, random_state=seed)
    assert assessment_accuracy(shuffled) == pytest.approx(assessment_accuracy(groups))


@given(st.lists(st.tuples(kind, kind), min_size=1, max_size=6))
def test_only_the_order_of_the_scores_matters(questions):
    groups = make_groups(**{f"q{index}": kinds for index, kinds in enumerate(questions)})
    stretched = groups.assign(score=-np.exp(-groups["score"]))
    assert assessment_accuracy(stretched) == assessment_accuracy(groups)


def test_perplexity_averages_over_positives():
    """Positives of -ln 2, -ln 4 and 0 have perplexities 2, 4 and 1, mean 7/3; the negative is not asked."""
    groups = make_groups(q1=([-math.log(2), -math.log(4)], [-9]), q2=([0.0], []))
    assert perplexity_of_positives(groups) == pytest.approx(7 / 3)


def test_perplexity_without_a_positive_is_nan():
    assert math.isnan(perplexity_of_positives(make_groups(q1=([], [-1.0]))))


@pytest.mark.parametrize("measure", [assessment_accuracy, paper_assessment_accuracy, perplexity_of_positives])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused_by_the_name_of_its_question(measure, value):
    groups = make_groups(fine=([-1.0], [-2.0]), broken=([-1.0, value], [value]))
    with pytest.raises(NumericalError, match=r"1 question\(s\): broken;"):
        measure(groups)


def test_of_many_broken_questions_five_are_named():
    groups = make_groups(**{f"q{index}": ([math.nan], [-1.0]) for index in range(7)})
    with pytest.raises(NumericalError, match=r"7 question\(s\): q0, q1, q2, q3, q4 and others"):
        assessment_accuracy(groups)


def test_accuracy_by_question_leaves_out_what_has_one_kind_only():
    """Question a: pairs (-1, -2) won and (-1, -1) tied, so (1 + 1/2) / 2 = 3/4; question b has positives only."""
    groups = pd.DataFrame(
        {
            "question_id": ["a", "a", "a", "b"],
            "is_correct": [True, False, False, True],
            "score": [-1.0, -2.0, -1.0, -0.5],
        }
    )
    assert accuracy_by_question(groups).to_dict() == {"a": 0.75}
