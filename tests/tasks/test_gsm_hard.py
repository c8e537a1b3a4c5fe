"""GSM-hard: only a test split, answers that are floats, from files or the hub, and published rows."""

import gzip
import json
import os
import sys
import types
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest

from aft.errors import DataError, SettingsError
from aft.tasks import get_task, gsm8k, gsm_hard
from aft.tasks.base import SPLITS

DATA = Path(os.environ.get("AFT_DATA_DIR") or Path(__file__).parents[2] / ".." / "shared" / "data")
needs_data = pytest.mark.skipif(
    not (DATA / "gsm_hard" / "test.jsonl.gz").is_file(),
    reason="the published data are not there; name their folder in AFT_DATA_DIR",
)


def _publish(folder: Path, rows: Sequence[object]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "test.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder)


def test_it_is_a_task_family() -> None:
    assert get_task("gsm_hard") is not None


def test_everything_is_test(tmp_path: Path) -> None:
    rows = [{"question": "How many?", "answer": -9867630.0}, {"question": "How much?", "answer": 14053029.666666666}]
    path = _publish(tmp_path, rows)
    splits = gsm_hard.load_questions(gsm_hard.Settings(path))
    assert [len(splits[split]) for split in SPLITS] == [0, 0, 2]
    first, third = splits["test"]
    assert (first.question_id, first.dataset, first.split) == ("gsm_hard/test/00000", "gsm_hard", "test")
    assert (first.reference, first.answer) == ("#### -9867630", "-9867630")
    assert gsm_hard.prompt(first) == gsm8k.prompt(first)
    assert gsm_hard.answers_equal("42159089/3", third.answer)  # 3 * 14053029 + 2 = 42159089
    assert gsm_hard.answers_equal("14053029.667", third.answer)
    assert not gsm_hard.answers_equal("14053029.67", third.answer)
    assert gsm_hard.load_questions(gsm_hard.Settings(path, test_limit=1))["test"] == [first]
    with pytest.raises(SettingsError, match="test_limit"):
        gsm_hard.Settings(test_limit=-1)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "is not JSON"),
        ({"input": "How many?", "target": 3.0}, "lacks the field 'question'"),
        ({"question": "How many?"}, "lacks the field 'answer'"),
        ('{"question": "How many?", "answer": NaN}', "has the answer 'nan', which is no number"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(DataError, match=r"test\.jsonl, line 1 ") as caught:
        gsm_hard.load_questions(gsm_hard.Settings(_publish(tmp_path, [row])))
    assert complaint in str(caught.value)


def test_without_a_path_the_pinned_data_set_of_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str) -> list[dict[str, object]]:
        asked.append((name, config, split, revision))
        return [{"input": "How many?", "code": "def solution(): return 3", "target": 3.0}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert [question.answer for question in gsm_hard.load_questions(gsm_hard.Settings())["test"]] == ["3"]
    assert asked == [("reasoning-machines/gsm-hard", None, "train", "960448f73503112d4226baeb8eb41d3fb5ae2506")]


@needs_data
def test_every_published_answer_is_read_exactly() -> None:
    """1,319 rows, no question twice; a float's shortest decimal is what its answer states."""
    questions = gsm_hard.load_questions(gsm_hard.Settings(str(DATA / "gsm_hard")))["test"]
    with gzip.open(DATA / "gsm_hard" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        published = [json.loads(line)["answer"] for line in lines]
    assert len(questions) == len(published) == 1319
    for question, answer in zip(questions, published, strict=True):
        assert Fraction(question.answer) == Fraction(repr(answer))
        assert gsm_hard.extract_answer(question.reference) == question.answer
