"""AQUA-RAT: how its splits are drawn, errors, published rows, and the answer check against published labels."""

import gzip
import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aft.errors import DataError, SettingsError
from aft.pipelines.ingest.nodes import load_questions as ingest
from aft.pipelines.parameters import TaskChoice
from aft.tasks import aqua_rat, get_task
from aft.tasks.base import SPLITS, Question

OPTIONS = ["A)21", "B) 21.5", "C)22", "D)22.5", "E)23"]


def _row(question: str, rationale: str = "4 + 18 = 22", options: object = OPTIONS, correct: object = "C") -> object:
    return {"question": question, "options": options, "rationale": rationale, "correct": correct}


TRAIN = [_row(f"Train question {number}?") for number in range(20)]
DEV = [_row(f"Dev question {number}?") for number in range(4)]
TEST = [_row(f"Test question {number}?") for number in range(5)]


def _publish(folder: Path, train: Sequence[object] = TRAIN, dev: Sequence[object] = DEV) -> str:
    for name, rows in (("train", train), ("dev", dev), ("test", TEST)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / f"{name}.json").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder)


def _sizes(train: int, validation: int, test: int) -> dict[str, Any]:
    return {"train_size": train, "validation_size": validation, "test_size": test}


def _sources(questions: Sequence[Question]) -> list[str]:
    return [question.question_id.split("/")[1] for question in questions]


def test_it_is_a_task_family() -> None:
    assert get_task("aqua_rat") is not None


def test_a_row_becomes_a_question(tmp_path: Path) -> None:
    """Options lose the letter that they are published with."""
    settings = aqua_rat.Settings(path=_publish(tmp_path), **_sizes(20, 4, 5))
    question = aqua_rat.load_questions(settings)["train"][0]
    assert question.question_id == "aqua_rat/train/00000"
    assert (question.dataset, question.split, question.question) == ("aqua_rat", "train", "Train question 0?")
    assert question.choices == ("21", "21.5", "22", "22.5", "23")
    assert (question.reference, question.answer) == ("4 + 18 = 22\n#### C", "C")
    assert "Train question 0?\n(A) 21\n(B) 21.5\n(C) 22\n" in aqua_rat.prompt(question)


@pytest.mark.parametrize(
    "spelling", ["{})", "{}) ", "({})", "({}) ", "( {} ) ", "[{}] ", "{}. ", "{}.", "{}: ", " {})"], ids=repr
)
@pytest.mark.parametrize("letters", ["ABCDE", "abcde"])
def test_options_lose_their_letters_in_every_spelling(tmp_path: Path, spelling: str, letters: str) -> None:
    said = ["21", "$21.50", "A) 22", "none", "(23)"]  # of what they say nothing is lost
    options = [spelling.format(letter) + text for letter, text in zip(letters, said, strict=True)]
    path = _publish(tmp_path, [_row("How many?", options=options)])
    (question,) = aqua_rat.load_questions(aqua_rat.Settings(path=path, **_sizes(1, 1, 1)))["train"]
    assert question.choices == tuple(said)


def test_options_may_have_no_letters(tmp_path: Path) -> None:
    said = ["21", "a.m.", "e.g. 22", "C", "E=5"]
    path = _publish(tmp_path, [_row("How many?", options=said)])
    (question,) = aqua_rat.load_questions(aqua_rat.Settings(path=path, **_sizes(1, 1, 1)))["train"]
    assert question.choices == tuple(said)


def test_published_test_and_dev_questions_come_first_and_never_train(tmp_path: Path) -> None:
    """Of 20 train, 4 dev and 5 test rows: test is 5 + 2 of train, validation 4 + 1, train 10 of the other 17."""
    settings = aqua_rat.Settings(path=_publish(tmp_path), **_sizes(10, 5, 7))
    splits = aqua_rat.load_questions(settings)
    assert tuple(splits) == SPLITS
    assert _sources(splits["test"]) == ["test"] * 5 + ["train"] * 2
    assert _sources(splits["validation"]) == ["dev"] * 4 + ["train"]
    assert _sources(splits["train"]) == ["train"] * 10
    assert all(question.split == split for split in SPLITS for question in splits[split])
    ids = [question.question_id for split in SPLITS for question in splits[split]]
    assert len(set(ids)) == 22


