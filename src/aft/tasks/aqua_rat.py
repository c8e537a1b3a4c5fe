"""AQUA-RAT (Ling et al., arXiv 1705.04146): algebra questions with five options and a rationale that gives one.

It is published as 97,467 train, 254 dev and 254 test questions. The AFT paper (arXiv 2309.02144) takes a random 5,000
for training, 400 for validation and 1,254 for testing, and does not say from where. Here published test questions only
ever test, and published dev questions only ever validate: the 1,254 are the 254 test questions and 1,000 of train, the
400 are the 254 dev questions and 146 of train, and the training questions are 5,000 of the rest of train.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aft.bounds import CountOrZero, Seed
from aft.checked import checked
from aft.errors import DataError, SettingsError
from aft.tasks.base import Question
from aft.tasks.multiple_choice import LETTERS, answers_equal, choice_question, extract_answer, prompt
from aft.tasks.rows import (
    Row,
    checked_text,
    draw,
    field,
    file_rows,
    hub_rows,
    text_field,
    without_repeats,
)

__all__ = ["Settings", "answers_equal", "extract_answer", "load_questions", "prompt"]

logger = logging.getLogger(__name__)

HUB_DATASET = "deepmind/aqua_rat"

# The letter that an option is published with, "A)24", and its other spellings: "(A) 24", "[A] 24", "a) 24", "A. 24".
_LETTERED = re.compile(r"(?:[(\[][ ]?([A-Za-z])[ ]?[)\]]|([A-Za-z])[ ]?(?:\)|\.(?![A-Za-z]\.)|:(?![A-Za-z])))\s*")


@checked
class Settings:
    """Where AQUA-RAT comes from and how many questions are drawn for each split."""

    path: str | None = None
    """Folder with the files that are named below, as published; without it, the hub's `deepmind/aqua_rat`."""

    train_files: tuple[str, ...] = ("train.json",)
    """Files of the folder whose questions may train; `dev.json` and `test.json` are there besides."""

    revision: str = "33301c6a050c96af81f63cad5562cb5363e88971"
    """Commit of the hub's data set; not used with `path`."""

    train_size: CountOrZero = 5000
    """How many questions train."""

    validation_size: CountOrZero = 400
    """How many questions validate: published dev questions first, then published train questions."""

    test_size: CountOrZero = 1254
    """How many questions test: published test questions first, then published train questions."""

    split_seed: Seed = 0
    """Seed of the hash order in which questions are drawn; the order in the files plays no part."""

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a value that has no meaning."""
        if not self.train_files:
            raise SettingsError("The setting 'train_files' names no file; give the published train.json, for one.")


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """Questions of each split in published order, named by the published set and the 0-based row in it.

    A question that is asked twice (by `content_hash`) is kept once, in test rather than in dev rather than in train. A
    row of train cannot be trained on if a text of it is blank, or if its rationale would be read as another answer than
    its own because it holds a `####` or goes on to a next question. The log counts what is left out. Raises `DataError`
    for a missing file or a malformed row, `SettingsError` where there are fewer questions than asked for.
    """
    test, asked = without_repeats(_published(settings, "test"), frozenset(), "test questions of AQUA-RAT")
    dev, asked = without_repeats(_published(settings, "dev"), asked, "dev questions of AQUA-RAT")
    train, _ = without_repeats(_published(settings, "train"), asked, "train questions of AQUA-RAT")
    trainable = [question for question in train if extract_answer(question.reference) == question.answer]
    if len(trainable) < len(train):
        logger.warning(
            "Dropped %d train questions of AQUA-RAT: their rationales read as another answer.",
            len(train) - len(trainable),
        )
    tested, rest = _drawn("test", settings, test, trainable)
    validating, rest = _drawn("validation", settings, dev, rest)
    training, _ = _drawn("train", settings, rest, [])
    return {"train": training, "validation": validating, "test": tested}


def _drawn(
    split: str, settings: Settings, first: Sequence[Question], then: Sequence[Question]
) -> tuple[list[Question], list[Question]]:
    """The questions of a split, drawn from `first` and, as many as are missing, from `then`; what `then` has left."""
    size: int = getattr(settings, f"{split}_size")
    more = max(0, size - len(first))
    if more > len(then):
        raise SettingsError(
            f"The setting '{split}_size' is {size}, but {len(first) + len(then)} questions are left for it; "
            "choose fewer, for this split or for those drawn before it (test, then validation, then train)."
        )
    chosen = [*draw(first, size, settings.split_seed), *draw(then, more, settings.split_seed)]
    taken = {question.question_id for question in chosen}
    rest = [question for question in then if question.question_id not in taken]
    return [replace(question, split=split) for question in chosen], rest


def _published(settings: Settings, name: str) -> list[Question]:
    """The questions of one published set, in published order; of train only those that are whole."""
    rows = list(enumerate(_rows(settings, name)))
    whole = [(number, row) for number, row in rows if name != "train" or not _has_blank(row[1])]
    if len(whole) < len(rows):
        logger.warning("Dropped %d train questions of AQUA-RAT: a text of theirs is blank.", len(rows) - len(whole))
    return [_question(row, where, f"aqua_rat/{name}/{number:05d}", name) for number, (where, row) in whole]


def _has_blank(row: Any) -> bool:
    """Whether the question, the rationale or an option of a row is a text that says nothing."""
    if not isinstance(row, dict):
        return False  # malformed, and refused as such
    options = row.get("options")
    texts = [row.get("question"), row.get("rationale"), *(options if isinstance(options, list) else ())]
    return any(isinstance(text, str) and not _without_letter(text) for text in texts)


def _rows(settings: Settings, name: str) -> Iterator[Row]:
    if settings.path is None:
        yield from hub_rows(HUB_DATASET, "raw", {"dev": "validation"}.get(name, name), settings.revision)
        return
    for file in settings.train_files if name == "train" else (f"{name}.json",):
        yield from file_rows(settings.path, file, ".jsonl")


def _question(row: Any, where: str, question_id: str, split: str) -> Question:
    options = field(row, "options", where)
    if not isinstance(options, list) or len(options) != len(LETTERS):
        raise DataError(f"{where} has no list of {len(LETTERS)} options; restore the published file.")
    return choice_question(
        question_id=question_id,
        split=split,
        question=text_field(row, "question", where),
        choices=_unlettered([checked_text(text, "an option", where) for text in options], where),
        answer=field(row, "correct", where),
        reasoning=text_field(row, "rationale", where),
        where=where,
    )


def _unlettered(options: Sequence[str], where: str) -> list[str]:
    """What the options say, without the letters that they are published with; all have theirs, in order, or none."""
    letters = [(found[1] or found[2]).upper() if (found := _LETTERED.match(text)) else "-" for text in options]
    if "".join(letters) not in (LETTERS, "-" * len(LETTERS)):
        raise DataError(
            f"{where} has options with the letters {', '.join(letters)}; they must be {', '.join(LETTERS)} in this "
            "order, or none must have one."
        )
    return [_without_letter(text) for text in options]


def _without_letter(option: str) -> str:
    text = option.strip()
    lettered = _LETTERED.match(text)
    return text[lettered.end() :] if lettered else text
