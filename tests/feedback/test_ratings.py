"""Ratings become ranks, and are read from files by id."""

import json
import logging
import math
import random
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft.errors import DataError
from aft.feedback.ratings import RatingsFile, with_ratings


def feedback(*keys: tuple[str, int]) -> pd.DataFrame:
    rows = [(question_id, index, f"{question_id} {index}", [index]) for question_id, index in keys]
    return pd.DataFrame(rows, columns=["question_id", "sample_index", "response", "token_ids"])


def read_ratings(path: Path, rows: pd.DataFrame) -> pd.Series:
    """The ratings of some rows in a file, of which the log tells."""
    file = RatingsFile(path)
    ratings, counts = file.of(rows, rows)
    file.tell(counts)
    return ratings


ROWS = feedback(("a", 0), ("a", 1), ("a", 4), ("b", 0), ("b", 2))


# --- ranks ------------------------------------------------------------------------------------------------------------


def test_ranks_by_hand():
    """a: 9 is best, 7.5 twice second; b has one unrated response, and so no ranking."""
    rated = with_ratings(ROWS, pd.Series([7.5, 9.0, 7.5, 3.0, math.nan]))
    assert rated["rating_rank"].dtype == "Int64" and rated["rating"].dtype == "float64"
    assert rated["rating_rank"].fillna(-1).tolist() == [1, 0, 1, -1, -1]
    assert rated["rating"].fillna(-1).tolist() == [7.5, 9.0, 7.5, 3.0, -1]
    assert "rating" not in ROWS, "the feedback that was given stays as it was"


def test_new_ratings_replace_old_ones():
    once = with_ratings(ROWS, pd.Series([1.0, 2, 3, 4, 5]))
    again = with_ratings(once, pd.Series([3.0, 2, 1, 5, 4]))
    assert again["rating_rank"].tolist() == [0, 1, 2, 0, 1]
    assert list(again.columns) == list(once.columns)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([1.0, 2.5, 7.0, 10.0, math.nan])), max_size=20))
def test_ranks_are_dense_and_follow_the_ratings(rows):
    """Whatever the order of the rows and their index."""
    table = feedback(*((name, i) for i, (name, _) in enumerate(rows)))
    table.index = pd.Index(random.Random(0).sample(range(100), len(rows)))
    rated = with_ratings(table, pd.Series([rating for _, rating in rows], index=table.index, dtype="float64"))
    for _, group in rated.groupby("question_id"):
        if group["rating"].isna().any():
            assert group["rating_rank"].isna().all()
        else:
            by_rating = sorted(set(group["rating"]), reverse=True)
            assert group["rating_rank"].tolist() == [by_rating.index(rating) for rating in group["rating"]]


@pytest.mark.parametrize("infinite", [math.inf, -math.inf])
def test_an_infinite_rating_is_refused(infinite):
    with pytest.raises(DataError, match="1 ratings are infinite, first that of sample 4 of a"):
        with_ratings(ROWS, pd.Series([1.0, math.nan, infinite, 1.0, 1.0]))


@pytest.mark.parametrize("index", [[0, 1, 2, 3], [1, 0, 2, 3, 4], [0, 1, 2, 3, 5]])
def test_ratings_of_other_rows_are_refused(index):
    with pytest.raises(DataError, match="not those of this feedback"):
        with_ratings(ROWS, pd.Series(1.0, index=index))


def test_no_feedback_has_no_ranks():
    rated = with_ratings(ROWS.iloc[:0], pd.Series([], dtype="float64", index=ROWS.index[:0]))
    assert rated.empty and rated["rating_rank"].dtype == "Int64"


# --- files ------------------------------------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    [
        ("b", 2, 4.0, "x"),
        ("a", 4, 7.0, "y"),
        ("z", 0, 1.0, ""),
        ("a", 0, 10.0, "x"),
        ("a", 4, 8.0, "x"),
        ("a", 9, 2.0, ""),
    ],
    columns=["question_id", "sample_index", "rating", "judge"],
)