def test_small_splits_are_drawn_from_their_own_sets_alone(tmp_path: Path) -> None:
    settings = aqua_rat.Settings(path=_publish(tmp_path), **_sizes(2, 3, 4))
    splits = aqua_rat.load_questions(settings)
    assert [sorted(set(_sources(splits[split]))) for split in SPLITS] == [["train"], ["dev"], ["test"]]
    assert [len(splits[split]) for split in SPLITS] == [2, 3, 4]


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_rows(tmp_path: Path) -> None:
    def drawn(rows: Sequence[object], seed: int) -> set[str]:
        settings = aqua_rat.Settings(path=_publish(tmp_path, rows), split_seed=seed, **_sizes(5, 5, 7))
        return {question.question for question in aqua_rat.load_questions(settings)["train"]}

    assert drawn(TRAIN, 0) == drawn(TRAIN[::-1], 0)
    assert len({frozenset(drawn(TRAIN, seed)) for seed in range(5)}) > 1


def test_train_may_come_in_several_files(tmp_path: Path) -> None:
    """The rows of the second file are numbered on, and a packed file is named without or with its .gz."""
    path = _publish(tmp_path)
    (tmp_path / "more.jsonl.gz").write_bytes(gzip.compress(json.dumps(_row("One more?")).encode()))
    for name in ("more.jsonl", "more.jsonl.gz"):
        settings = aqua_rat.Settings(path=path, train_files=("train.json", name), **_sizes(21, 4, 5))
        last = aqua_rat.load_questions(settings)["train"][-1]
        assert (last.question_id, last.question) == ("aqua_rat/train/00020", "One more?")


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        (_sizes(1, 4, 26), "'test_size' is 26, but 25 questions are left"),
        (_sizes(1, 25, 5), "'validation_size' is 25, but 24 questions are left"),
        (_sizes(18, 5, 7), "'train_size' is 18, but 17 questions are left"),
    ],
)
def test_more_questions_than_there_are_is_an_error(tmp_path: Path, sizes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        aqua_rat.load_questions(aqua_rat.Settings(path=_publish(tmp_path), **sizes))


@pytest.mark.parametrize("setting", [{"train_size": -1}, {"validation_size": -1}, {"train_files": ()}])
def test_settings_without_a_meaning_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(setting))):
        aqua_rat.Settings(**setting)  # pyright: ignore[reportArgumentType]


