"""Ratings of responses, by whoever gave them, and the ranking that follows from them."""

import csv
import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aft.errors import DataError

logger = logging.getLogger(__name__)

RATING_COLUMNS = ("question_id", "sample_index", "rating")
_PLACES = 6  # means of the same ratings in another order may differ in their last bits, and must stay ties

_Row = tuple[str, Mapping[Any, Any]]  # the words that name a row in an error, and its fields


def with_ratings(feedback: pd.DataFrame, ratings: pd.Series) -> pd.DataFrame:
    """The feedback with `rating` and `rating_rank`: dense per question, 0 = the highest rating, ties stay ties.

    `ratings` has the index of `feedback`, NaN = unrated. A question with an unrated response has no ranking: all its
    rows get <NA>. Raises `DataError` for ratings of other rows and for an infinite rating.
    """
    if not ratings.index.equals(feedback.index):
        raise DataError("The ratings are not those of this feedback, their rows differ; rate it again.")
    ratings = ratings.astype("float64").rename("rating")
    infinite = feedback[np.isinf(ratings)]
    if len(infinite):
        first = infinite.iloc[0]
        raise DataError(
            f"{len(infinite)} ratings are infinite, first that of sample {first['sample_index']} of "
            f"{first['question_id']}; a rating must be a finite number."
        )
    ratings = ratings.round(_PLACES)
    by_question = ratings.groupby(feedback["question_id"])
    is_ranked = by_question.transform("count") == by_question.transform("size")
    ranks = by_question.rank(method="dense", ascending=False) - 1
    return feedback.assign(rating=ratings, rating_rank=ranks.where(is_ranked).astype("Int64"))


def read_ratings(path: Path, feedback: pd.DataFrame) -> pd.Series:
    """The ratings in a .csv, .jsonl or .parquet file, for the rows of `feedback` and in its index; NaN = unrated.

    The file has `question_id`, `sample_index` and `rating`, in any order of rows; several ratings of one candidate are
    averaged. Ratings of unknown candidates and candidates without one are counted and logged. With a column `response`
    every rating must be of the very text that it is joined to. Raises `DataError` for another text, for a file that is
    missing or of another kind, and for the first row without these three or with another rating than a finite number.
    """
    keys = list(zip(feedback["question_id"], feedback["sample_index"].map(int), strict=True))
    given: dict[tuple[str, int], list[float]] = {key: [] for key in keys}
    unknown = 0
    responses = dict(zip(keys, feedback["response"], strict=True))
    for (question_id, sample_index), rating, response in _parsed(path):
        if (question_id, sample_index) not in given:
            unknown += 1
        elif response is not None and response != responses[question_id, sample_index]:
            raise DataError(
                f"{path} rates another response than sample {sample_index} of {question_id}, as if it was made for "
                "other samples; give the ratings of these ({seed} in the file's name stands for the seed)."
            )
        else:
            given[question_id, sample_index].append(rating)
    # fsum is exact: equal ratings of two candidates have the same mean in whatever order they come
    ratings = [math.fsum(given[key]) / len(given[key]) if given[key] else math.nan for key in keys]
    unrated = sum(map(math.isnan, ratings))
    logger.log(
        logging.WARNING if unknown or unrated else logging.INFO,
        "%s rates %d of %d candidates; %d have no rating, and %d of its rows are of unknown candidates.",
        *(path, len(keys) - unrated, len(keys), unrated, unknown),
    )
    return pd.Series(ratings, index=feedback.index, dtype="float64", name="rating")


def _parsed(path: Path) -> Iterator[tuple[tuple[str, int], float, str | None]]:
    """Question id with sample index, rating and, where there is one, the response of each row of a ratings file."""
    if not path.is_file():
        raise DataError(f"There is no ratings file {path}; give the path of one.")
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        raise DataError(f"The ratings file {path} is of no known kind; it must end in {', '.join(readers)}.")
    for where, row in readers[path.suffix](path):
        missing = [name for name in RATING_COLUMNS if name not in row]
        if missing:
            raise DataError(
                f"{where} has no {' and no '.join(missing)}; a ratings file needs {', '.join(RATING_COLUMNS)}."
            )
        question_id, index, rating = row["question_id"], _number(row["sample_index"]), _number(row["rating"])
        if not isinstance(question_id, str):
            raise DataError(f"{where} has the question_id {_short(question_id)}, which is no text.")
        if index is None or not index.is_integer():
            raise DataError(f"{where} has the sample_index {_short(row['sample_index'])}, which is no whole number.")
        if rating is None:
            raise DataError(
                f"{where} has the rating {_short(row['rating'])}, no finite number; leave out what is not rated."
            )
        yield (question_id, int(index)), rating, row.get("response")


def _number(value: Any) -> float | None:
    """The finite number that a field holds, also as text; else None."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | int | float | np.number):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _short(value: Any) -> str:
    return repr(value)[:40]


def _csv_rows(path: Path) -> Iterator[_Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            # A row that is cut short lacks its last fields.
            yield from (
                (f"{path}, line {reader.line_num}", dict(zip(header, row, strict=False))) for row in reader if row
            )
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is no CSV in UTF-8 after line {reader.line_num} ({error}); write it again."
            ) from error


def _json_rows(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON ({error}); write it again.") from error
        if line.strip():
            yield where, row if isinstance(row, dict) else {}


def _parquet_rows(path: Path) -> Iterator[_Row]:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no Parquet file ({error}); write it again.") from error
    names = [name for name in RATING_COLUMNS if name in table]
    for number, values in enumerate(table[names].itertuples(index=False, name=None), start=1):
        yield f"{path}, row {number}", dict(zip(names, values, strict=True))
