"""GSM8K (Cobbe et al., arXiv 2110.14168): grade-school mathematics with one number as the answer.

It is published as a train and a test set. The AFT paper (arXiv 2309.02144) takes 400 of the 1,319 test
questions for validation, which leaves 919; the setting `validation_from` can spare the test set instead.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

from aft.bounds import CountOrZero, Seed
from aft.checked import checked
from aft.errors import DataError, SettingsError
from aft.tasks.answers import (
    after_thoughts,
    boxed_number,
    canonical_number,
    last_match,
    last_number,
    numbers_equal,
    stated_number,
)
from aft.tasks.base import Question, content_hash
from aft.tasks.calculator import TOLERANCE, value_of
from aft.tasks.rows import draw, hub_rows, json_lines, text_field, without_repeats
from aft.tasks.run_on import own_part

HUB_DATASET = "openai/gsm8k"

PROMPT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{question}\n\n### Response:\n"
)
_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")
_MARKED = re.compile(r"(?<!#)####(?!#)([^\n]*)")
_NUMBER_FIRST = re.compile(r"[\W_]{0,12}[0-9]")  # "#### 7 packs and 2", but not the heading "#### Step 1"
# "Final answer: How many are left?" only repeats the question: the line of a marker with a colon must hold
# a number and no question mark, or nothing, the number being on a line after it. Before nothing it is no marker.
_ANSWER_IS = re.compile(
    r"""\banswer[ ]is (?=[\W_]{0,40}[^\W_])
      | (?:\banswer\*{0,2}: | (?:^|\n)A:)
        (?= [\W_]{0,12}\n[^0-9]{0,300}[0-9] | [^\n0-9?]{0,300}+[0-9][^\n?]{0,300}+(?:\n|\Z) )""",
    re.IGNORECASE | re.VERBOSE,
)


@checked
class Settings:
    """Where GSM8K comes from and how it is split."""

    path: str | None = None
    """Folder with `train.jsonl` and `test.jsonl` as published; without it, the hub's `openai/gsm8k`."""

    revision: str = "e53f048856ff4f594e959d75785d2c2d37b678ee"
    """Commit of the hub's data set; not used with `path`."""

    validation_from: Literal["test", "train"] = "test"
    """Published set that validation is taken from: "test" as in the paper, "train" to keep the test whole."""

    validation_size: CountOrZero = 400
    """How many questions go to validation."""

    split_seed: Seed = 0
    """Seed of the hash order in which questions are drawn; the order in the file plays no part."""

    train_size: CountOrZero | None = None
    """How many questions train, drawn by the same hash order, as the paper's 1,000 of GSM8K-RANK; None = all."""

    train_limit: CountOrZero | None = None
    """Only the first so many training questions in published order, for small trials."""

    validation_limit: CountOrZero | None = None
    """Only the first so many validation questions in published order, for small trials."""

    test_limit: CountOrZero | None = None
    """Only the first so many test questions in published order, for small trials."""

    keep_calculator_marks: bool = True
    """Whether references keep GSM8K's calculator marks, <<48/2=24>>, as in the paper."""


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """Questions of each split in published order, named by the published set and the 0-based row in it.

    A question that is asked twice (by `content_hash`) is kept once, in test rather than in train; a warning
    counts what that drops. Raises `DataError` for a missing file or a malformed row, such as a reference with two
    different `####` (the same answer may stand there twice), `SettingsError` where there are fewer questions than asked
    for.
    """
    published = {name: _published(settings, name) for name in ("train", "test")}
    test, asked = without_repeats(published["test"], frozenset(), "test questions of GSM8K")
    train, _ = without_repeats(published["train"], asked, "train questions of GSM8K")
    questions = {"train": train, "test": test}
    source = questions[settings.validation_from]
    chosen = _validation_ids(source, settings)
    questions["validation"] = [replace(q, split="validation") for q in source if q.question_id in chosen]
    questions[settings.validation_from] = [q for q in source if q.question_id not in chosen]
    return {
        "train": _drawn(questions["train"], settings)[: settings.train_limit],
        "validation": questions["validation"][: settings.validation_limit],
        "test": questions["test"][: settings.test_limit],
    }


def prompt(question: Question) -> str:
    """Alpaca's template for an instruction without input; the response begins after its last line break."""
    return PROMPT.format(question=question.question)


def extract_answer(response: str, *, strict: bool = True) -> str | None:
    """The canonical number that a response ends on, None if there is none; total and linear in time.

    Strict: the number, with at most a unit, on the line of the *first* `####`. The first, because a model
    that does not stop at its answer goes on with further questions and answers; for the same reason nothing
    counts from the next "Question:" on (see `own_part`), and nothing in thoughts (see `after_thoughts`). Flexible,
    where the strict reading finds nothing: the first of the number after `####`, in the last LaTeX box, after the last
    "answer is", "Answer:" or "A:", and, without such a marker, the last number. A marker that nothing follows is none.
    """
    own = own_part(after_thoughts(response))
    marked = _MARKED.search(own)
    answer = canonical_number(marked[1]) if marked else None
    return answer if strict or answer else _flexible_answer(own, marked)