def test_repeats_are_kept_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A dev row repeats a test question; train rows repeat a test, a dev and a train question. Other options are no
    repeat."""
    other = _row("Test question 2?", options=[*OPTIONS[:4], "E)24"])
    repeats = [_row("test QUESTION 1"), _row("Dev question 1?"), _row("Train question 3?"), other]
    path = _publish(tmp_path, [*TRAIN, *repeats], [*DEV, _row("Test question 3?")])
    splits = aqua_rat.load_questions(aqua_rat.Settings(path=path, **_sizes(21, 4, 5)))
    assert splits["train"][-1].question_id == "aqua_rat/train/00023"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "Dropped 1 of the 5 dev questions" in messages[0]
    assert "Dropped 3 of the 24 train questions" in messages[1]


def test_what_cannot_be_trained_on_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two blanks; and two rationales that would be read as no answer, or another."""
    unfit = [
        _row("Blank rationale?", " \n"),
        _row("Blank option?", options=[*OPTIONS[:4], "E) "]),
        _row("A marker?", "22\n#### see above"),
        _row("A next question?", "22\nQuestion: and now?"),
    ]
    path = _publish(tmp_path, [*unfit, *TRAIN])
    splits = aqua_rat.load_questions(aqua_rat.Settings(path=path, **_sizes(20, 4, 5)))
    assert splits["train"][0].question_id == "aqua_rat/train/00004"
    blank, unreadable = (record.getMessage() for record in caplog.records)
    assert "Dropped 2 train questions" in blank and "blank" in blank
    assert "Dropped 2 train questions" in unreadable and "another answer" in unreadable


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"question": "How many?"', "is not JSON"),
        ("", "is blank"),
        ('["How many?"]', "is no object with fields"),
        ({"question": "How many?", "options": OPTIONS, "correct": "C"}, "lacks the field 'rationale'"),
        (_row("  "), "has no text in the field 'question'"),
        (_row("How many?", "  "), "has no text in the field 'rationale'"),
        (_row("How many?", options=OPTIONS[:4]), "has no list of 5 options"),
        (_row("How many?", options="ABCDE"), "has no list of 5 options"),
        (_row("How many?", options=5), "has no list of 5 options"),
        (_row("How many?", options=[*OPTIONS[:4], 23]), "has no text in an option"),
        (_row("How many?", options=[*OPTIONS[:4], "E)"]), "has no text in an option"),
        (_row("How many?", options=[*OPTIONS[:4], "(E)"]), "has no text in an option"),
        (_row("How many?", options=OPTIONS[::-1]), "the letters E, D, C, B, A; they must be A, B, C, D, E"),
        (_row("How many?", options=["b)1", "a)2", *OPTIONS[2:]]), "the letters B, A, C, D, E"),
        (_row("How many?", options=["(A)1", "(A)2", *OPTIONS[2:]]), "the letters A, A, C, D, E"),
        (_row("How many?", options=[*OPTIONS[:3], "E. 4", "F. 5"]), "the letters A, B, C, E, F"),
        (_row("How many?", options=[*OPTIONS[:2], "22", *OPTIONS[3:]]), "the letters A, B, -, D, E"),
        (_row("How many?", correct="F"), "has the answer 'F'"),
        (_row("How many?", correct="c"), "has the answer 'c'"),
        (_row("How many?", correct=2), "has the answer 2"),
        ('{"question": "\\ud800", "options": ["1", "2", "3", "4", "5"], "rationale": "x", "correct": "A"}', "Unicode"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path: Path, row: object, complaint: str) -> None:
    path = _publish(tmp_path, dev=[DEV[0], row, DEV[1]])
    with pytest.raises(DataError, match=r"dev\.json, line 2 ") as caught:
        aqua_rat.load_questions(aqua_rat.Settings(path=path, **_sizes(1, 1, 1)))
    assert complaint in str(caught.value)


@pytest.mark.parametrize("row", ['["How many?"]', _row("How many?", options=5), _row("How many?", correct="F"), "1"])
def test_a_malformed_row_of_train_is_refused_too(tmp_path: Path, row: object) -> None:
    with pytest.raises(DataError, match=r"train\.json, line 21 "):
        aqua_rat.load_questions(aqua_rat.Settings(path=_publish(tmp_path, [*TRAIN, row]), **_sizes(1, 1, 1)))


def test_without_a_path_the_pinned_data_set_of_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str, *, split: str, revision: str) -> Sequence[object]:
        asked.append((name, config, split, revision))
        return {"train": TRAIN, "validation": DEV, "test": TEST}[split]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    splits = aqua_rat.load_questions(aqua_rat.Settings(**_sizes(13, 5, 7)))
    assert [len(splits[split]) for split in SPLITS] == [13, 5, 7]
    pinned = "33301c6a050c96af81f63cad5562cb5363e88971"
    assert asked == [("deepmind/aqua_rat", "raw", split, pinned) for split in ("test", "validation", "train")]


def test_the_settings_may_come_from_a_parameters_file(tmp_path: Path) -> None:
    """Where the names of files are a list."""
    choice = {"path": _publish(tmp_path), "train_files": ["train.json"], **_sizes(10, 5, 7)}
    train, validation, test, others, held_out = ingest(TaskChoice("aqua_rat", choice), {})
    assert (len(train), len(validation), len(test), len(others), len(held_out)) == (
        10,
        5,
        7,
        5,
        24,
    )  # hashes with and without spaces


def test_the_recipe_follows_the_paper(recipe_parameters: Callable[[str], dict[str, Any]]) -> None:
    """5,000 / 400 / 1,254 questions, three epochs, boundary 0.15."""
    recipe = recipe_parameters("aqua_rat")
    settings = aqua_rat.Settings(**recipe["task"]["settings"])
    assert (settings.train_size, settings.validation_size, settings.test_size) == (5000, 400, 1254)
    assert (recipe["training"]["epochs"], recipe["training"]["learning_rate"]) == (3, 2e-5)
    assert recipe["align"]["aft_bc"]["objective"]["beta"] == 0.15


