"""CommonsenseQA: only a test split, from files or the hub, and published rows."""

import json
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import pytest

from aft.errors import DataError, SettingsError
from aft.tasks import commonsenseqa, ecqa, get_task
from aft.tasks.base import SPLITS

DATA = Path(os.environ.get("AFT_DATA_DIR") or Path(__file__).parents[2] / ".." / "shared" / "data")
needs_data = pytest.mark.skipif(
    not (DATA / "commonsenseqa" / "dev_rand_split.jsonl.gz").is_file(),
    reason="the published data are not there; name their folder in AFT_DATA_DIR",
)

TEXTS = ["bank", "library", "store", "mall", "new york"]


def _row(stem: object, answer: object = "A", labels: str = "ABCDE") -> dict[str, object]:
    choices = [{"label": label, "text": text} for label, text in zip(labels, TEXTS, strict=False)]
    return {"answerKey": answer, "id": "x", "question": {"stem": stem, "question_concept": "door", "choices": choices}}


def _publish(folder: Path, rows: Sequence[object]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "dev_rand_split.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder)


def test_it_is_a_task_family() -> None:
    assert get_task("commonsenseqa") is not None


def test_everything_is_test(tmp_path: Path) -> None:
    rows = [_row("Where is the door?"), _row("Where is the book?", "B")]
    splits = commonsenseqa.load_questions(commonsenseqa.Settings(_publish(tmp_path, rows)))
    assert [len(splits[split]) for split in SPLITS] == [0, 0, 2]
    first, last = splits["test"]
    assert (first.question_id, first.dataset, first.split) == ("commonsenseqa/dev/00000", "commonsenseqa", "test")
    assert (first.question, first.choices) == ("Where is the door?", tuple(TEXTS))
    assert (last.reference, last.answer) == ("#### B", "B")
    limited = commonsenseqa.Settings(str(tmp_path), test_limit=1)
    assert commonsenseqa.load_questions(limited)["test"] == [first]
    with pytest.raises(SettingsError, match="test_limit"):
        commonsenseqa.Settings(test_limit=-1)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "lacks the field 'question'"),
        ({"question": {"stem": "Where?"}, "answerKey": "A"}, "lacks the field 'choices'"),
        ({"question": {"stem": "Where?", "choices": "ABCDE"}, "answerKey": "A"}, "has no list of options"),
        ({"question": {"stem": "Where?", "choices": list("ABCDE")}, "answerKey": "A"}, "lacks the field 'label'"),
        (_row("Where?", labels="ABCD"), "has no options A, B, C, D, E, in this order"),
        (_row("Where?", labels="ABCED"), "has no options A, B, C, D, E, in this order"),
        (_row("Where?", answer="F"), "has the answer 'F'"),
        (_row("Where?", answer=""), "has the answer ''"),  # as the published test set has it
        (_row(3), "has no text in the field 'stem'"),
        ({"question": "Where?", "choices": [], "answerKey": "A"}, "lacks the field 'label'"),
        (
            {"question": "Where?", "choices": {"label": list("ABCDE"), "text": [*TEXTS, "sea"]}, "answerKey": "A"},
            "has no options A, B, C, D, E, in this order",
        ),
        ({"question": 3, "choices": [], "answerKey": "A"}, "has no text in the field 'question'"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(DataError, match=r"dev_rand_split\.jsonl, line 2 ") as caught:
        commonsenseqa.load_questions(commonsenseqa.Settings(_publish(tmp_path, [_row("Where?"), row])))
    assert complaint in str(caught.value)


def test_without_a_path_the_pinned_data_set_of_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str) -> list[dict[str, object]]:
        asked.append((name, config, split, revision))
        choices = {"label": list("ABCDE"), "text": TEXTS}
        return [{"id": "x", "question": "Where?", "question_concept": "door", "choices": choices, "answerKey": "E"}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    (question,) = commonsenseqa.load_questions(commonsenseqa.Settings())["test"]
    assert (question.question, question.choices, question.answer) == ("Where?", tuple(TEXTS), "E")
    assert asked == [("tau/commonsense_qa", None, "validation", "94630fe30dad47192a8546eb75f094926d47e155")]


@needs_data
def test_the_published_dev_set() -> None:
    """1,221 rows, no question twice; beside ECQA, whose splits share no question here, all but 8 are known."""
    questions = commonsenseqa.load_questions(commonsenseqa.Settings(str(DATA / "commonsenseqa")))["test"]
    assert len(questions) == 1221
    assert all(commonsenseqa.extract_answer(question.reference) == question.answer for question in questions)
    explained = ecqa.load_questions(ecqa.Settings(str(DATA / "ecqa")))
    known = {question.content_hash for split in SPLITS for question in explained[split]}
    assert sum(question.content_hash not in known for question in questions) == 8
