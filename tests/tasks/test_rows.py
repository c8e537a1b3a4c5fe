"""Rows of published data sets: read whole or refused with their place, kept once, drawn by seed."""

import gzip
import sys
import types
from pathlib import Path

import pytest

from aft.errors import DataError
from aft.tasks import rows
from aft.tasks.base import Question


def _questions(texts: str, split: str = "test") -> list[Question]:
    """One question per letter, its id the place."""
    return [
        rows.number_question(question_id=f"made/{split}/{number:05d}", question=text, answer=1, where="made")
        for number, text in enumerate(texts)
    ]


def _texts(questions: list[Question]) -> str:
    return "".join(question.question for question in questions)


@pytest.mark.parametrize("packed", [False, True])
def test_lines_and_items_are_read_with_their_places(tmp_path: Path, packed: bool) -> None:
    """A file may be packed; both kinds of file count from 1."""

    def write(name: str, content: str) -> Path:
        path = tmp_path / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
        return path

    lines, items = write("a.jsonl", '{"x": 1}\n{"x": "\u2028"}\n'), write("a.json", '[{"x": 7}, {}]')
    assert list(rows.file_rows(str(tmp_path), "a.jsonl")) == [
        (f"{lines}, line 1", {"x": 1}),
        (f"{lines}, line 2", {"x": "\u2028"}),
    ]
    assert list(rows.file_rows(str(tmp_path), "a.json")) == [(f"{items}, row 1", {"x": 7}), (f"{items}, row 2", {})]


def test_line_ends_and_byte_order_marks_of_other_programs_are_no_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"x": 1}\r\n{}\r\n')
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf[{},\r\n{"x": 8}]\r\n')
    assert [row for _, row in rows.file_rows(str(tmp_path), "a.jsonl")] == [{"x": 1}, {}]
    assert [row for _, row in rows.file_rows(str(tmp_path), "a.json")] == [{}, {"x": 8}]


def test_the_plain_file_is_read_before_the_packed_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}", encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"x": 2}'))
    assert [row for _, row in rows.file_rows(str(tmp_path), "a.jsonl")] == [{}]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", b"{}\n{\n", r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", b"{}\n\n{}\n", r"a\.jsonl, line 2 is blank"),
        ("a.jsonl", b"\xff\xfe1\n", r"a\.jsonl, line 1 is not JSON"),
        ("a.jsonl", "1\n".encode("utf-16"), r"a\.jsonl, line 1 is not JSON"),
        ("a.json", "[1]".encode("utf-16"), r"a\.json is not JSON"),
        ("a.jsonl", b'"\xed\xa0\x80"\n', r"a\.jsonl, line 1 is not JSON"),  # half of a pair
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl, line 1 is not JSON"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 999, mtime=0)[:-9], r"a\.jsonl\.gz cannot be read"),
        ("a.json", b'{"a": 1}', r"a\.json is not a JSON array"),
        ("a.json", b"[1, 2", r"a\.json is not JSON"),
        ("b.json", b"[]", r"no file .*a\.json.* \(nor a\.json.*\.gz\); the setting 'path' must name a folder"),
    ],
)
def test_a_broken_or_missing_file_is_named(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        list(rows.file_rows(str(tmp_path), "a.jsonl" if "jsonl" in name else "a.json"))


def test_the_hub_is_asked_for_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*name: object, **where: object) -> list[object]:
        assert (name, where) == (("a/b", "main"), {"split": "test", "revision": "abc"})
        return [{"x": 1}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert list(rows.hub_rows("a/b", "main", "test", "abc")) == [("a/b, test row 1", {"x": 1})]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no route", "no route"),
        (
            "404 Client Error. (Request ID: Root=1-a;b)\n\nRevision Not Found for url: x.\nLog in.",
            "404 Client Error; Revision Not Found for url: x; Log in",
        ),
    ],
)
def test_an_unreachable_hub_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, said: str, told: str) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError(said)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=rf"a/b at revision abc cannot be fetched \({told}\); check"):
        list(rows.hub_rows("a/b", None, "test", "abc"))


def test_fields_are_taken_or_named() -> None:
    assert rows.field({"x": 0}, "x", "here") == 0
    assert rows.text_field({"x": " a b\n"}, "x", "here") == "a b"
    for row in ({}, [], "x", None):
        with pytest.raises(DataError, match=r"^here lacks the field 'x'"):
            rows.field(row, "x", "here")
    for blank in ("", " \n", 3, None):
        with pytest.raises(DataError, match=r"^here has no text in the field 'x'"):
            rows.text_field({"x": blank}, "x", "here")
    with pytest.raises(DataError, match=r"^here is not Unicode text"):
        rows.text_field({"x": "\ud800"}, "x", "here")


@pytest.mark.parametrize(
    ("published", "canonical"),
    [
        (51.0, "51"),
        (7, "7"),
        (-120.0, "-120"),
        (2.5, "2.5"),
        (5.158e-07, "0.0000005158"),
        ("145.0", "145"),
        ("1/3",) * 2,
    ],
)
def test_a_published_number_is_the_whole_reference(published: object, canonical: str) -> None:
    question = rows.number_question(question_id="made/test/00003", question="How many?", answer=published, where="made")
    assert (question.dataset, question.split, question.choices) == ("made", "test", None)
    assert (question.answer, question.reference) == (canonical, f"#### {canonical}")


@pytest.mark.parametrize("published", [None, True, float("nan"), float("inf"), "two", "", [2], 10**50])
def test_what_is_no_number_is_refused(published: object) -> None:
    with pytest.raises(DataError, match=r"^made, line 2 has the answer .* which is no number"):
        rows.number_question(question_id="made/0", question="How many?", answer=published, where="made, line 2")


def test_a_question_asked_twice_is_kept_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Of a, b, A, c the third repeats the first, and b was asked before."""
    asked = {_questions("b")[0].content_hash}
    kept, asked_now = rows.without_repeats(_questions("abAc"), asked, "made questions")
    assert _texts(kept) == "ac"
    assert asked_now == {question.content_hash for question in _questions("abc")}
    (record,) = caplog.records
    assert "Dropped 2 of the 4 made questions" in record.getMessage()


def test_without_repeats_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert _texts(rows.without_repeats(_questions("abc"), set(), "made questions")[0]) == "abc"
    assert caplog.records == []


def test_a_draw_follows_the_seed_and_not_the_order() -> None:
    there, back = _questions("abcdefgh"), _questions("hgfedcba")
    drawn = rows.draw(there, 3, 0)
    assert len(drawn) == 3 and _texts(drawn) == "".join(sorted(_texts(drawn)))  # in the order given
    assert set(_texts(rows.draw(back, 3, 0))) == set(_texts(drawn))
    assert set(_texts(drawn)) <= set(_texts(rows.draw(there, 4, 0)))
    assert len({_texts(rows.draw(there, 3, seed)) for seed in range(5)}) > 1
    assert _texts(rows.draw(there, 9, 0)) == "abcdefgh"
    assert rows.draw(there, 0, 0) == []