def write(folder, suffix, table=TABLE):
    path = folder / f"ratings{suffix}"
    if suffix == ".csv":
        table.to_csv(path, index=False)
    elif suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_ratings_are_joined_by_id_averaged_and_counted(tmp_path, suffix, caplog):
    """a 4 is rated 7 and 8; a 1 and b 0 are not; the rows of z and of a 9 are of no candidate."""
    rows = ROWS.set_index(pd.Index([9, 8, 7, 6, 5]))
    with caplog.at_level(logging.INFO):
        ratings = read_ratings(write(tmp_path, suffix), rows)
    assert ratings.fillna(-1).to_dict() == {9: 10.0, 8: -1, 7: 7.5, 6: -1, 5: 4.0}
    assert ratings.dtype == "float64" and ratings.name == "rating"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith(
        "rates 3 of 5 candidates; 2 have no rating, and 2 of its rows are of unknown candidates."
    )


def test_a_file_that_rates_every_candidate_is_no_reason_to_warn(tmp_path, caplog):
    path = write(tmp_path, ".csv", TABLE.iloc[[0]])
    with caplog.at_level(logging.INFO):
        assert read_ratings(path, ROWS.iloc[[4]]).tolist() == [4.0]
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_the_mean_does_not_depend_on_the_order(tmp_path):
    """0.1 + 0.2 + 0.3 is another float than 0.3 + 0.2 + 0.1, but the two candidates tie."""
    rows = [("a", 0, 0.1), ("a", 0, 0.2), ("a", 0, 0.3), ("a", 1, 0.3), ("a", 1, 0.2), ("a", 1, 0.1)]
    table = pd.DataFrame(rows, columns=["question_id", "sample_index", "rating"])
    ratings = read_ratings(write(tmp_path, ".jsonl", table), ROWS.iloc[:2])
    assert with_ratings(ROWS.iloc[:2], ratings)["rating_rank"].tolist() == [0, 0]


def test_text_files_may_be_written_by_hand(tmp_path):
    """A byte order mark, blank lines, Windows line ends, quotes, numbers as text, columns in any order."""
    path = tmp_path / "ratings.csv"
    path.write_bytes('\ufeffrating,"question_id",sample_index\r\n7.5,"a",1.0\r\n\r\n  \r\n8,b, 2\r\n'.encode())
    assert read_ratings(path, ROWS).fillna(-1).tolist() == [-1, 7.5, -1, -1, 8.0]
    path = tmp_path / "ratings.jsonl"
    path.write_text(
        '\ufeff\n{"rating": "9", "sample_index": "1", "question_id": "a", "reason": [{"of": 1}]}\n  \n',
        encoding="utf-8",
    )
    assert read_ratings(path, ROWS).fillna(-1).tolist() == [-1, 9.0, -1, -1, -1]


SUFFIXES = [".csv", ".jsonl", ".parquet"]


def write_rows(folder, suffix, names, *rows):
    """A file with these very fields, in which a CSV's values are text: rows may be ragged, names may come twice."""
    path = folder / f"ratings{suffix}"
    if suffix == ".csv":
        path.write_text("".join(",".join(map(str, row)) + "\n" for row in (names, *rows)), encoding="utf-8")
    elif suffix == ".jsonl":
        lines = [
            ", ".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in zip(names, row, strict=False)) for row in rows
        ]
        path.write_text("".join(f"{{{line}}}\n" for line in lines), encoding="utf-8")
    else:
        pq.write_table(pa.table(list(map(pa.array, zip(*rows, strict=True))), names=list(names)), path)
    return path


NAMES = ("question_id", "sample_index", "rating", "response")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("names", "row", "complaint"),
    [
        (NAMES, ("a", 0, 9.0, "another"), "rates another response than sample 0 of a"),
        (NAMES, ("a", 0, 9.0, ""), "rates another response than sample 0 of a"),
        ((*NAMES, "rating"), ("a", 0, 9.0, "a 0", 1.0), "rating"),  # pandas refuses such a Parquet file by itself
        ((*NAMES[:3], "Response"), ("a", 0, 9.0, "another"), "has the field 'Response' twice or misspelt"),
        ((*NAMES[:3], "response "), ("a", 0, 9.0, "another"), "has the field 'response ' twice or misspelt"),
        (("question_id", "sample_index", "score"), ("a", 0, 9.0), "has no rating"),
        (NAMES[:3], ("a", 0, True), "has the rating '?True'?, no finite number"),
        (NAMES[:3], ("a", 0, math.nan), "has the rating '?nan'?, no finite number"),
        (NAMES[:3], ("a", 0, -math.inf), "has the rating '?-inf"),
        (NAMES[:3], ("a", 0, "1_0"), "has the rating '1_0', no finite number"),
        (NAMES[:3], ("a", 0, "٩"), "has the rating '٩', no finite number"),
        (NAMES[:3], ("a", 0, "9.0 of 10"), "has the rating '9.0 of 10', no finite number"),
        (NAMES[:3], ("a", 0.5, 9.0), "has the sample_index '?0.5'?, which is no whole number"),
        (NAMES[:3], ("a", "first", 9.0), "has the sample_index 'first', which is no whole number"),
        (NAMES[:3], ("a", True, 9.0), "has the sample_index '?True'?, which is no whole number"),
    ],
    ids=str,
)
def test_the_three_formats_refuse_the_same_rows(tmp_path, suffix, names, row, complaint):
    with pytest.raises(DataError, match=complaint) as caught:
        read_ratings(write_rows(tmp_path, suffix, names, row), ROWS)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rating", [9, 9.0, "9.0", " +9 ", "0.9e1"], ids=repr)
