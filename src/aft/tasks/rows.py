"""The rows of data sets: read from a folder or the hub, checked field by field, drawn by seeded hashes.

Whatever is wrong with a row, and a file that is not there, is a `DataError` that says where.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from aft.errors import DataError
from aft.hub import message_of
from aft.records import read_objects
from aft.tasks.answers import canonical_number
from aft.tasks.base import Question, content_hash

logger = logging.getLogger(__name__)

Row = tuple[str, Any]  # where it stands, and what stands there
MEND = "mend it, or restore the published file"


def file_rows(folder: str, name: str, ending: str | None = None) -> Iterator[Row]:
    """Each row of the file `name` of a folder, or else of `name`.gz; see `aft.records.read_objects`."""
    plain = Path(folder) / name
    packed = plain.with_name(f"{plain.name}.gz")
    if not plain.is_file() and not packed.is_file():
        raise DataError(f"There is no file {plain} (nor {packed.name}); the setting 'path' must name a folder with it.")
    yield from read_objects(plain if plain.is_file() else packed, ending)


def hub_rows(dataset: str, config: str | None, split: str, revision: str) -> Iterator[Row]:
    """Each row of a split of a data set on the hub, at the given commit."""
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset, config, split=split, revision=revision)
    except (OSError, ValueError) as error:  # offline, or no such revision
        raise DataError(
            f"The data set {dataset} at revision {revision} cannot be fetched ({message_of(error)}); "
            "check the connection, or let the setting 'path' name a folder with the published files."
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{dataset}, {split} row {number}", row


def field(row: Any, name: str, where: str) -> Any:
    """The field `name` of a row."""
    if not isinstance(row, dict) or name not in row:
        raise DataError(f"{where} lacks the field '{name}'; {MEND}.")
    return row[name]


def text_field(row: Any, name: str, where: str) -> str:
    """The field `name` of a row, text that is not blank, without the white space at its ends."""
    return checked_text(field(row, name, where), f"the field '{name}'", where)


def checked_text(value: Any, what: str, where: str) -> str:
    """`value`, text that is not blank and that a table can hold, without the white space at its ends."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where} has no text in {what}; {MEND}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # a lone surrogate, which JSON can spell but no table can hold
        raise DataError(f"{where} is not Unicode text ({error}); {MEND}.") from error
    return value.strip()


def number_question(*, question_id: str, question: str, answer: Any, where: str) -> Question:
    """A test question whose answer, a number or text that states one, is all its reference; its id begins with its
    family."""
    stated = repr(answer) if isinstance(answer, int | float) else answer
    canonical = canonical_number(stated) if isinstance(stated, str) else None
    if canonical is None:
        raise DataError(f"{where} has the answer {str(answer)[:40]!r}, which is no number; {MEND}.")
    return Question(
        question_id=question_id,
        dataset=question_id.partition("/")[0],
        split="test",
        question=question,
        choices=None,
        reference=f"#### {canonical}",
        answer=canonical,
        content_hash=content_hash(question),
    )


def without_repeats(questions: Sequence[Question], asked: Set[str], title: str) -> tuple[list[Question], set[str]]:
    """The questions that were not `asked` before (by content hash), and all that have been asked now.

    A warning, which calls the questions `title`, counts those that it leaves out.
    """
    asked_now = set(asked)
    kept = []
    for question in questions:
        if question.content_hash not in asked_now:
            kept.append(question)
        asked_now.add(question.content_hash)
    if len(kept) < len(questions):
        logger.warning(
            "Dropped %d of the %d %s: they are asked twice there, or in a set that is held out, too.",
            len(questions) - len(kept),
            len(questions),
            title,
        )
    return kept, asked_now


def draw(questions: Sequence[Question], size: int, seed: int) -> list[Question]:
    """The `size` questions whose seeded hashes come first, or all, in their given order; it plays no part otherwise."""

    def seeded_hash(question: Question) -> str:
        return hashlib.sha256(f"{seed}:{question.content_hash}".encode()).hexdigest()

    chosen = {question.question_id for question in sorted(questions, key=seeded_hash)[:size]}
    return [question for question in questions if question.question_id in chosen]
