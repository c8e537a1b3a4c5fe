"""The rows of a person's own files and of published ones: CSV, JSON, JSON lines or Parquet, packed with gzip or not.

Each comes with the words that name it in an error, such as "dev.json, row 3".
"""

import csv
import gzip
import io
import json
import math
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from aft.errors import DataError

Fields = tuple[Sequence[str], Sequence[Any]]  # the names and the values of a row, of which there may be more or fewer
Row = tuple[str, Fields]  # the words that name a row in an error, and its fields

_MEND = "mend it, or write it again"
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")


def read_rows(path: Path) -> Iterator[Row]:
    """Each row of a file that ends in one of `READERS`; fields are as they stand there, a name may come twice.

    Blank lines are passed over. Raises `DataError` naming the file, and the line or row, if it cannot be read;
    `KeyError` for another ending.
    """
    return ((where, fields) for where, fields in _rows(path) if fields is not None)


def read_objects(path: Path, ending: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `read_rows`, each row by the names of its fields; `ending` says how the file is read if its name does not.

    Raises `DataError` as well for a blank line, for a name that comes twice, and for more or fewer fields than names.
    """
    for where, fields in _rows(path, ending):
        names, values = fields or ((), ())
        if fields is None:
            raise DataError(f"{where} is blank; {_MEND}.")
        if len(set(names)) < len(names):
            raise DataError(f"{where} names a field twice; {_MEND}.")
        if len(names) != len(values):
            raise DataError(f"{where} has another number of fields than are named; {_MEND}.")
        yield where, dict(zip(names, values, strict=True))


def _rows(path: Path, ending: str | None = None) -> Iterator[tuple[str, Fields | None]]:
    """Each row; None for a blank line."""
    read = READERS[ending or Path(path.name.removesuffix(".gz")).suffix]
    try:
        with gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from read(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {_MEND}.") from error


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


def _csv_rows(file: io.BufferedIOBase, path: Path) -> Iterator[tuple[str, Fields | None]]:
    reader = csv.reader(_csv_lines(file), strict=True)
    begins = 1  # the line of the next row, which may have several
    try:
        header = next(reader, [])
        begins = reader.line_num + 1
        for row in reader:
            if row:
                yield f"{path}, line {begins}", (header, row) if row[1:] or row[0].strip() else None
            begins = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {reader.line_num + 1} is not UTF-8 text; {_MEND}.") from error
    except csv.Error as error:
        raise DataError(f"{path}, line {begins} begins what is no CSV ({error}); {_MEND}.") from error


def _csv_lines(file: io.BufferedIOBase) -> Iterator[str]:
    """Decoded one by one, so that an error is that of its line; with their ends, which may be those of any system."""
    for number, line in enumerate(file):
        yield from io.StringIO((line if number else line.removeprefix(BOM_UTF8)).decode(), newline="")


def _json_lines(file: io.BufferedIOBase, path: Path) -> Iterator[tuple[str, Fields | None]]:
    for number, line in enumerate(file, start=1):
        text = line.removeprefix(BOM_UTF8) if number == 1 else line
        where = f"{path}, line {number}"
        yield where, _fields(_parsed(text, where), where) if text.strip() else None


def _json_rows(file: io.BufferedIOBase, path: Path) -> Iterator[tuple[str, Fields | None]]:
    rows = _parsed(file.read().removeprefix(BOM_UTF8), str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path} is not a JSON array; write one, or a row on each line of a .jsonl file.")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        yield where, _fields(row, where)


def _parquet_rows(file: io.BufferedIOBase, path: Path) -> Iterator[tuple[str, Fields | None]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        table = ParquetFile(file)
        for batch in table.iter_batches():
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield f"{path}, row {number}", (table.schema_arrow.names, values)
    except (OSError, ValueError, ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is not Parquet ({reason}); {_MEND}.") from error


READERS = {".jsonl": _json_lines, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
"""How a file is read, by the end of its name."""


class _Object(tuple[tuple[str, Any], ...]):
    """The pairs of a JSON object: a dictionary would keep one of two fields of one name without a word."""

    __slots__ = ()


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode(), object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({error}); {_MEND}.") from error


def _fields(row: Any, where: str) -> Fields:
    if not isinstance(row, _Object):
        raise DataError(f"{where} is no object with fields; {_MEND}.")
    return [name for name, _ in row], [_plain(value) for _, value in row]


def _plain(value: Any) -> Any:
    if isinstance(value, _Object):
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
