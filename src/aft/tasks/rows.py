"""The rows of data sets: read from a folder or the hub, checked field by field, drawn by seeded hashes.

A row comes with the words that name it in an error, such as "dev.json, line 3". Whatever is wrong with one, and a file
that is not there, is a `DataError` that says where.
"""

import csv
import gzip
import hashlib
import io
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from aft.errors import DataError
from aft.hub import message_of
from aft.tasks.answers import canonical_number
from aft.tasks.base import Question, content_hash

logger = logging.getLogger(__name__)

Row = tuple[str, Any]  # where it stands, and what stands there
MEND = "mend it, or restore the published file"


def json_lines(folder: str, name: str) -> Iterator[Row]:
    """Each line of the file `name` of a folder as JSON; the file may be packed with gzip, its name ending in .gz."""
    path, content = _content(folder, name)
    for number, line in enumerate(content.splitlines(), start=1):
        where = f"{path}, line {number}"
        yield where, _parsed(line, where)


def json_array(folder: str, name: str) -> Iterator[Row]:
    """Each item of the JSON array that the file `name` of a folder holds; it may be packed with gzip, too."""
    path, content = _content(folder, name)
    rows = _parsed(content, str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path} is not a JSON array; {MEND}.")
    for number, row in enumerate(rows, start=1):
        yield f"{path}, item {number}", row


def csv_rows(folder: str, name: str) -> Iterator[Row]:
    """Each record of the CSV file `name` of a folder, by the names in its first line; it may be packed with gzip."""
    path, content = _content(folder, name)
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line} is not UTF-8 text; {MEND}.") from error
    done = 0  # lines
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise DataError(f"{path}, line 1 names a field twice; {MEND}.")
        done = reader.line_num
        for row in reader:
            done = reader.line_num
            where = f"{path}, line {done - sum(str(cell).count(chr(10)) for cell in row.values())}"
            if None in row or None in row.values():
                raise DataError(f"{where} has another number of fields than line 1; {MEND}.")
            yield where, row
    except csv.Error as error:
        raise DataError(f"{path}, line {done + 1} begins what is no CSV ({error}); {MEND}.") from error


def parquet_rows(folder: str, name: str) -> Iterator[Row]:
    """Each row of the Parquet file `name` of a folder, counted from 1."""
    import pyarrow as pa
    from pyarrow import parquet

    path = Path(folder) / name
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not Parquet ({message_of(error)}); {MEND}.") from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


READERS: Mapping[str, Callable[[str, str], Iterator[Row]]] = {
    ".jsonl": json_lines,
    ".json": json_array,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}


def file_rows(folder: str, name: str) -> Iterator[Row]:
    """Each row of the file `name` of a folder, whose ending, one of `READERS` or that and .gz, says what it is."""
    return READERS[Path(name.removesuffix(".gz")).suffix](folder, name)


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


def _content(folder: str, name: str) -> tuple[Path, bytes]:
    """The file `name` of a folder, or else `name`.gz, and what it holds, unpacked."""
    plain = Path(folder) / name
    packed = plain.with_name(f"{plain.name}.gz")
    path = packed if packed.is_file() and not plain.is_file() else plain
    if not path.is_file():
        raise DataError(f"There is no file {plain} (nor {packed.name}); the setting 'path' must name a folder with it.")
    try:
        content = path.read_bytes()
        return path, gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {MEND}.") from error


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))  # some programs begin a file with a byte order mark
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({error}); {MEND}.") from error
