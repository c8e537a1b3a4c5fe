"""Where a response ends: before the next problem that a model sets itself, and not at its own; real solutions, too."""

import gzip
import itertools
import json
from pathlib import Path

import pytest

from aft.tasks import gsm8k

TOM = "Tom has 3 pens and buys 6. How many has he?\nAnswer: 3 + 6 = 9. The answer is 9.\n#### 9"
RUN_ON = [  # (response, its own answer, where another problem may follow)
    # an answer in every form before every opening
    (f"2 + 2 = 4. The answer is 4.\n\nProblem: {TOM}", "4"),
    (f"She has 4 pens left.\n\nProblem: {TOM}", "4"),
    (f"#### 4\nProblem: {TOM}", "4"),
    (f"So \\boxed{{4}}.\n\nProblem:\n{TOM}", "4"),
    (f"4\n\nProblem: {TOM}", "4"),
    (f"The answer is 4.\n\nExercise: {TOM}", "4"),
    (f"She has 4 pens left.\n\nExercise: {TOM}", "4"),
    (f"A: 4\nExercise 2: {TOM}", "4"),
    (f"Final Answer: 4 pens\n\n**Exercise 2:** {TOM}", "4"),
    (f"The answer is 4.\n\nInput: {TOM}", "4"),
    (f"She has 4 pens left.\nInput: {TOM}", "4"),
    (f"She has 4 pens left.\n\n### Input:\n{TOM}", "4"),
    (f"The answer is 4.\n\nHuman: {TOM}", "4"),
    (f"She has 4 pens left.\n\nHuman: {TOM}", "4"),
    (f"**Answer:** 4\n\n### Human: {TOM}", "4"),
    (f"The answer is 4.\n\nUser: {TOM}", "4"),
    (f"She has 4 pens left.\nUSER: {TOM}", "4"),
    (f"So $\\boxed{{4}}$.\r\n\r\nUser: {TOM}", "4"),
    (f"The answer is 4.\n\nPlease answer the following question.\n{TOM}", "4"),
    (f"She has 4 pens left.\n\nPlease answer this question: {TOM}", "4"),
    (f"She has 4 pens left.\n\nPlease solve: {TOM}", "4"),
    (f"The answer is 4.\n\nAnswer the following question. {TOM}", "4"),
    (f"The answer is 4.\n\nQ: {TOM}", "4"),
    (f"The answer is 4.\n\n**Question:** {TOM}", "4"),
    (f"The answer is 4.\n\nNext question: {TOM}", "4"),
    (f"The answer is 4.\n\nNew problem: {TOM}", "4"),
    (f"The answer is 4.\n\nInstruction: {TOM}", "4"),
    (f"She has 4 pens left.\n\n### Question:\n{TOM}", "4"),
    (f"She has 4 pens left.\n\n## Problem 2:\n{TOM}", "4"),
    (f"She has 4 pens left.\n\nExample 2: {TOM}", "4"),
    (f"She has 4 pens left.\n\nTask : {TOM}", "4"),
    (f"She has 4 pens left.\n[INST] {TOM}", "4"),
    (f"She has 4 pens left.\n<|im_start|>user\n{TOM}", "4"),
    (f"The answer is 4.\n\nProblem: {TOM}\n\nProblem: {TOM}", "4"),
    ("The answer is 4.\n\nProblem: 5 birds sit on a wire. How many legs?\nThe answer is 10.", "4"),
    ("She has 4 pens left.\n\nProblem: Tom has 3 pens and", "4"),  # broken off
    (f"The answer is 4 - x.\n\nProblem: {TOM}", None),  # and no other's answer in place of none
    # such a word in a solution
    (f"Problem: {TOM}", "9"),
    (f"\nExercise: {TOM}", "9"),
    (f"Problem: {TOM}\n\nProblem: Ann has 1 pen. How many has she?\nThe answer is 1.", "9"),
    (f"Let me tell it again.\n\nProblem: {TOM}", "9"),
    (f"**Step 1: Read it.**\nProblem: {TOM}", "9"),
    (f"1. Read it.\nInput: {TOM}", "9"),
    ("Input: 5 apples\nOutput: 5 + 4 = 9 apples", "9"),
    ("She has 4.\nInput: 5 apples\nShe has 5 + 4 = 9 apples.", "9"),
    ("Human: 2 legs\nTwo dogs: 8 legs\nHuman: 2 legs\nIn all 12 legs.", "12"),
    ("On day 1:\nExercise: 30 minutes\nRest: 10 minutes\nThe answer is 40.", "40"),
    ("There are 4.\nThe problem: she has 5 more. So 4 + 5 = 9.", "9"),
    ("There are 4.\nThis problem needs 5 more. So 9.", "9"),
    ("There are 4, and the user: Tom. So 9.", "9"),
    ("There are 4.\nUsers: 5 more, so 9.", "9"),
    ("There are 4. Please answer 5 more calls, so 9.", "9"),
    ("There are 4.\nPlease note the 5 others. So 9.", "9"),
    ("Question 1: How many pens?\n4 pens.\nQuestion 2: How many in all?\n4 + 5 = 9.", "9"),
    ("We know a=3, b=4.\nProblem: how many in total?\n3+4=7\nThe answer is 7.", "7"),
    ("We know a=3, b=4.\n\nTask: find the total.\n3+4=7\nThe answer is 7.", "7"),
    ("There are 4.\nuser: Tom has 5 more.\n4+5=9", "9"),
    ("There are 4.\n## Problem\nTom has 5 more.\n4+5=9", "9"),
    ("The answer is 4 at first.\nThe problem: Tom has 5 more.\nThe answer is 9.", "9"),
    # after an answer, less says that another problem follows
    *(
        (f"The answer is 4.{opening}{TOM}", "4")
        for opening in (
            *("\n\n### Problem 2\n", "\n\n## Problem\n", "\n\n### Question\n", "\n\n**Problem 2**\n"),
            *("\n\nExercise 3. ", "\n\nProblem statement: ", "\n\nMath problem: ", "\n\nFollow-up question: "),
            *("\nhuman: ", "\nuser: ", "\nproblem: ", "\n- Problem: ", "\nplease answer the question: "),
            *("</s>Question: ", "<|endoftext|>Question: ", "\n</s>Problem: ", "<|im_end|>\nUser: "),
        )
    ),
]


