"""The rows of a person's own files, CSV, JSON, JSON lines or Parquet, each with the words that name it in an error."""

import csv
import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from aft.errors import DataError

Fields = tuple[Sequence[str], Sequence[Any]]  # the names and the values of a row, of which there may be more or fewer
Row = tuple[str, Fields]  # the words that name a row in an error, and its fields

_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")


def read_rows(path: Path) -> Iterator[Row]:
    """Each row of a file that ends in one of `READERS`; fields are as they stand there, a name may come twice.

    Raises `DataError` naming the file, and the line or row, if it cannot be read; `KeyError` for another ending.
    """
    return READERS[path.suffix](path)


def number_in(value: Any) -> float | None:
    """The finite number that a field holds, also as text; else None."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None  # Python reads 1_0 and the digits of every script as well
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for row in reader:
                if row[1:] or "".join(row).strip():
                    yield f"{path}, line {reader.line_num}", (header, row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is no CSV in UTF-8 after line {reader.line_num} ({error}); write it again."
            ) from error


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(BOM_UTF8) if number == 1 else line
            if text.strip():
                where = f"{path}, line {number}"
                yield where, _fields(_parsed(text, where))


def _json_rows(path: Path) -> Iterator[Row]:
    rows = _parsed(path.read_bytes().removeprefix(BOM_UTF8), str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path} is no JSON array of rows; write one, or a row on each line of a .jsonl file.")
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", _fields(row)


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            for batch in file.iter_batches():
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield f"{path}, row {number}", (names, values)
    except (OSError, ValueError, ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is no Parquet file that can be read ({reason}); write it again.") from error


READERS = {".csv": _csv_rows, ".json": _json_rows, ".jsonl": _json_lines, ".parquet": _parquet_rows}
"""How a file is read, by the end of its name."""


class _Object(tuple[tuple[str, Any], ...]):
    """The pairs of a JSON object: a dictionary would keep one of two fields of one name without a word."""

    __slots__ = ()


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode(), object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({error}); write it again.") from error


def _fields(row: Any) -> Fields:
    pairs = row if isinstance(row, _Object) else ()
    return [name for name, _ in pairs], [_plain(value) for _, value in pairs]


def _plain(value: Any) -> Any:
    if isinstance(value, _Object):
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
