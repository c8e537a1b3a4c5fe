"""How own answers are marked, read and compared: every check behind every marker."""

import time

import pytest

from aft.tasks.base import Question
from aft.tasks.checks import OWN, AnswerCheck


@pytest.mark.parametrize(
    ("how", "response", "answer"),
    [
        ("number/hashes", "8 - 3 = 5.\n#### 5\n#### 6", "5"),  # the first: what follows is another problem's
        ("number/hashes", "#### 7 or 8", None),
        ("number/hashes", "<think>#### 7</think>\n#### 42", "42"),
        ("number/hashes", "<think>#### 7</think> It is 42.", None),
        ("number/hashes", "<think>#### 7 or so", None),
        ("number/boxed", "<think>\\boxed{7}?", None),
        ("number/hashes", "It is 5.\nQuestion: and now?\n#### 6", None),
        ("number/answer_is", "The answer is 3. No, the answer is $1,200.", "1200"),
        ("number/answer_is", "**Answer:** 2 + 3 = 5 eggs", "5"),
        ("number/answer_is", "The answer is:\n\n18", "18"),
        ("number/answer_is", "It is 5.", None),
        ("number/boxed", r"\boxed{3}, no: $\boxed{x = \frac{1}{2}}$.", "0.5"),
        ("number/after_think", "<think>1 + 1</think> 1 + 2 = 3 eggs.", "3"),
        ("number/after_think", "3", None),
        ("choice/hashes", "#### (c).", "C"),
        ("choice/answer_is", "The answer is (B) because of it.", "B"),
        ("choice/boxed", r"\boxed{\text{D}}", "D"),
        ("choice/after_think", "<think>A?</think>\nE", "E"),
        ("text/hashes", '####  "New   York". ', "new york"),
        ("text/answer_is", "The answer is Paris.", "paris"),
        ("text/boxed", r"\boxed{Paris}", "paris"),
        ("text/after_think", "<think>Rome?</think>\n\nParis!\n", "paris"),
        ("text/hashes", "#### ...", None),
        ("math/hashes", "#### $x+1$", "x+1"),
        ("math/answer_is", r"The answer is $\frac{1}{2}$.", "0.5"),
        ("math/boxed", r"\boxed{\{1\}} or $\boxed{\{1, \frac{2}{3}\}}$", r"\{1, \frac{2}{3}\}"),
        ("math/boxed", r"\boxed{1} \boxed{ \boxed{2", "1"),
    ],
)
def test_the_answer_behind_a_marker(how: str, response: str, answer: str | None) -> None:
    assert OWN[f"jsonl/{how}"].extract_answer(response) == answer


def test_without_its_own_marker_a_response_may_use_another() -> None:
    check = AnswerCheck("number", "hashes")
    assert [check.extract_answer(r"\boxed{7}", strict=strict) for strict in (True, False)] == [None, "7"]
    assert check.extract_answer("7", strict=False) is None  # only behind a thought does all count


@pytest.mark.parametrize("how", OWN)
def test_a_reference_that_is_given_its_answer_is_read_as_this_answer(how: str) -> None:
    task = OWN[how]
    answer = {"choice": "C", "text": "two words", "math": "x^{2}", "number": "-3.5"}[task.check]
    for reasoning in ("", "First 8, then A."):
        assert task.extract_answer(task.with_answer(reasoning, answer)) == answer
    assert task.canonical(answer) == answer


def test_the_prompt_is_the_questions_own() -> None:
    question = Question("jsonl/1", "jsonl/text/boxed", "test", "Who?", None, "", "me", "0", prompt="Q: Who?\nA:")
    assert OWN[question.dataset].prompt(question) == "Q: Who?\nA:"


@pytest.mark.parametrize(
    ("how", "one", "other", "equal"),
    [
        ("number/hashes", "0.5", "1/2", True),
        ("number/hashes", "5", "6", False),
        ("text/hashes", "paris", "paris", True),
        ("text/hashes", "0.5", "1/2", False),
        ("choice/hashes", "A", "B", False),
    ],
)
def test_when_two_answers_are_the_same(how: str, one: str, other: str, equal: bool) -> None:
    assert OWN[f"jsonl/{how}"].answers_equal(one, other) is equal


@pytest.mark.parametrize(
    "hostile", ["answer is " * 20_000, "####" * 20_000, r"\boxed{" * 20_000, "{" * 90_000, "</think>" * 20_000]
)
def test_no_text_takes_long(hostile: str) -> None:
    """Nor raises: what is linear takes a part of a second, what is quadratic minutes."""
    began = time.monotonic()
    for task in OWN.values():
        task.extract_answer(hostile)
    assert time.monotonic() - began < 30