@pytest.mark.parametrize(("response", "answer"), RUN_ON)
def test_the_answer_before_another_problem_counts(response: str, answer: str | None) -> None:
    assert gsm8k.extract_answer(response, strict=False) == answer


def test_the_answer_of_another_problem_is_no_strict_answer() -> None:
    assert gsm8k.extract_answer("So 4 pens.\n\nProblem: Tom has 3 pens.\n#### 3") is None
    assert gsm8k.equations("<<2+2=4>>\n\nHuman: <<3+6=9>>") == ["2+2=4"]


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("There are 3 boxes of 4.\nTask: find the total.\n3*4=12\n#### 12", "12"),
        ("There are 3 boxes of 4.\n\nTask: find the total.\n3*4=12\n#### 12", "12"),
        ("Given 3 and 4.\nInput: the two numbers\n3+4=7\n#### 7", "7"),
        ("Tom runs 3 days.\nExercise: he runs 4 miles each time.\n3*4=12\n#### 12", "12"),
        ("Let x = 3.\nExample: each box holds x pens.\n3*4=12\n#### 12", "12"),
        ("First she has 20.\nHuman: each takes two\n20-12=8\n#### 8", "8"),
        ("We have 3.\nUser: each takes two\n3*2=6\n#### 6", "6"),
        ("We know a=3, b=4.\nProblem: how many in total?\n3+4=7\n#### 7", "7"),
    ],
)
def test_a_solution_that_sets_out_its_own_problem_keeps_its_answer(response: str, answer: str) -> None:
    """Also in the strict reading, which labels the training set."""
    assert gsm8k.extract_answer(response) == gsm8k.extract_answer(response, strict=False) == answer


@pytest.fixture(scope="module")
def solved(published_data: Path) -> list[tuple[str, str | None, str]]:
    """Of 23,742 solutions every 19th, so that all 18 models take part: its text, its answer, and another problem."""
    with gzip.open(published_data / "model_solutions" / "gsm8k_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        completions = [json.loads(line)["completion"] for line in itertools.islice(lines, 0, None, 19)]
    with (published_data / "gsm8k" / "test.jsonl").open(encoding="utf-8") as lines:
        problems = ["{question}\n{answer}".format_map(json.loads(line)) for line in lines]
    answers = [gsm8k.extract_answer(completion, strict=False) for completion in completions]
    return list(zip(completions, answers, problems, strict=False))


@pytest.mark.parametrize(
    "opening", ["Problem:", "Exercise:", "Input:", "Human:", "User:", "Please answer the following question."]
)
def test_real_solutions_keep_their_answers_before_another_problem(
    solved: list[tuple[str, str | None, str]], opening: str
) -> None:
    assert len(solved) > 1200
    for completion, answer, problem in solved:
        assert gsm8k.extract_answer(f"{completion}\n\n{opening} {problem}", strict=False) == answer
