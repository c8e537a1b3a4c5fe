"""ECQA: splits that do not leak, errors, and published rows."""

import gzip
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from aft.errors import DataError, SettingsError
from aft.pipelines.ingest.nodes import load_questions as ingest
from aft.pipelines.parameters import TaskChoice
from aft.tasks import ecqa, get_task
from aft.tasks.base import SPLITS

CHOICES = ["room", "synagogue", "bedroom", "cake", "roses"]


def _row(
    question: str, choices: object = CHOICES, answer: object = "C", free_flow: object = "One sleeps there."
) -> object:
    return {"question": question, "choices": choices, "answer": answer, "free_flow": free_flow}


TRAIN = [_row(f"Train question {number}?") for number in range(6)]
VAL = [_row(f"Validation question {number}?") for number in range(4)]
TEST = [_row(f"Test question {number}?") for number in range(5)]


def _publish(folder: Path, train: Sequence[object] = TRAIN, val: Sequence[object] = VAL) -> str:
    for name, rows in (("train", train), ("val", val), ("test", TEST)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder)


def test_it_is_a_task_family() -> None:
    assert get_task("ecqa") is not None


def test_a_row_becomes_a_question(tmp_path: Path) -> None:
    question = ecqa.load_questions(ecqa.Settings(_publish(tmp_path)))["validation"][1]
    assert (question.question_id, question.dataset, question.split) == ("ecqa/val/00001", "ecqa", "validation")
    assert (question.question, question.choices) == ("Validation question 1?", tuple(CHOICES))
    assert (question.reference, question.answer) == ("One sleeps there.\n#### C", "C")
    assert ecqa.extract_answer(question.reference) == "C"
    assert "\n(A) room\n(B) synagogue\n" in ecqa.prompt(question)


def test_test_questions_are_in_no_other_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One of val is in test; of train, two are in test, one is in val and one in both. Test stays whole."""
    path = _publish(tmp_path, [*TRAIN, TEST[0], TEST[1], VAL[0], TEST[2]], [*VAL, TEST[2]])
    splits = ecqa.load_questions(ecqa.Settings(path))
    assert [len(splits[split]) for split in SPLITS] == [6, 4, 5]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "Dropped 1 of the 5 validation questions of ECQA",
        "Dropped 4 of the 10 train questions of ECQA",
    ]
    ingest(TaskChoice("ecqa", {"path": path}), {})


def test_limits_take_the_first_of_each_split(tmp_path: Path) -> None:
    path = _publish(tmp_path)
    whole = ecqa.load_questions(ecqa.Settings(path))
    parts = ecqa.load_questions(ecqa.Settings(path, train_limit=2, validation_limit=1, test_limit=0))
    assert [parts[split] for split in SPLITS] == [whole["train"][:2], whole["validation"][:1], []]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"question": "Where?"', "is not JSON"),
        ("[]", "is no object with fields"),
        ({"question": "Where?", "choices": CHOICES, "answer": "C"}, "lacks the field 'free_flow'"),
        (_row(" "), "has no text in the field 'question'"),
        (_row("Where?", free_flow=""), "has no text in the field 'free_flow'"),
        (_row("Where?", choices="ABCDE"), "has no list of 2 to 5 options"),
        (_row("Where?", answer="bedroom"), "has the answer 'bedroom'"),
        (_row("Where?", free_flow="One sleeps there.\n#### B"), "is read as another answer than C"),
        (_row("Where?", free_flow="One sleeps there.\nQuestion: And now?"), "is read as another answer than C"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path: Path, row: object, complaint: str) -> None:
    path = _publish(tmp_path, [TRAIN[0], row, TRAIN[1]])
    with pytest.raises(DataError, match=r"train\.jsonl, line 2 ") as caught:
        ecqa.load_questions(ecqa.Settings(path))
    assert complaint in str(caught.value)


def test_a_missing_file_or_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.test\.jsonl"):
        ecqa.load_questions(ecqa.Settings(str(tmp_path / "nowhere")))
    with pytest.raises(SettingsError, match=r"^ecqa\.settings\.path is missing\.$"):
        ingest(TaskChoice("ecqa", {}), {})
    with pytest.raises(SettingsError, match="test_limit"):
        ecqa.Settings("x", test_limit=-1)


def test_the_recipe_follows_the_paper(recipe_parameters: Callable[[str], dict[str, Any]]) -> None:
    """One epoch, boundary 0.15."""
    recipe = recipe_parameters("ecqa")
    assert ecqa.Settings(**recipe["task"]["settings"]).train_limit is None
    assert (recipe["training"]["epochs"], recipe["training"]["learning_rate"]) == (1, 2e-5)
    assert recipe["align"]["aft_bc"]["objective"]["beta"] == 0.15


def test_the_published_split_loses_what_it_leaks(published_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """7,598 / 1,090 / 2,194 rows; 32 of train and 11 of val are in test, and no other row of train is in val."""
    splits = ecqa.load_questions(ecqa.Settings(str(published_data / "ecqa")))
    assert [len(splits[split]) for split in SPLITS] == [7598 - 32, 1090 - 11, 2194]
    messages = [record.getMessage() for record in caplog.records]
    assert ["Dropped 11 of the 1090 validation" in messages[0], "Dropped 32 of the 7598 train" in messages[1]] == [
        True
    ] * 2
    leaks = {
        f"ecqa/train/{number:05d}"
        for number, row in enumerate(_published_rows(published_data, "train"))
        if row["also_in"]
    }
    assert len(leaks) == 32
    assert not leaks & {question.question_id for question in splits["train"]}


def test_every_published_answer_is_read_as_it_is_written(published_data: Path) -> None:
    splits = ecqa.load_questions(ecqa.Settings(str(published_data / "ecqa")))
    questions = {question.question_id: question for split in SPLITS for question in splits[split]}
    for question in questions.values():
        name, number = question.question_id.split("/")[1:]
        row = _published_rows(published_data, name)[int(number)]
        assert (question.question, question.answer) == (row["question"].strip(), row["answer"])
        assert (question.choices or ())["ABCDE".index(question.answer)] == row["answer_text"].strip()
        assert ecqa.extract_answer(question.reference) == question.answer
        assert ecqa.extract_answer(question.reference, strict=False) == question.answer


@cache
def _published_rows(folder: Path, name: str) -> list[dict[str, str]]:
    with gzip.open(folder / "ecqa" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
