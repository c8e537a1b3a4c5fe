"""MAWPS: sets that overlap, answers that are floats, errors, and published rows."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aft.errors import DataError, SettingsError
from aft.pipelines.ingest.nodes import load_questions as ingest
from aft.pipelines.parameters import TaskChoice
from aft.tasks import get_task, gsm8k, mawps
from aft.tasks.base import SPLITS

DATA = Path(os.environ.get("AFT_DATA_DIR") or Path(__file__).parents[2] / ".." / "shared" / "data")
needs_data = pytest.mark.skipif(
    not (DATA / "mawps" / "AddSub.json").is_file(),
    reason="the published data are not there; name their folder in AFT_DATA_DIR",
)


def _row(question: object, solutions: object = ("43",)) -> dict[str, object]:
    return {"iIndex": 1, "lEquations": ["X = 70 - 27"], "lSolutions": solutions, "sQuestion": question}


def _publish(folder: Path, rows: Sequence[object], name: str = "AddSub") -> str:
    (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return str(folder)


def _settings(path: str, *sets: Any, limit: int | None = None) -> mawps.Settings:
    return mawps.Settings(path, sets or ("AddSub",), limit)


def test_it_is_a_task_family() -> None:
    assert get_task("mawps") is not None


def test_everything_is_test(tmp_path: Path) -> None:
    path = _publish(tmp_path, [_row(" How many shells ? "), _row("What part ?", [0.8333333333333334])])
    splits = mawps.load_questions(_settings(path))
    assert [len(splits[split]) for split in SPLITS] == [0, 0, 2]
    first, part = splits["test"]
    assert (first.question_id, first.dataset, first.split) == ("mawps/AddSub/00000", "mawps", "test")
    assert (first.question, first.reference, first.answer) == ("How many shells ?", "#### 43", "43")
    assert mawps.prompt(first) == gsm8k.prompt(first)
    answer = mawps.extract_answer("#### 5/6")
    assert answer == "5/6" and mawps.answers_equal(answer, part.answer)
    assert not mawps.answers_equal("0.8", part.answer)
    assert mawps.load_questions(_settings(path, limit=1))["test"] == [first]


def test_sets_that_overlap_ask_each_question_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MultiArith repeats a question of AddSub with other spaces, and the selection one of MultiArith."""
    _publish(tmp_path, [_row("Joan found 70 shells . How many ?")])
    path = _publish(tmp_path, [_row("Joan found 70 shells. How many?"), _row("Debby had 32.")], "MultiArith")
    selected = [{"question": "Debby had 32 .", "answer": 5.0}, {"question": "Bryan has 56 .", "answer": 504.0}]
    (tmp_path / "mawps_1920.jsonl").write_text("\n".join(map(json.dumps, selected)), encoding="utf-8")
    questions = mawps.load_questions(_settings(path, "AddSub", "MultiArith", "mawps_1920"))["test"]
    assert [q.question_id for q in questions] == [
        "mawps/AddSub/00000",
        "mawps/MultiArith/00001",
        "mawps/mawps_1920/00001",
    ]
    assert questions[-1].answer == "504"
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "Dropped 1 of the 2 questions of MAWPS' MultiArith",
        "Dropped 1 of the 2 questions of MAWPS' mawps_1920",
    ]


def test_settings_without_a_meaning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="test_limit"):
        _settings("x", limit=-1)
    for sets in ((), ("addsub",)):
        with pytest.raises(SettingsError, match=r"'sets' is .* choose of AddSub, MultiArith, SingleEq, mawps_1920"):
            mawps.Settings("x", sets)  # pyright: ignore[reportArgumentType]
    own = TaskChoice("pocket", {"train": 2, "validation": 1, "test": 2})
    with pytest.raises(SettingsError, match="path is missing"):
        ingest(own, {"elsewhere": TaskChoice("mawps", {})})
    choice = TaskChoice("mawps", {"path": _publish(tmp_path, [_row("How many?")]), "sets": ["AddSub"]})
    assert ingest(own, {"elsewhere": choice})[3]["split"].tolist() == ["validation", "elsewhere"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ([], "lacks the field 'sQuestion'"),
        ({"sQuestion": "How many?"}, "lacks the field 'lSolutions'"),
        (_row(""), "has no text in the field 'sQuestion'"),
        (_row("How many?", []), "has no list of one number"),
        (_row("How many?", ["1", "2"]), "has no list of one number"),
        (_row("How many?", 43), "has no list of one number"),
        (_row("How many?", ["some"]), "has the answer 'some', which is no number"),
    ],
)
def test_a_malformed_row_is_refused_with_its_place(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(DataError, match=r"AddSub\.json, item 2 ") as caught:
        mawps.load_questions(_settings(_publish(tmp_path, [_row("What?"), row])))
    assert complaint in str(caught.value)


@needs_data
def test_the_published_sets() -> None:
    """395 + 600 + 508 rows; MultiArith repeats 20 of its own, and 110 of SingleEq are in AddSub."""
    questions = mawps.load_questions(mawps.Settings(str(DATA / "mawps")))["test"]
    counts = Counter(question.question_id.split("/")[1] for question in questions)
    assert counts == {"AddSub": 395, "MultiArith": 600 - 20, "SingleEq": 508 - 110}
    selection = mawps.load_questions(_settings(str(DATA / "mawps"), "mawps_1920"))["test"]
    for question in [*questions, *selection]:
        assert mawps.extract_answer(question.reference) == question.answer
        assert mawps.extract_answer(question.reference, strict=False) == question.answer


@needs_data
def test_published_fractions_are_recognised() -> None:
    """Every third, sixth, eighth or twelfth that a set has as a float agrees with the fraction that it stands for."""
    questions = mawps.load_questions(_settings(str(DATA / "mawps"), "AddSub"))["test"]
    fractions = {question.answer for question in questions if len(question.answer) > 10}
    assert {"0.8333333333333334", "0.6666666666666666", "10.333333333333334"} <= fractions
    known = [f"{n}/{d}" for d in (3, 6, 9, 12) for n in range(1, 35)]
    assert all(any(mawps.answers_equal(answer, fraction) for fraction in known) for answer in fractions)