@pytest.mark.parametrize("index", [0, 0.0, "0"], ids=repr)
def test_the_three_formats_take_the_same_rows(tmp_path, suffix, rating, index):
    """The response is compared, and other columns are left alone."""
    path = write_rows(tmp_path, suffix, (*NAMES, "judge", "seed"), ("a", index, rating, "a 0", "x", 7))
    assert read_ratings(path, ROWS).fillna(-1).tolist() == [9.0, -1, -1, -1, -1]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("response", [None, 7], ids=repr)
def test_a_response_that_is_no_text_is_refused(tmp_path, suffix, response):
    """None: as if there was none, the rating would be joined unseen. In CSV every field is text."""
    with pytest.raises(DataError, match=r"(line|row) 1 has the response (None|nan|7), which is no text"):
        read_ratings(write_rows(tmp_path, suffix, NAMES, ("a", 0, 9.0, response)), ROWS)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    "rows", [[("a", 0, 9.0, "a 0"), ("a", 1, 9.0)], [("a", 1, 9.0), ("a", 0, 9.0, "a 0")]], ids=str
)
def test_a_row_that_alone_has_no_response_is_refused(tmp_path, suffix, rows):
    with pytest.raises(DataError, match=r"line \d has (3 fields, but 4 are named|a response where others have none)"):
        read_ratings(write_rows(tmp_path, suffix, NAMES, *rows), ROWS)


def test_decimal_numbers_of_parquet_are_numbers(tmp_path):
    path = write_rows(tmp_path, ".parquet", NAMES[:3], ("a", 0, Decimal("8.25")))
    assert read_ratings(path, ROWS)[0] == 8.25


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_a_row_is_refused(tmp_path, suffix):
    """As a CSV file is whose only line is a rating and no header."""
    path = tmp_path / f"ratings{suffix}"
    if suffix == ".parquet":
        TABLE.iloc[:0].to_parquet(path)
    else:
        path.write_text("a,0,9.0\n" if suffix == ".csv" else "\n\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no rating; a ratings file needs question_id, sample_index, rating"):
        read_ratings(path, ROWS)


