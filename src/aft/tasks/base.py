"""What a question is, and what a task family must say about it.

A task family is a module of `aft.tasks` with the five names of `Task`. It owns the prompt *and* the answer check, so
that training, labelling and evaluation cannot disagree. A family outside this package joins by its dotted name. A
family whose steps can be judged without a model has the two names of `StepwiseTask` as well. One that only brings the
questions of other families together has the two names of `Source`. A family that writes its questions from patterns
says `GENERATED = True`: they resemble one another by design, and are not searched for near-duplicates.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its reference chain of thought (COT), as it stands in the `questions` table."""

    question_id: str  # stable, for example "gsm8k/train/00017"
    dataset: str  # the task family that owns prompt and check
    split: str  # "train", "validation" or "test"
    question: str  # the text as asked
    choices: tuple[str, ...] | None  # the options of a multiple-choice question
    reference: str  # the COT with its final answer, as trained on; empty if there is none
    answer: str  # the final answer in canonical form
    content_hash: str  # of question and choices; equal hashes are the same question
    prompt: str = ""  # the whole prompt where settings make it; empty where the family alone does


class Source(Protocol):
    """Where questions come from; a plain module satisfies it."""

    Settings: type[Any]  # the family's own settings, a class made by `aft.checked.checked`

    def load_questions(self, settings: Any) -> Mapping[str, list[Question]]:
        """Questions of each split in `SPLITS`, in a stable order; raises `DataError` for a malformed row."""
        ...


class Task(Source, Protocol):
    """The interface of a task family; a plain module satisfies it."""

    def prompt(self, question: Question) -> str:
        """The text that the model continues with a response; it ends exactly where the response begins."""
        ...

    def extract_answer(self, response: str, *, strict: bool = True) -> str | None:
        """The canonical final answer of a response, None if there is none; total and linear in time.

        `strict` accepts the family's own answer marker only; otherwise other models' ways to answer count too.
        """
        ...

    def answers_equal(self, answer: str, other: str) -> bool:
        """Whether two canonical answers are the same answer."""
        ...


class StepwiseTask(Task, Protocol):
    """What a family may say in addition about the steps of a response; feedback that reads steps needs it."""

    def wrong_steps(self, question: Question, response: str) -> list[str]:
        """One short sentence per wrong step of a response, none for a flawless one; total and linear in time."""
        ...

    def equations(self, response: str) -> list[str]:
        """The equations of a response in order, without blanks; total and linear in time."""
        ...


def content_hash(question: str, choices: tuple[str, ...] | None = None) -> str:
    """Hash of what is asked: case, white space and punctuation at the ends do not make a new question."""
    parts = [question, *(choices or ())]
    normalised = "\x1f".join(re.sub(r"\s+", " ", part).strip(" .?!").casefold() for part in parts)
    return hashlib.sha256(normalised.encode()).hexdigest()[:16]


def spaceless_hash(question: str, choices: tuple[str, ...] | None = None) -> str:
    """The same without any white space: tokenised data sets write "the beach ."."""
    parts = ["".join(part.split()) for part in (question, *(choices or ()))]
    return content_hash(parts[0], tuple(parts[1:]))


def hashes_of(question: str, choices: tuple[str, ...] | None = None) -> set[str]:
    """All hashes by which what is asked is known, whichever data set it is from: held-out questions by each of them."""
    return {content_hash(question, choices), spaceless_hash(question, choices)}


def identities(question: Question) -> set[str]:
    """The same of a question: the hash that its family gives it, and the one without white space."""
    return {question.content_hash, spaceless_hash(question.question, question.choices)}
