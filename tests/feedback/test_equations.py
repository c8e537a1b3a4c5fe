"""RFT's de-duplication: which response stays for its equations."""

import sys
import types

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft.feedback.equations import distinct_by_equations, edit_distance, mark_distinct_equations
from aft.tasks import Question


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "abc", 0),
        ("kitten", "sitting", 3),
        ("abc", "cab", 2),
        ("ab" * 70, "ba" * 70, 2),
    ],
)
def test_edit_distances_by_hand(a, b, distance):
    """Also of more elements than a machine word has bits."""
    assert edit_distance(a, b) == edit_distance(b, a) == distance


def by_table(a: str, b: str) -> int:
    """The textbook's table, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        left = [i]
        for j, y in enumerate(b, start=1):
            left.append(min(row[j] + 1, left[-1] + 1, row[j - 1] + (x != y)))
        row = left
    return row[-1]


@given(st.text("abc", max_size=80), st.text("abcd", max_size=80))
def test_the_edit_distance_is_that_of_the_table(a, b):
    assert edit_distance(a, b) == by_table(a, b)


def test_the_first_of_equal_equations_stays_where_there_is_no_other():
    assert distinct_by_equations(["a", "b c d", "e"], [["1+1=2"]] * 3) == [0]


def test_the_order_of_equations_makes_another_reasoning():
    equations = [["1+1=2", "2+2=4"], ["2+2=4", "1+1=2"], ["1+1=2"], [], ["1+1=2", "2+2=4"]]
    assert distinct_by_equations(["x"] * 5, equations) == [0, 1, 2, 3]


def test_the_farther_of_two_with_the_same_equations_stays():
    """Equations A B A. In words, 0 differs from 1 in one, 2 in all four: 2 stays, and also if it comes first."""
    responses = ["she sold six more", "she sold six less", "then he had none"]
    assert distinct_by_equations(responses, [["A"], ["B"], ["A"]]) == [1, 2]
    assert distinct_by_equations(responses[::-1], [["A"], ["B"], ["A"]]) == [0, 1]


def test_only_what_is_kept_so_far_is_compared_with():
    """A A B: when the second comes there is nothing to be far from; B comes too late."""
    assert distinct_by_equations(["b b", "a a", "b b"], [["A"], ["A"], ["B"]]) == [0, 2]


@given(st.lists(st.tuples(st.text("ab ", max_size=8), st.lists(st.sampled_from("xy"), max_size=2)), max_size=12))
def test_one_response_of_each_list_of_equations_is_kept(rows):
    responses, equations = [text for text, _ in rows], [equations for _, equations in rows]
    kept = distinct_by_equations(responses, equations)
    assert kept == sorted(set(kept))
    assert sorted(equations[i] for i in kept) == sorted(map(list, {tuple(one) for one in equations}))


def question(name: str, family: str) -> Question:
    return Question(name, family, "train", "?", None, "#### 7", "7", name)


def test_right_responses_are_marked_per_question(monkeypatch):
    """Of a, 0 and 2 have the same equations, and 1 is wrong; b has the same again; c's family knows no equations."""
    family = types.ModuleType("stranger.family")
    for name in ("Settings", "load_questions", "prompt", "extract_answer", "answers_equal"):
        setattr(family, name, None)
    monkeypatch.setitem(sys.modules, "stranger", types.ModuleType("stranger"))
    monkeypatch.setitem(sys.modules, "stranger.family", family)
    rows = [
        ("a", "finds 2: 5 + 2 = 7.\n#### 7", True),
        ("a", "finds 2: 5 + 2 = 8.\n#### 8", False),
        ("a", "buys 2: 5 + 2 = 7.\n#### 7", True),
        ("a", "buys 2 and then some: 5 + 2 = 7.\n#### 7", True),  # as far from others as may be, and cut
        ("b", "finds 2: 5 + 2 = 7.\n#### 7", True),
        ("c", "5 + 2 = 7", True),
        ("c", "5 + 2 = 7", True),
    ]
    columns = ["question_id", "response", "is_correct"]
    feedback = pd.DataFrame(rows, columns=columns, index=pd.Index([6, 5, 4, 3, 2, 1, 0])).assign(sample_index=range(7))
    ended = {(row[0], number) for number, row in enumerate(rows) if number != 3}
    questions = {"a": question("a", "pocket"), "b": question("b", "pocket"), "c": question("c", "stranger.family")}
    marked = mark_distinct_equations(feedback, questions, ended)
    assert marked["distinct_equations"].tolist() == [True, False, False, False, True, True, True]
    assert marked["distinct_equations"].dtype == "bool"
    none = mark_distinct_equations(feedback.iloc[:0], questions, ended)
    assert none.empty and none["distinct_equations"].dtype == "bool"
