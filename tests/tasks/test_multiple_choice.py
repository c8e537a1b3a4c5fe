"""Options: how they are asked, and which one a response chooses, by hand-written traps."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.errors import DataError
from aft.tasks import multiple_choice
from aft.tasks.base import Question, content_hash
from aft.tasks.multiple_choice import choice_question, extract_answer

RECITED = "So it is 24.\n#### C\n\nQuestion: What is next?\n(A) 3\n#### A"
EXTRACTED = [  # (response, strict answer, flexible answer)
    # the marker as trained on
    ("24 = 2 * 12\n#### C", "C", "C"),
    ("#### C", "C", "C"),
    ("####C", "C", "C"),
    ("#### C\r\n", "C", "C"),
    ("text #### C", "C", "C"),
    ("#### C.", "C", "C"),
    ("#### c", "C", "C"),
    ("#### a", "A", "A"),
    ("#### (C)", "C", "C"),
    ("#### (c).", "C", "C"),
    ("#### C)", "C", "C"),
    ("#### [C]", "C", "C"),
    ("#### **C**", "C", "C"),
    ("#### `C`", "C", "C"),
    ("#### $C$", "C", "C"),
    ("#### \\boxed{C}", "C", "C"),
    ("#### $\\boxed{\\text{C}}$", "C", "C"),
    # and as options are written
    ("#### (C) 24", "C", "C"),
    ("#### C) 24", "C", "C"),
    ("#### C: 24", "C", "C"),
    ("#### C. dimly lit room", "C", "C"),
    ("#### **C)** 24", "C", "C"),
    ("#### (A) a bank", "A", "A"),
    # a marker without one clear letter is no strict answer
    ("", None, None),
    (" \n ", None, None),
    ("####", None, None),
    ("####\nC", None, None),
    ("#### 24", None, None),
    ("#### bank", None, None),
    ("#### A bank", None, None),
    ("#### F", None, None),
    ("#### CD", None, None),
    ("#### C, D", None, None),
    ("#### C or D", None, None),
    ("#### (C) or (D)", None, None),
    ("#### C) or D", "C", "C"),
    ("#### C = 5", None, None),
    ("#### The answer is C", None, "C"),
    ("#### Step 1\nAdd.\n#### Step 2\nThe answer is (c).", None, "C"),
    ("### C", None, None),
    ("##### C", None, None),
    ("#### \u0421", None, None),  # a Cyrillic letter
    ("#### __import__('os').system('echo C')", None, None),
    # the first marker counts, and nothing of a question that the model goes on with
    (RECITED, "C", "C"),
    ("#### C\n#### A", "C", "C"),
    ("The answer is C.\n\nQ: What is next?\nA: The answer is (a).", None, "C"),
    ("It is (c).\n\n### Instruction:\nNext?\n\n### Response:\n#### A", None, "C"),
    ("The answer is C.\n\nProblem: What is next?\nThe answer is (a).", None, "C"),
    ("It is (c).\n\nExercise 2: What is next?\nThe answer is (a).", None, "C"),
    ("It is (c).\n\nHuman: What is next?\n#### A", None, "C"),
    ("It is (c).\n\nPlease answer the next one.\n#### A", None, "C"),
    ("Problem: What is next?\nThe answer is (a).", None, "A"),
    ("There are 3 pipes.\nProblem: find the time.\n12/3=4\n#### C", "C", "C"),
    ("#### C\n## Problem\nWhat is next?\nThe answer is (a).", "C", "C"),
    ("Answer: (c)\nuser: What is next?\nThe answer is (a).", None, "C"),
    # a marker before nothing hides no answer
    ("The answer is (c).\nFinal answer:", None, "C"),
    ("The answer is (c). The correct option is", None, "C"),
    ("So \\boxed{C}, not (a). \\boxed{}", None, "C"),
    # other models' ways to answer
    ("(C)", None, "C"),
    ("C)", None, "C"),
    ("C", None, "C"),
    ("c", None, "C"),
    ("C.", None, "C"),
    ("C) 24", None, "C"),
    ("(c) 24\nBecause 2 * 12 is 24.", None, "C"),
    ("So the answer is (c).", None, "C"),
    ("So the answer is c.", None, "C"),
    ("The answer is C", None, "C"),
    ("THE ANSWER IS C!", None, "C"),
    ("The answer is: C", None, "C"),
    ("The answer is **C**.", None, "C"),
    ("The answer is **(C)** 24.", None, "C"),
    ("The answer is [C].", None, "C"),
    ("The answer is {C}.", None, "C"),
    ('The answer is "C".', None, "C"),
    ("The answer is *C*.", None, "C"),
    ("The answer is C - 24.", None, "C"),
    ("The answer is option C.", None, "C"),
    ("The correct answer is the option (C).", None, "C"),
    ("The correct answer is C) 24.", None, "C"),
    ("The answer is C because 24 is even.", None, "C"),
    ("The answer is A because 24 is even.", None, "A"),
    ("The answer is 24, which is option (C).", None, "C"),
    ("The answer is $24 (c).", None, "C"),
    ("The answer must be (C).", None, "C"),
    ("Answer: C", None, "C"),
    ("answer : c", None, "C"),
    ("ANSWER:C", None, "C"),
    ("**Answer:** C", None, "C"),
    ("**Final Answer**: (C)", None, "C"),
    ("Correct answer - C", None, "C"),
    ("Answer is C", None, "C"),
    ("Correct answer C", None, "C"),
    ("Ans: C", None, "C"),
    ("Ans. C", None, "C"),
    ("correct answer c .", None, "C"),
    ("The answer is C. That is my final answer.", None, "C"),
    ("The answer is C. I was glad to answer a question.", None, "C"),
    ("The answer is (b). No, the answer is 24.", None, None),
    ("Answer (C)", None, "C"),
    ("Answer: Option C", None, "C"),
    ("Final Answer: How many are left?\nThere are 24 left. So the answer is (c).", None, "C"),
    ("So $\\boxed{C}$.", None, "C"),
    ("\\boxed{(c)}", None, "C"),
    ("\\boxed{\\text{C}}", None, "C"),
    ("\\boxed{\\text{(C) }24}", None, "C"),
    ("\\boxed{C}, so the answer is A", None, "C"),
    ("\\boxed{24}, so the answer is A", None, "A"),
    ("The answer is B. No, the answer is C.", None, "C"),
    ("The correct option is C.", None, "C"),
    ("The best choice is (c) bank.", None, "C"),
    ("Correct option: C", None, "C"),
    ("Hence C is correct.", None, "C"),
    ("Hence option c is correct.", None, "C"),
    ("After the point there are 5 digits. option c", None, "C"),
    ("Option A is too small. Option B is odd. Only option C remains.", None, "C"),
    ("The answer is c : 24.", None, "C"),
    ("(C) is the right answer.", None, "C"),
    ("24 is in none of the choices. The closest answer choice is (c) 25.", None, "C"),
    ("We find 24. So it was (c) 24.", None, "C"),
    # no choice
    ("The answer is 24.", None, None),
    ("The answer is a bank.", None, None),
    ("The answer is A bank.", None, None),
    ("The answer is none of the above.", None, None),
    ("The answer is either.", None, None),
    ("The answer is C = 5.", None, None),
    ("The answer is C*5.", None, None),
    ("The answer is C + D.", None, None),
    ("The answer is C(5, 2).", None, None),
    ("The answer is C-section.", None, None),
    ("The answer is B's share.", None, None),
    ("The answer is F.", None, None),
    ("It is (a) or (b).", None, None),
    ("So f(a) = 24", None, None),
    ("(a + b)(a - b)", None, None),
    ("A bank is not a mall.", None, None),
    ("a", None, "A"),
    ("no letter at all", None, None),
    ("(((((((((", None, None),
]


@pytest.mark.parametrize(("response", "strict", "flexible"), EXTRACTED)
def test_the_letter_of_a_response(response: str, strict: str | None, flexible: str | None) -> None:
    assert extract_answer(response) == strict
    assert extract_answer(response, strict=False) == flexible


@given(st.text(st.sampled_from("ABCDEabcde ().:,*#$\\{}\n") | st.characters(), max_size=80), st.booleans())
@settings(deadline=None)
def test_any_text_has_a_letter_or_none_and_the_strict_one_is_the_flexible_one(text: str, marked: bool) -> None:
    response = f"#### {text}" if marked else text
    strict, flexible = extract_answer(response), extract_answer(response, strict=False)
    assert strict in {None, *"ABCDE"} and flexible in {None, *"ABCDE"}
    assert strict is None or flexible == strict


@given(st.sampled_from("ABCDE"), st.text(st.sampled_from("abcABC (1+)=.:\n"), max_size=60))
@settings(deadline=None)
def test_a_reference_gives_back_its_letter(letter: str, reasoning: str) -> None:
    assert extract_answer(f"{reasoning}\n#### {letter}") == letter


@pytest.mark.parametrize(
    "unit",
    [
        "(",
        "C",
        "(c)",
        " ",
        "\n",
        ". ",
        "####",
        "* ",
        "answer is ",
        "answer: the ",
        "option ",
        "\\boxed{",
        "C is ",
        "\nQ",
    ],
)
@pytest.mark.usefixtures("linear_time")
def test_extraction_takes_linear_time(unit: str) -> None:
    """200,000 characters, over which a quadratic pattern would take minutes."""
    text = unit * (200_000 // len(unit))
    for response in (text, f"#### {text}", f"The answer is {text}", f"\\boxed{{{text}"):
        strict, flexible = extract_answer(response), extract_answer(response, strict=False)
        assert strict is None or strict == flexible


def test_equal_letters() -> None:
    assert multiple_choice.answers_equal("C", "C")
    assert not multiple_choice.answers_equal("C", "D")


def _made(**changes: Any) -> Question:
    row = {"question_id": "made/test/00000", "split": "test", "question": "How {many}?", "choices": ["3", "4"]}
    return choice_question(**{**row, "answer": "B", "reasoning": "2+2=4", "where": "made, line 1", **changes})


def test_a_row_becomes_a_question() -> None:
    question = _made()
    assert (question.dataset, question.choices, question.answer) == ("made", ("3", "4"), "B")
    assert question.reference == "2+2=4\n#### B"
    assert question.content_hash == content_hash("How {many}?", ("3", "4")) != _made(choices=["3", "5"]).content_hash
    assert _made(reasoning="").reference == "#### B"


def test_the_prompt_lists_the_options_and_ends_where_the_response_begins() -> None:
    assert multiple_choice.prompt(_made()) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nHow {many}?\n(A) 3\n(B) 4\n\n### Response:\n"
    )


@pytest.mark.parametrize("choices", [(), ("3", "4 (B) 5"), ("1", "2", "3", "4", "5\n(A) 6")])
def test_options_are_read_back_as_they_were_written(choices: tuple[str, ...]) -> None:
    text = "Which (A) is it?\nSay."
    assert multiple_choice.without_options(multiple_choice.with_options(text, choices)) == (text, choices)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"choices": "34"}, "has no list of 2 to 5 options"),
        ({"choices": None}, "has no list of 2 to 5 options"),
        ({"choices": ["3"]}, "has no list of 2 to 5 options"),
        ({"choices": list("123456")}, "has no list of 2 to 5 options"),
        ({"choices": ["3", " "]}, "has no text in an option"),
        ({"choices": ["3", 4]}, "has no text in an option"),
        ({"choices": ["3", "\ud800"]}, "is not Unicode text"),
        ({"answer": "C"}, "has the answer 'C'"),
        ({"answer": "AB"}, "has the answer 'AB'"),
        ({"answer": ""}, "has the answer ''"),
        ({"answer": 1}, "has the answer 1,"),
        ({"answer": ["B"]}, r"has the answer \['B'\]"),
    ],
)
def test_a_malformed_row_is_refused_with_its_place(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=f"^made, line 1 {complaint}"):
        _made(**changes)