answers_equal = numbers_equal


def wrong_steps(question: Question, response: str) -> list[str]:
    """One sentence per wrong step, by comparison with the question's reference; total and linear in time.

    A step is a calculator mark, <<a=b>>, before the final answer. It is wrong

    - if a side cannot be computed, or its sides differ by 0.001 or more;
    - else if its result is foreign: none of the results of the reference's marks, by the same tolerance, nor the
      answer. Where the final answer is wrong, each foreign result counts. Where it is right, the response took another
      path, and all its foreign results count as one wrong step. Without a mark in the reference none is foreign.

    A final answer that is missing or wrong is one wrong step more.
    """
    answer = extract_answer(response)
    is_right = answer is not None and answers_equal(answer, question.answer)
    steps = [(mark, value_of(mark)) for mark in equations(response)]
    published = [result for result in map(value_of, equations(question.reference)) if result is not None]
    known = [*published, Fraction(question.answer)] if published else []

    def is_foreign(result: Fraction) -> bool:
        return bool(known) and all(abs(result - other) >= TOLERANCE for other in known)

    wrong = [f"The equation {mark[:80]} does not hold." for mark, result in steps if result is None]
    foreign = [mark for mark, result in steps if result is not None and is_foreign(result)]
    if is_right and foreign:
        wrong.append(f"Results that the reference does not have: {', '.join(foreign)}.")
    elif foreign:
        wrong += [f"The reference does not have the result of {mark}." for mark in foreign]
    if answer is None:
        wrong.append("There is no final answer.")
    elif not is_right:
        wrong.append(f"The final answer is {answer}, not {question.answer}.")
    return wrong


def equations(response: str) -> list[str]:
    """The texts of the calculator marks before the final answer, in order, without blanks: "48/2=24"."""
    own = own_part(after_thoughts(response))
    marked = _MARKED.search(own)
    marks = _CALCULATOR_MARK.findall(own[: marked.start()] if marked else own)
    return ["".join(mark[2:-2].split()) for mark in marks]


def _flexible_answer(own: str, marked: re.Match[str] | None) -> str | None:
    if marked and _NUMBER_FIRST.match(marked[1]):
        return stated_number(marked[1])
    if boxed := boxed_number(own):
        return boxed
    statement = last_match(_ANSWER_IS, own)
    return stated_number(own[statement.end() :]) if statement else last_number(own)


def _published(settings: Settings, name: str) -> list[Question]:
    """The questions of one published set, in published order."""
    rows = (
        hub_rows(HUB_DATASET, "main", name, settings.revision)
        if settings.path is None
        else json_lines(settings.path, f"{name}.jsonl")
    )
    return [
        _question(row, where, f"gsm8k/{name}/{number:05d}", name, settings.keep_calculator_marks)
        for number, (where, row) in enumerate(rows)
    ]


def _question(row: Any, where: str, question_id: str, split: str, keep_marks: bool) -> Question:
    """A published row as a `Question`, its texts with the white space at their ends."""
    for name in ("question", "answer"):
        text_field(row, name, where)
    question, reference = row["question"], row["answer"]
    answer = extract_answer(reference)
    if answer is None:
        raise DataError(f"{where} has no last line '#### <number>' in its answer; restore the published file.")
    if any(canonical_number(marked) != answer for marked in _MARKED.findall(reference)):
        raise DataError(f"{where} has another '####' than that of its answer, {answer}; leave one of them.")
    return Question(
        question_id=question_id,
        dataset="gsm8k",
        split=split,
        question=question,
        choices=None,
        reference=reference if keep_marks else _CALCULATOR_MARK.sub("", reference),
        answer=answer,
        content_hash=content_hash(question),
    )


def _validation_ids(source: list[Question], settings: Settings) -> set[str]:
    """Ids of the questions whose seeded hashes come first."""
    if settings.validation_size > len(source):
        raise SettingsError(
            f"The setting 'validation_size' is {settings.validation_size}, but the set that "
            f"'validation_from' names, {settings.validation_from}, has {len(source)} questions; choose fewer."
        )
    return {question.question_id for question in draw(source, settings.validation_size, settings.split_seed)}


def _drawn(train: list[Question], settings: Settings) -> list[Question]:
    """The training questions that the setting `train_size` leaves."""
    if settings.train_size is None:
        return train
    if settings.train_size > len(train):
        raise SettingsError(
            f"The setting 'train_size' is {settings.train_size}, but {len(train)} questions are left to train on; "
            "choose fewer, or null for all."
        )
    return draw(train, settings.train_size, settings.split_seed)