GOOD = {"question_id": "a", "sample_index": 0, "rating": 1}


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("rating", "high", "has the rating 'high', no finite number; leave out"),
        ("rating", "", "has the rating ''"),
        ("rating", None, "has the rating None"),
        ("rating", math.nan, "has the rating nan"),
        ("rating", math.inf, "has the rating inf"),
        ("rating", 10**400, "has the rating 1000"),
        ("rating", True, "has the rating True"),
        ("rating", [1], r"has the rating \[1\]"),
        ("sample_index", 1.5, "has the sample_index 1.5, which is no whole number"),
        ("sample_index", "first", "has the sample_index 'first'"),
        ("sample_index", None, "has the sample_index None"),
        ("question_id", 7, "has the question_id 7, which is no text"),
        ("question_id", None, "has the question_id None"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path, field, value, complaint):
    path = tmp_path / "ratings.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (GOOD, {**GOOD, field: value})), encoding="utf-8")
    with pytest.raises(DataError, match=f"ratings.jsonl, line 2 {complaint}"):
        read_ratings(path, ROWS)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("r.csv", "question_id,sample_index\na,0\n", "r.csv, line 2 has no rating; a ratings file needs question_id"),
        ("r.csv", "question_id,sample_index,rating\na,0,1\na\n", "line 3 has no sample_index and no rating"),
        ("r.csv", "question_id,sample_index,rating\na,0,1\na,1,?\n", "line 3 has the rating '\\?'"),
        ("r.csv", "question_id,sample_index,rating\na,0,1,5\n", "line 2 has 4 fields, but 3 are named"),
        ("r.csv", "question_id,sample_index,rating,judge\na,0,1\n", "line 2 has 3 fields, but 4 are named"),
        ("r.csv", "question_id,sample_index,rating\n ,,\n", "line 2 has the sample_index ''"),
        ("r.csv", 'question_id,sample_index,rating\n"a', "is no CSV"),
        ("r.csv", b"question_id,sample_index,rating\n\xff,0,1\n", "line 2 is not UTF-8 text"),
        ("r.jsonl", '{"question_id": "a"}\n', "line 1 has no sample_index and no rating"),
        ("r.jsonl", "[1]\n", "line 1 is no object with fields"),
        ("r.jsonl", '[["question_id", "a"]]\n', "line 1 is no object with fields"),
        ("r.jsonl", b'{"question_id": "\xff"}\n', "line 1 is not JSON"),
        ("r.jsonl", "\n{\n", "r.jsonl, line 2 is not JSON"),
        ("r.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("r.parquet", "no table", "is not Parquet"),
        ("r.xlsx", "", "must end in .csv, .jsonl, .parquet"),
        ("r", "", "must end in .csv, .jsonl, .parquet"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, name, content, complaint):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=complaint):
        read_ratings(path, ROWS)


@pytest.mark.parametrize(
    ("column", "complaint"), [("question_id", "row 1 has no question_id"), ("rating", "row 1 has no rating")]
)
def test_a_parquet_file_without_a_column_is_refused(tmp_path, column, complaint):
    with pytest.raises(DataError, match=complaint):
        read_ratings(write(tmp_path, ".parquet", TABLE.drop(columns=column)), ROWS)


def test_a_parquet_row_without_a_rating_is_refused_with_its_number(tmp_path):
    table = TABLE.assign(rating=TABLE["rating"].mask(TABLE["rating"] == 1.0))
    with pytest.raises(DataError, match="row 3 has the rating None"):
        read_ratings(write(tmp_path, ".parquet", table), ROWS)


def test_ratings_of_other_texts_are_refused(tmp_path):
    """As of a file that was made for the samples of another seed: the same ids, other responses."""
    rows = ["question_id,sample_index,rating,response", "a,0,7,a 0", "a,1,9,something else"]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(rows[:2]), encoding="utf-8")
    assert read_ratings(path, ROWS)[0] == 7
    path.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match="another response than sample 1 of a"):
        read_ratings(path, ROWS)


def test_responses_with_the_same_tokens_share_their_ratings_each_of_its_own_text(tmp_path):
    """As words that a tokenizer does not know: what is trained on is the same, what was rated is not the same text."""
    candidates = ROWS.iloc[:2].assign(token_ids=pd.Series([[7], [7]]))
    path = tmp_path / "ratings.csv"
    path.write_text("question_id,sample_index,rating,response\na,0,7,a 0\na,1,9,a 1\n", encoding="utf-8")
    ratings, counts = RatingsFile(path).of(candidates.iloc[:1], candidates)
    assert ratings.tolist() == [8] and counts["rows_used"] == 2
    path.write_text("question_id,sample_index,rating,response\na,1,9,a 0\n", encoding="utf-8")
    with pytest.raises(DataError, match="another response than sample 1 of a"):
        RatingsFile(path).of(candidates.iloc[:1], candidates)


def test_means_that_differ_in_their_last_bit_are_ties():
    """(1 + 1.1 + 1.2) / 3 and (1.1 + 1.1 + 1.1) / 3 are 1.0999999999999999 and 1.1 or so."""
    ratings = pd.Series([math.fsum([1.0, 1.1, 1.2]) / 3, math.fsum([1.1, 1.1, 1.1]) / 3, 1.0, 2.0, 1.0])
    assert with_ratings(ROWS, ratings)["rating_rank"].tolist() == [0, 0, 1, 0, 1]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no ratings file .*ratings\.csv; give the path of one"):
        read_ratings(tmp_path / "ratings.csv", ROWS)