def test_published_rows_are_read_as_they_are_written(published_data: Path) -> None:
    """254 dev and 254 test rows; of train, which is published with 97,467, the 2,135 that are there."""
    settings = aqua_rat.Settings(
        path=str(published_data / "aqua_rat"), train_files=("train_partial.jsonl",), **_sizes(1000, 400, 1243)
    )
    splits = aqua_rat.load_questions(settings)
    assert [len(splits[split]) for split in SPLITS] == [1000, 400, 1243]  # every row: 2,135 + 254 + 254
    assert _sources(splits["test"]) == ["test"] * 254 + ["train"] * 989
    assert _sources(splits["validation"]) == ["dev"] * 254 + ["train"] * 146
    questions = {question.question_id: question for split in SPLITS for question in splits[split]}
    for name in ("dev", "test"):
        for number, row in enumerate(_published_rows(published_data, name)):
            question = questions[f"aqua_rat/{name}/{number:05d}"]
            assert (question.question, question.answer) == (row["question"].strip(), row["correct"])
            assert question.choices == tuple(option[2:].strip() for option in row["options"])
    for question in questions.values():
        assert aqua_rat.extract_answer(question.reference) == question.answer
        assert aqua_rat.extract_answer(question.reference, strict=False) == question.answer


def _published_rows(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "aqua_rat" / f"{name}.json").read_text("utf-8").split("\n") if line]


# The rule behind the published labels is: the letter after the last "answer is" or "A:", else a lone "(x)" in the last
# sentence of few-shot answers. Every row that we judge otherwise:
DISAGREEMENTS = {  # reason: (row, model, style)
    "the last sentence gives the right option, (d) $70.00, without the words 'answer is'; the label reads none": [
        (25, "gpt-4", "least-to-most"),
        (27, "gpt-4", "least-to-most"),
        (36, "gpt-4", "least-to-most"),
        (144, "code-davinci-001", "least-to-most"),
        (167, "gpt-4", "least-to-most"),
    ],
    "the last sentence settles on the closest option, (a) 15, which is right; the label reads none": [
        (21, "gpt-4", "least-to-most"),
        (56, "gpt-3.5-turbo", "least-to-most"),
    ],
    "the answer is '(rounded to two decimal places) (b) 0.4167', which is right; the label reads none": [
        (146, "gpt-3.5-turbo", "few-shot-cot"),
    ],
}


def test_the_check_agrees_with_published_labels_but_for_known_rows(published_data: Path) -> None:
    """3,048 solutions by 6 models: at least 98.5 % agreement asked, 99.74 % found, every other row explained."""
    gold = [row["correct"] for row in _published_rows(published_data, "test")]
    with gzip.open(published_data / "model_solutions" / "aqua_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        solutions = [json.loads(line) for line in lines]
    disagreements = {
        (solution["row"], solution["model"], solution["style"])
        for solution in solutions
        if (aqua_rat.extract_answer(solution["completion"], strict=False) == gold[solution["row"]])
        != solution["is_correct"]
    }
    assert len(solutions) == 3_048
    assert disagreements == {row for rows in DISAGREEMENTS.values() for row in rows}
    assert len(disagreements) == 8


def test_noisier_rationales_state_the_published_letter_where_they_state_one(published_data: Path) -> None:
    """Of 6,971 rationales, many of which end on "answer : c" or "option c", it finds a letter in four of five.

    That is the published one in all but few: 99.8 % asked, 99.9 % found.
    """
    with gzip.open(published_data / "mathqa" / "aqua_style.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    read = [(aqua_rat.extract_answer(row["rationale"], strict=False), row["correct"]) for row in rows]
    stated = [(letter, correct) for letter, correct in read if letter]
    assert len(stated) > 0.8 * len(rows)
    assert sum(letter == correct for letter, correct in stated) > 0.998 * len(stated)
