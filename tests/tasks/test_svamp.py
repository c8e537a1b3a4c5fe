"""SVAMP: only a test split, from files or the hub, which a recipe can name as one of its test sets."""

import json
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import pytest

from aft.errors import DataError, SettingsError
from aft.pipelines.ingest.nodes import load_questions as ingest
from aft.pipelines.parameters import TaskChoice
from aft.tasks import get_task, gsm8k, svamp
from aft.tasks.base import SPLITS

DATA = Path(os.environ.get("AFT_DATA_DIR") or Path(__file__).parents[2] / ".." / "shared" / "data")
needs_data = pytest.mark.skipif(
    not (DATA / "svamp" / "SVAMP.json").is_file(),
    reason="the published data are not there; name their folder in AFT_DATA_DIR",
)


def _row(body: object, answer: object = 51.0) -> dict[str, object]:
    return {"ID": "chal-1", "Body": body, "Question": "How many? ", "Equation": "( 76.0 - 25.0 )", "Answer": answer}


def _publish(folder: Path, rows: Sequence[object]) -> str:
    (folder / "SVAMP.json").write_text(json.dumps(rows), encoding="utf-8")
    return str(folder)


def test_it_is_a_task_family() -> None:
    assert get_task("svamp") is not None


def test_everything_is_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Three rows, of which the last repeats the first."""
    path = _publish(tmp_path, [_row("A pack costs 76."), _row("Dan had 3.", 1.5), _row("A pack costs  76.")])
    splits = svamp.load_questions(svamp.Settings(path))
    assert [len(splits[split]) for split in SPLITS] == [0, 0, 2]
    first, second = splits["test"]
    assert (first.question_id, first.dataset, first.split) == ("svamp/test/00000", "svamp", "test")
    assert (first.question, first.choices) == ("A pack costs 76. How many?", None)
    assert (first.reference, first.answer, second.answer) == ("#### 51", "51", "1.5")
    assert svamp.prompt(first) == gsm8k.prompt(first)
    assert svamp.extract_answer("76 - 25 = <<76-25=51>>51\n#### $51") == "51"
    assert "Dropped 1 of the 3 questions of SVAMP" in caplog.text
    assert svamp.load_questions(svamp.Settings(path, test_limit=1))["test"] == [first]
    with pytest.raises(SettingsError, match="test_limit"):
        svamp.Settings(test_limit=-1)


def test_it_can_be_one_of_a_recipe_s_test_sets_but_not_its_task(tmp_path: Path) -> None:
    choice = TaskChoice("svamp", {"path": _publish(tmp_path, [_row("A pack costs 76."), _row("Dan had 3.")])})
    own = TaskChoice("pocket", {"train": 2, "validation": 3, "test": 2})
    others = ingest(own, {"elsewhere": choice})[3]
    assert others["split"].tolist() == ["validation"] * 3 + ["elsewhere"] * 2
    assert others["answer"].tolist()[3:] == ["51", "51"]
    with pytest.raises(SettingsError, match="leave no question for train"):
        ingest(choice, {})


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (3, "lacks the field 'Body'"),
        ({"Body": "x", "Question": "y"}, "lacks the field 'Answer'"),
        (_row(" "), "has no text in the field 'Body'"),
        (_row("Dan had 3.", "two"), "has the answer 'two', which is no number"),
        (_row("Dan had 3.", None), "has the answer 'None', which is no number"),
    ],
)
def test_a_malformed_row_is_refused_with_its_place(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(DataError, match=r"SVAMP\.json, item 2 ") as caught:
        svamp.load_questions(svamp.Settings(_publish(tmp_path, [_row("A pack costs 76."), row])))
    assert complaint in str(caught.value)


def test_without_a_path_both_parts_of_the_hub_s_pinned_data_set_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str) -> list[dict[str, object]]:
        asked.append((name, config, split, revision))
        return [_row(f"From {split}.", "145.0")]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    questions = svamp.load_questions(svamp.Settings())["test"]
    assert [(q.question_id, q.answer) for q in questions] == [("svamp/test/00000", "145"), ("svamp/test/00001", "145")]
    pinned = "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef"
    assert asked == [("ChilleD/SVAMP", None, split, pinned) for split in ("train", "test")]


@needs_data
def test_the_published_set(caplog: pytest.LogCaptureFixture) -> None:
    """1,000 rows, no question twice, and every answer is an integer."""
    questions = svamp.load_questions(svamp.Settings(str(DATA / "svamp")))["test"]
    published = json.loads((DATA / "svamp" / "SVAMP.json").read_text("utf-8"))
    assert len(questions) == len(published) == 1000
    assert caplog.records == []
    assert [int(question.answer) for question in questions] == [row["Answer"] for row in published]
    assert all(svamp.extract_answer(question.reference) == question.answer for question in questions)
