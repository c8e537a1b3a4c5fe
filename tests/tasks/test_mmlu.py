"""MMLU: only a test split, from files or the hub, and published rows."""

import json
import os
import sys
import types
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from aft.errors import DataError, SettingsError
from aft.tasks import get_task, mmlu
from aft.tasks.base import SPLITS

DATA = Path(os.environ.get("AFT_DATA_DIR") or Path(__file__).parents[2] / ".." / "shared" / "data")
needs_data = pytest.mark.skipif(
    not (DATA / "mmlu" / "test.jsonl.gz").is_file(),
    reason="the published data are not there; name their folder in AFT_DATA_DIR",
)


def _row(question: str, answer: object = "B", choices: object = ("0", "4", "2", "6")) -> dict[str, object]:
    return {"subject": "algebra", "question": question, "choices": choices, "answer": answer}


ROWS = [_row(f"Question {number}?") for number in range(6)]


def _publish(folder: Path, rows: Sequence[object]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "test.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder)


def test_it_is_a_task_family() -> None:
    assert get_task("mmlu") is not None


def test_everything_is_test(tmp_path: Path) -> None:
    """A question has no reasoning; its answer may be published as an index: 3 is D."""
    splits = mmlu.load_questions(mmlu.Settings(_publish(tmp_path, [ROWS[0], _row("Last?", 3)])))
    assert [len(splits[split]) for split in SPLITS] == [0, 0, 2]
    first, last = splits["test"]
    assert (first.question_id, first.dataset, first.split) == ("mmlu/test/00000", "mmlu", "test")
    assert (first.choices, first.reference, first.answer) == (("0", "4", "2", "6"), "#### B", "B")
    assert (last.question_id, last.answer) == ("mmlu/test/00001", "D")
    assert mmlu.extract_answer("So it is 4.\n#### (B) 4") == "B"
    assert mmlu.prompt(first).endswith("Question 0?\n(A) 0\n(B) 4\n(C) 2\n(D) 6\n\n### Response:\n")


def test_repeats_are_kept_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    questions = mmlu.load_questions(mmlu.Settings(_publish(tmp_path, [*ROWS, ROWS[2]])))["test"]
    assert len(questions) == 6
    assert "Dropped 1 of the 7 test questions of MMLU" in caplog.text


def test_a_limit_draws_by_seed(tmp_path: Path) -> None:
    path = _publish(tmp_path, ROWS)
    drawn = {
        tuple(q.question_id for q in mmlu.load_questions(mmlu.Settings(path, test_limit=2, split_seed=seed))["test"])
        for seed in range(9)
    }
    assert {len(ids) for ids in drawn} == {2}
    assert len(drawn) > 1
    with pytest.raises(SettingsError, match="test_limit"):
        mmlu.Settings(test_limit=-1)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "is not JSON"),
        ({"question": "What?"}, "lacks the field"),
        (_row(""), "has no text in the field 'question'"),
        (_row("What?", "E"), "has the answer 'E'"),
        (_row("What?", 4), "has the answer 'E'"),
        (_row("What?", -1), "has the answer -1"),
        (_row("What?", True), "has the answer True"),
        (_row("What?", choices="0426"), "has no list of 2 to 5 options"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(DataError, match=r"test\.jsonl, line 2 ") as caught:
        mmlu.load_questions(mmlu.Settings(_publish(tmp_path, [ROWS[0], row])))
    assert complaint in str(caught.value)


def test_without_a_path_the_pinned_data_set_of_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str, *, split: str, revision: str) -> list[dict[str, object]]:
        asked.append((name, config, split, revision))
        return [_row("What?", 2, ["0", "4", "2", "6"])]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert [question.answer for question in mmlu.load_questions(mmlu.Settings())["test"]] == ["C"]
    assert asked == [("cais/mmlu", "all", "test", "c30699e8356da336a370243923dbaf21066bb9fe")]


@needs_data
def test_the_published_test_set() -> None:
    """14,042 rows, of which 109 ask a question again; the letters are about equally frequent."""
    questions = mmlu.load_questions(mmlu.Settings(str(DATA / "mmlu")))["test"]
    assert len(questions) == 14_042 - 109
    letters = Counter(question.answer for question in questions)
    assert sorted(letters) == list("ABCD")
    assert all(0.22 < count / len(questions) < 0.28 for count in letters.values())
    assert all(mmlu.extract_answer(question.reference) == question.answer for question in questions)
    limited = mmlu.load_questions(mmlu.Settings(str(DATA / "mmlu"), test_limit=100))["test"]
    numbers = [int(question.question_id.rpartition("/")[2]) for question in limited]
    assert len(numbers) == 100 and numbers == sorted(numbers)
    assert numbers[0] < 1_400 and numbers[-1] > 12_600  # from the first tenth to the last
