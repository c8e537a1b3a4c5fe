"""Ratings of responses, by whoever gave them, and the ranking that follows from them."""

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aft.errors import DataError
from aft.records import Fields, number_in, read_rows

logger = logging.getLogger(__name__)

RATING_COLUMNS = ("question_id", "sample_index", "rating")
RESPONSE = "response"  # the column that may stand beside them
_ENDINGS = (".csv", ".jsonl", ".parquet")
_PLACES = 6  # means of the same ratings in another order may differ in their last bits, and must stay ties


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


class RatingsFile:
    """The ratings in a .csv, .jsonl or .parquet file, with hashes of the responses that they are of; no text.

    The file has `question_id`, `sample_index` and `rating`, in any order of rows; several ratings of one response are
    averaged, on whatever scale. With a column `response` every rating must be of the very text that it is joined to.
    Raises `DataError` for a file that is missing, empty or of another kind, and for the first row without these three,
    with another rating than a finite number, with more or fewer fields than are named, or with one of them twice; the
    three kinds of file are read alike.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.n_rows = path, 0
        self._given: dict[tuple[str, int], list[tuple[float, bytes | None]]] = {}
        for key, rating, response in _parsed(path):
            self.n_rows += 1
            self._given.setdefault(key, []).append((rating, None if response is None else _hash(response)))

    def of(self, feedback: pd.DataFrame, candidates: pd.DataFrame) -> tuple[pd.Series, dict[str, int]]:
        """The ratings of the rows of `feedback`, in its index, NaN = unrated, and their counts for `tell`.

        A rating counts for all `candidates` of its question with the same tokens, of which the feedback may have one.
        Raises `DataError` if one is of another text than its candidate.
        """
        alike: dict[tuple[str, tuple[int, ...]], dict[int, str]] = {}  # texts by sample
        columns = (candidates[name] for name in ("question_id", "sample_index", "response"))
        for ids, question_id, sample_index, response in zip(candidates["token_ids"].map(tuple), *columns, strict=True):
            alike.setdefault((question_id, ids), {})[int(sample_index)] = response
        rated = list(zip(feedback["question_id"], feedback["token_ids"].map(tuple), strict=True))
        given = {key: self._ratings(key[0], alike[key]) for key in dict.fromkeys(rated)}
        # fsum is exact: equal ratings of two candidates have the same mean in whatever order they come
        means = {key: math.fsum(some) / len(some) if some else math.nan for key, some in given.items()}
        found = pd.Series([means[key] for key in rated], index=feedback.index, dtype="float64", name="rating")
        rows_used = sum(map(len, given.values()))
        return found, {"candidates": len(found), "unrated": int(found.isna().sum()), "rows_used": rows_used}

    def _ratings(self, question_id: str, texts: Mapping[int, str]) -> list[float]:
        """All ratings of these samples of a question."""
        found = []
        for sample_index, text in texts.items():
            for rating, rated in self._given.get((question_id, sample_index), ()):
                if rated not in (None, _hash(text)):
                    raise DataError(
                        f"{self.path} rates another response than sample {sample_index} of {question_id}, as if it was "
                        "made for other samples; give the ratings of these ({seed} in the file's name stands for the "
                        "seed)."
                    )
                found.append(rating)
        return found

    def tell(self, counts: Mapping[str, int]) -> None:
        """Log the sums of the counts of `of`: candidates without a rating, and ratings of unknown candidates."""
        unrated, unknown = counts["unrated"], self.n_rows - counts["rows_used"]
        logger.log(
            logging.WARNING if unknown or unrated else logging.INFO,
            "%s rates %d of %d candidates; %d have no rating, and %d of its rows are of unknown candidates.",
            *(self.path, counts["candidates"] - unrated, counts["candidates"], unrated, unknown),
        )


def check_ending(path: Path) -> None:
    """Raise `DataError` if a ratings file is of none of the kinds that can be read, by the end of its name."""
    if path.suffix not in _ENDINGS:
        raise DataError(f"The ratings file {path} is of no known kind; it must end in {', '.join(_ENDINGS)}.")


def _parsed(path: Path) -> Iterator[tuple[tuple[str, int], float, str | None]]:
    """Question id with sample index, rating and, where there is one, the response of each row of a ratings file."""
    if not path.is_file():
        raise DataError(f"There is no ratings file {path}; give the path of one.")
    check_ending(path)
    names: tuple[str, ...] = ()  # of the fields that are read, as the first row has them
    for where, fields in read_rows(path):
        row = _checked(where, fields)
        names = names or tuple(row)
        if tuple(row) != names:
            raise DataError(
                f"{where} has a response where others have none, or none where others have one; give all rows one, or "
                "none."
            )
        question_id, index, rating = row["question_id"], number_in(row["sample_index"]), number_in(row["rating"])
        if not isinstance(question_id, str):
            raise DataError(f"{where} has the question_id {_short(question_id)}, which is no text.")
        if index is None or not index.is_integer():
            raise DataError(f"{where} has the sample_index {_short(row['sample_index'])}, which is no whole number.")
        if rating is None:
            raise DataError(
                f"{where} has the rating {_short(row['rating'])}, no finite number; leave out what is not rated."
            )
        if not isinstance(row.get("response", ""), str):
            raise DataError(f"{where} has the response {_short(row['response'])}, which is no text.")
        yield (question_id, int(index)), rating, row.get("response")
    if not names:
        raise DataError(
            f"{path} holds no rating; a ratings file needs {', '.join(RATING_COLUMNS)}, and a row for each."
        )


def _checked(where: str, fields: Fields) -> dict[str, Any]:
    """The fields of a row that are read, always in the same order; all are there, once, and under their own names."""
    names, values = fields
    there = names[: len(values)]
    missing = [name for name in RATING_COLUMNS if name not in there]
    if missing:
        raise DataError(f"{where} has no {' and no '.join(missing)}; a ratings file needs {', '.join(RATING_COLUMNS)}.")
    if len(values) != len(names):
        raise DataError(
            f"{where} has {len(values)} fields, but {len(names)} are named; quote those that hold a comma, and leave "
            "none out."
        )
    read = (*RATING_COLUMNS, RESPONSE)
    unclear = [name for name in names if name.strip().lower() in read and (name not in read or names.count(name) > 1)]
    if unclear:
        raise DataError(
            f"{where} has the field {_short(unclear[0])} twice or misspelt; name each of {', '.join(read)} once, as "
            "here."
        )
    row = dict(zip(names, values, strict=True))
    return {name: row[name] for name in read if name in row}


def _hash(text: str) -> bytes:
    """Python's own differs between processes, and a worker has this one's."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _short(value: Any) -> str:
    return repr(value)[:40]
