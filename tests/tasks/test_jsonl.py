"""Questions from a file of one's own: every kind of file and split, and what is wrong told by file and line."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.checked import read
from aft.errors import DataError, SettingsError
from aft.pipelines import tables
from aft.tasks import get_task, jsonl
from aft.tasks.base import Question

ROWS = [{"question": f"What is {n} + 1?", "answer": n + 1, "reference": f"{n} + 1 = {n + 1}."} for n in range(40)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        text = json.dumps(rows) if path.suffix == ".json" else "".join(f"{json.dumps(row)}\n" for row in rows)
        path.write_text(text, encoding="utf-8")
    return path


def load(path: Path, **settings: Any) -> dict[str, list[Question]]:
    return dict(jsonl.load_questions(jsonl.Settings(path=str(path), **settings)))


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Question]:
    """The question that a row becomes."""

    def made(row: dict[str, Any], **settings: Any) -> Question:
        path = write(tmp_path / "one.jsonl", [row])
        (question,) = load(path, test_share=1.0, validation_share=0.0, **settings)["test"]
        return question

    return made


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_kind_of_file_gives_the_same_questions(tmp_path: Path, ending: str) -> None:
    expected = load(write(tmp_path / "a.jsonl", ROWS))
    assert load(write(tmp_path / f"b{ending}", ROWS)) == expected
    assert {split: len(rows) for split, rows in expected.items()} == {"train": 31, "validation": 2, "test": 7}
    tables.questions(tables.to_table(expected["train"]))


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert load(tmp_path / "b.jsonl.gz") == load(plain)


def test_the_file_that_is_named_is_read_also_beside_its_unpacked_namesake(tmp_path: Path) -> None:
    """What decides is looked up by the name in the settings: an edit of another file would not be seen."""
    write(tmp_path / "a.jsonl", ROWS[:1])
    packed = write(tmp_path / "b.jsonl", ROWS).read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(packed))
    assert load(tmp_path / "a.jsonl.gz") == load(tmp_path / "b.jsonl")
    (tmp_path / "a.parquet.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"a\.parquet\.gz is of no known kind"):
        load(tmp_path / "a.parquet.gz")


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_a_file_of_validation_questions_may_have_any_of_the_names_that_the_field_may_have(
    tmp_path: Path, name: str
) -> None:
    for file, rows in (("train.csv", ROWS[:2]), (f"{name}.json", ROWS[2:5]), ("test.jsonl", ROWS[5:6])):
        write(tmp_path / file, rows)
    assert len(load(tmp_path)["validation"]) == 3
    write(tmp_path / "dev.jsonl.gz", ROWS)
    with pytest.raises(DataError, match="has several files for validation"):
        load(tmp_path)


def test_a_question_stays_in_its_split_and_keeps_its_id_when_others_are_added(tmp_path: Path) -> None:
    few, many = load(write(tmp_path / "a.jsonl", ROWS[10:20])), load(write(tmp_path / "b.jsonl", ROWS))
    for split, questions in few.items():
        assert set(questions) <= set(many[split])


def test_splits_by_a_field_and_by_files_are_those_that_are_told(tmp_path: Path) -> None:
    told = ["train", "Dev ", "test", "train"]
    by_field = load(write(tmp_path / "a.jsonl", [{**row, "split": s} for row, s in zip(ROWS, told, strict=False)]))
    (tmp_path / "b").mkdir()
    for name, rows in (("train.csv", [ROWS[0], ROWS[3]]), ("validation.json", ROWS[1:2]), ("test.jsonl", ROWS[2:3])):
        write(tmp_path / "b" / name, rows)
    assert load(tmp_path / "b") == by_field
    assert {split: len(rows) for split, rows in by_field.items()} == {"train": 2, "validation": 1, "test": 1}


def test_a_row_becomes_a_question_that_its_family_can_ask_and_check(ask: Callable[..., Question]) -> None:
    question = ask(
        {"q": "Who?", "a": "Ada.", "id": 7}, question="q", answer="a", check="text", prompt="Q: {question}\nA:"
    )
    assert (question.question_id, question.question, question.answer) == ("jsonl/7", "Who?", "ada")
    assert (question.reference, question.choices, question.prompt) == ("", None, "Q: Who?\nA:")
    task = get_task(question.dataset)
    assert task.prompt(question) == question.prompt and task.extract_answer("#### ADA") == question.answer


@pytest.mark.parametrize(
    ("fields", "settings", "reference"),
    [
        ({"reference": "2 + 3 = 5."}, {}, "2 + 3 = 5.\n#### 5"),
        ({"reference": "2 + 3 = 5.\n#### 5.0"}, {}, "2 + 3 = 5.\n#### 5.0"),
        ({"answer": "2 + 3 = 5.\n#### 5"}, {}, "2 + 3 = 5.\n#### 5"),  # as GSM8K is published
        ({"answer": "2 + 3 = 5.\n#### 5", "reference": "5."}, {}, "5.\n#### 5"),
        ({"answer": "#### 5"}, {}, ""),  # nothing to learn from but the answer
        ({"reference": None}, {}, ""),
        ({"reference": "#### 5"}, {}, ""),
        ({"answer": "\\boxed{5}"}, {"marker": "boxed"}, ""),
        ({"answer": "So, the final answer is $\\boxed{5}$"}, {"marker": "boxed"}, ""),
        ({"answer": "The answer is 5"}, {"marker": "answer_is"}, ""),
        ({"answer": "**Answer:** 5"}, {"marker": "answer_is"}, ""),
        ({"answer": "<think>\n\n</think>\n\n5"}, {"marker": "after_think"}, ""),
        ({"answer": "<think>2 + 3</think>5"}, {"marker": "after_think"}, "<think>2 + 3</think>5"),
        ({"answer": "2 + 3 = \\boxed{5}"}, {"marker": "boxed"}, "2 + 3 = \\boxed{5}"),
        ({"reference": ""}, {}, ""),
        ({"reference": "So it is."}, {"marker": "answer_is"}, "So it is.\nThe answer is 5."),
        ({"reference": "So it is."}, {"marker": "boxed"}, "So it is.\nThe answer is $\\boxed{5}$."),
        ({"reference": "So it is."}, {"marker": "after_think"}, "<think>\nSo it is.\n</think>\n5"),
    ],
)
def test_the_reference_ends_in_the_answer_behind_its_marker(
    fields: dict[str, Any], settings: dict[str, Any], reference: str, ask: Callable[..., Question]
) -> None:
    question = ask({"question": "What?", "answer": 5.0, **fields}, **settings)
    assert (question.reference, question.answer) == (reference, "5")


@pytest.mark.parametrize("answer", ["C", "(c)", "blue", " BLUE "])
def test_a_choice_is_a_letter_or_what_one_option_says(answer: str, ask: Callable[..., Question]) -> None:
    row = {"question": "Which?", "answer": answer, "choices": ["red", "green", "blue"]}
    question = ask(row, check="choice", prompt="{question}\n")
    assert (question.answer, question.choices) == ("C", ("red", "green", "blue"))
    assert question.prompt == "Which?\n(A) red\n(B) green\n(C) blue\n"


def test_options_in_csv_are_json(tmp_path: Path) -> None:
    row = {"question": "Which?", "answer": "B", "choices": '["a, b", "c"]'}
    (question,) = load(write(tmp_path / "a.csv", [row]), check="choice", test_share=1.0, validation_share=0)["test"]
    assert question.choices == ("a, b", "c")


def test_repeats_are_dropped_and_named_and_a_leak_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**ROWS[0], "split": "train"}, {**ROWS[1], "split": "train"}, {**ROWS[0], "split": "test"}]
    path = write(tmp_path / "a.jsonl", [*rows, rows[1]])
    kept = load(path)
    assert [len(kept[split]) for split in kept] == [1, 0, 1]
    (told,) = caplog.messages
    assert told == (
        f"Dropped 2 of 4 questions, which are asked twice: {path}, line 1 asks the same question as {path}, line 3, "
        f"which is in test. {path}, line 4 asks the same question as {path}, line 2."
    )


GOOD = {"question": "What is 1 + 1?", "answer": 2}


@pytest.mark.parametrize(
    ("rows", "settings", "told"),
    [
        (
            [GOOD, {**GOOD, "answer": 3}],
            {},
            "line 2 asks the same question as {path}, line 1, but answers '3' and not '2'.",
        ),
        ([GOOD, {"question": "Who?", "answer": ""}], {}, "line 2 has no answer: the field 'answer' is empty."),
        ([GOOD, {"question": " ", "answer": 1}], {}, "line 2 has no question: the field 'question' is empty."),
        ([GOOD, {"question": "Who?"}], {}, "line 2 has no answer: the field 'answer' is empty."),
        (
            [GOOD, {"question": "Who?", "answer": "me"}],
            {},
            "line 2 has the answer 'me', which the check 'number' cannot read.",
        ),
        (
            [GOOD, {"question": "Who?", "answer": True}],
            {},
            "line 2 has the answer 'True' in the field 'answer', which is",
        ),
        (
            [{**GOOD, "reference": "#### 3"}],
            {},
            "line 1 has a reference that is read as the answer '3', but its answer is '2'.",
        ),
        ([{**GOOD, "split": "exam"}], {}, "line 1 has the split 'exam', which is none of train, validation, test."),
        (
            [{**GOOD, "id": 1}, {"question": "Who?", "answer": 1, "id": 1}],
            {},
            "line 2 has the id of {path}, line 1, '1'.",
        ),
        (
            [{**GOOD, "choices": ["a"]}],
            {"check": "choice"},
            "line 1 has no list of 2 to 5 options in the field 'choices'.",
        ),
        (
            [{**GOOD, "choices": ["a", "b"]}],
            {"check": "choice"},
            "line 1 has the answer '2', which the check 'choice' cannot read.",
        ),
        ([{**GOOD, "choices": ["a", "b"], "answer": "C"}], {"check": "choice"}, "line 1 has the answer 'C', which"),
        (
            [GOOD],
            {"question": "query"},
            "has the field 'query' that the setting 'question' names: there are question, answer.",
        ),
        (
            [GOOD],
            {"reference": "answr"},
            "has the field 'answr' that the setting 'reference' names: did you mean 'answer'? There",
        ),
        (
            [GOOD],
            {"check": "choice"},
            "has the field 'choices' that the setting 'choices' names: there are question, answer.",
        ),
        ([], {}, "has no rows."),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, rows: list[dict[str, Any]], settings: dict[str, Any], told: str
) -> None:
    path = write(tmp_path / "own.jsonl", rows)
    with pytest.raises(DataError) as refused:
        load(path, **settings)
    assert str(path) in str(refused.value) and told.format(path=path) in str(refused.value)


def test_several_faults_are_told_at_once_the_first_ones_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", [{"question": f"{n}?", "answer": "" if n else 1} for n in range(9)])
    with pytest.raises(DataError, match=r"line 2 has no answer.*line 6 has no answer.*There are 3 more of the kind\.$"):
        load(path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"question": 1}\n{', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1 is no object with fields"),
        ("a.json", b"{}", "a.json is not a JSON array"),
        ("a.csv", b'question,answer\n"two\nlines",1\nWho?,1,2\n', "a.csv, line 4 has another number of fields"),
        ("a.csv", b"question,answer\nWho?\n", "a.csv, line 2 has another number of fields"),
        ("a.csv", b"question,answer,answer\nWho?,1,2\n", "a.csv, line 2 names a field twice"),
        ("a.csv", b'question,answer\n"a"b,1\n', "a.csv, line 2 begins what is no CSV"),
        ("a.csv", b"question,answer\n\xff,1\n", "a.csv, line 2 is not UTF-8 text"),
        ("a.csv", b"question,answer\n\n,1\n", "a.csv, line 3 has no question"),
        ("a.parquet", b"PAR1", "a.parquet is not Parquet"),
        ("a.txt", b"Who?", "a.txt is of no known kind; its name must end in .jsonl, .json, .csv, .parquet."),
        ("b.csv", b"", "There is no file {folder}/a.jsonl; the setting 'path' names the file"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refused:
        load(tmp_path / (name if name[0] == "a" else "a.jsonl"))
    assert told.format(folder=tmp_path) in str(refused.value)


def test_rows_of_parquet_are_counted_from_1_and_missing_numbers_are_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.parquet, row 2 has no answer"):
        load(write(tmp_path / "a.parquet", [GOOD, {"question": "Who?", "answer": None}]))


def test_a_folder_needs_one_file_for_each_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no file train, validation or test"):
        load(tmp_path)
    write(tmp_path / "train.csv", [GOOD])
    write(tmp_path / "train.jsonl", [GOOD])
    with pytest.raises(DataError, match=r"several files for train \(train\.csv, train\.jsonl\); keep one"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prompt": "Answer!"}, "prompt has no {question}"),
        ({"validation_share": 0.6, "test_share": 0.6}, "validation_share and test_share are more than 1 together"),
        ({"check": "numbers"}, "did you mean 'number'?"),
        ({"marker": "####"}, "'hashes', 'answer_is', 'boxed' or 'after_think'"),
    ],
)
def test_settings_that_do_not_fit_are_told_in_a_sentence(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(jsonl.Settings, {"path": "a.jsonl", **settings}, "task.settings")
    assert told in str(refused.value)
