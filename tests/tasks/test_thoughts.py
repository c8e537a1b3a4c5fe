"""What a model thinks is no answer: every family looks after the last `</think>`."""

import pytest

from aft.tasks import Question, get_task
from aft.tasks.answers import after_thoughts

SAID = [
    ("#### 42", "#### 42"),
    ("<think>#### 7</think>#### 42", "#### 42"),
    ("<think>\n#### 7\n</think>\n\n#### 42", "#### 42"),
    ("#### 7</think>\n#### 42", "#### 42"),  # the prompt opened the thought
    ("<think>a</think> b <think>#### 7</think>#### 42", "#### 42"),
    ("<think>#### 7", ""),
    ("<think>a</think>#### 42 <think>#### 7", ""),
    ("<think>#### 7</think>", ""),
    ("  two lines\n", "  two lines\n"),
]


@pytest.mark.parametrize(("response", "said"), SAID)
def test_what_is_said_after_the_thoughts(response: str, said: str) -> None:
    assert after_thoughts(response) == said


@pytest.mark.parametrize("family", ["pocket", "gsm8k", "gsm_hard", "svamp"])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("response", "said"), SAID[:-1])
def test_the_answer_is_that_after_the_thoughts(family: str, strict: bool, response: str, said: str) -> None:
    assert get_task(family).extract_answer(response, strict=strict) == ("42" if said else None)


@pytest.mark.parametrize("family", ["ecqa", "aqua_rat", "commonsenseqa"])
def test_a_letter_in_the_thoughts_is_not_chosen(family: str) -> None:
    task = get_task(family)
    assert task.extract_answer("<think>The answer is (B).\n#### B</think>\n#### C", strict=False) == "C"
    assert task.extract_answer("<think>The answer is (B).\n#### B", strict=False) is None


def test_thoughts_are_no_steps(pocket_questions: list[Question]) -> None:
    question = pocket_questions[0]
    thought = f"<think>1 + 1 = 3\n#### 7\n</think>\n\n{question.reference}"
    task = get_task("pocket")
    assert task.wrong_steps(question, thought) == []  # type: ignore[attr-defined]
    assert task.equations(thought) == task.equations(question.reference)  # type: ignore[attr-defined]
    assert get_task("gsm8k").equations("<think><<1+1=3>></think><<1+1=2>>\n#### 2") == ["1+1=2"]  # type: ignore[attr-defined]
