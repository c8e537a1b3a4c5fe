"""MAWPS to train on: references written from equations, wrong ones left out, and no question in two splits."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aft.errors import DataError, SettingsError
from aft.tasks import gsm8k, mawps
from aft.tasks.calculator import value_of


def row(question: str, equation: object, numbers: object, answer: float) -> dict[str, object]:
    return {"question": question, "answer": answer, "equation": equation, "numbers": numbers, "fold": 0}


def publish(folder: Path, *rows: object) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in rows)
    (folder / "mawps_1920.jsonl").write_text(text, encoding="utf-8")
    return folder


def load(folder: Path, **settings: Any) -> Any:
    return mawps.load_questions(mawps.Settings(path=str(folder), sets=("mawps_1920",), **settings))


ASKED = row("Asked in test?", "+ number0 number1", [1, 1], 2)


def reference(folder: Path, equation: object, numbers: object, answer: float, question: str = "How many?") -> str:
    """What the one training question is to be learnt from."""
    publish(folder, ASKED, row(question, equation, numbers, answer))
    (learnt,) = load(folder, test_limit=1, train_size=1)["train"]
    return learnt.reference


@pytest.mark.parametrize(
    ("equation", "numbers", "answer", "marks"),
    [
        ("- number0 number1", [8.0, 3.0], 5.0, ["8-3=5"]),
        ("- number1 number0", [3, 8], 5, ["8-3=5"]),
        ("- number0 * number1 number2", [25000.0, 1500.0, 8.0], 13000.0, ["1500*8=12000", "25000-12000=13000"]),
        ("+ * number0 0.5 * number1 2.0", [9.0, 4.0], 12.5, ["9*0.5=4.5", "4*2=8", "4.5+8=12.5"]),
        ("/ number0 number1", [1.0, 3.0], 0.3333333333333333, ["1/3=0.3333"]),
        ("* number0 number1", [-2.0, -15.0], 30.0, ["-2*-15=30"]),
    ],
)
def test_an_equation_is_a_reference_of_calculator_steps(
    tmp_path: Path, equation: str, numbers: list[float], answer: float, marks: list[str]
) -> None:
    """Every mark holds by the calculator, and what the reference is read as is the answer."""
    told = reference(tmp_path, equation, numbers, answer)
    assert gsm8k.equations(told) == marks
    assert all(value_of(mark) is not None for mark in marks)
    assert mawps.answers_equal(str(mawps.extract_answer(told)), str(answer))
    assert told.endswith(f"\n#### {marks[-1].partition('=')[2]}")


@pytest.mark.parametrize(
    ("equation", "numbers", "answer"),
    [
        ("- number0 number1", [1222.0, 513.0], 208.0),  # it gives 709
        ("/ number0 number1", [2.99, 12.0], 0.25),  # 0.2492
        ("/ number0 number1", [2.0, 0.0], 0.0),
        ("* number2 / number0 number1", [7.0, 12.0, 216.0], 126.0),  # 216 x 0.5833 is 125.99
        ("number0", [7.0], 7.0),
    ],
)
def test_what_does_not_come_to_the_answer_step_by_step_is_left_out(
    tmp_path: Path, equation: str, numbers: list[float], answer: float
) -> None:
    with pytest.raises(SettingsError, match="mawps_1920 has 0 questions beside those of test"):
        reference(tmp_path, equation, numbers, answer)


@pytest.mark.parametrize(
    ("equation", "numbers", "told"),
    [
        ("- number0", [8.0, 3.0], "has the equation '- number0', which cannot be read"),
        ("number0 number1", [8.0, 3.0], "which cannot be read"),
        ("- number0 number2", [8.0, 3.0], "which cannot be read"),
        ("- number0 number-1", [8.0, 3.0], "which cannot be read"),
        ("- number0 __import__('os')", [8.0, 3.0], "which cannot be read"),
        ("- number0 1e999999999", [8.0, 3.0], "which cannot be read"),
        ("", [8.0], "has no text in the field 'equation'"),
        ("- number0 number1", [8.0, float("nan")], "which cannot be read"),
        ("- number0 number1", [8.0, "3"], "has no list of numbers in 'numbers'"),
        ("- number0 number1", None, "has no list of numbers in 'numbers'"),
    ],
)
def test_an_equation_that_cannot_be_read_is_refused_with_its_place(
    tmp_path: Path, equation: str, numbers: Any, told: str
) -> None:
    with pytest.raises(DataError) as refused:
        reference(tmp_path, equation, numbers, 5.0)
    assert str(refused.value).startswith(f"{tmp_path / 'mawps_1920.jsonl'}, line 2 ") and told in str(refused.value)


def test_the_wording_depends_on_the_question_alone_and_varies(tmp_path: Path) -> None:
    told = {f"Question {i}?": reference(tmp_path, "- number0 number1", [8, 3], 5, f"Question {i}?") for i in range(40)}
    assert len(set(told.values())) == 5
    assert all(reference(tmp_path, "- number0 number1", [8, 3], 5, asked) == text for asked, text in told.items())


def test_no_question_is_in_two_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that is asked again with other spaces stays in test, once; a wrong equation is tested and not learnt."""
    wrong = row("Ann has 9 .", "- number0 number1", [9, 2], 6)
    rows = [row(f"Tom has {i} .", "+ number0 number1", [i, 1], i + 1) for i in range(10)]
    publish(
        tmp_path, wrong, *rows, row("Tom has 0.", "+ number0 number1", [0, 1], 1), wrong | {"question": "Ann has 8 ."}
    )
    splits = load(tmp_path, test_limit=3, train_size=5, validation_size=3)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 5, "validation": 3, "test": 3}
    assert [one.question for one in splits["test"]] == ["Ann has 9 .", "Tom has 0 .", "Tom has 1 ."]
    everything = [one for rows in splits.values() for one in rows]
    assert max(Counter(one.content_hash for one in everything).values()) == 1
    assert all(one.split == name for name, rows in splits.items() for one in rows)
    assert "Left out 1 of the 10 questions of mawps_1920 that are not tested" in caplog.text
    assert "Dropped 1 of the 9 questions of mawps_1920 left" in caplog.text
    with pytest.raises(SettingsError, match=r"are 7 and 2, but mawps_1920 has 8 questions beside those of test"):
        load(tmp_path, test_limit=3, train_size=7, validation_size=2)


HEADER = "Question,Numbers,Equation,Answer,group_nums,Body,Ques_Statement"
FOLDS = (
    '"Tom has number0 pens , and buys number1 .",8.0 3.0,+ number0 number1,11.0,"[1, 2]",Tom,"and buys number1 ."',
    "Ann cuts number0 m into number1 m .,7.5 0.16666666666666666,/ number0 number1,45,[3],Ann,How many ?",
    "number1 of number0 and number2 .,25000.0 2.0 4.0,- number0 * number1 number2,24992.0,[4],number1,?",
)


def publish_folds(folder: Path, *rows: str) -> Path:
    """A row in each of the authors' folds, the last of which are empty."""
    for number in range(5):
        own = folder / f"fold{number}"
        own.mkdir(parents=True)
        text = "\n".join([HEADER, *rows[number : number + 1], ""])
        (own / "dev.csv").write_text(text, encoding="utf-8")
    return folder


def test_folds_as_the_authors_publish_them_are_the_same_questions(tmp_path: Path) -> None:
    """Whole numbers stand in a question without a point, others with all their digits."""
    rows = (
        row("Tom has 8 pens , and buys 3 .", "+ number0 number1", [8.0, 3.0], 11.0),
        row("Ann cuts 7.5 m into 0.16666666666666666 m .", "/ number0 number1", [7.5, 0.16666666666666666], 45.0),
        row("2 of 25000 and 4 .", "- number0 * number1 number2", [25000.0, 2.0, 4.0], 24992.0),
    )
    folds, one = publish_folds(tmp_path / "folds", *FOLDS), publish(tmp_path, *rows)
    for settings in ({}, {"test_limit": 1, "train_size": 1}):
        assert load(folds, **settings) == load(one, **settings)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Tom has number2 .,8.0 3.0,+ number0 number1,11.0,,,", "has no number for 'number2' of its question"),
        ("Tom has number0 .,eight,+ number0 number1,11.0,,,", "has no numbers in the field 'Numbers'"),
        ("Tom has number0 .,8.0,+ number0 number0,many,,,", "has the answer 'many', which is no number"),
    ],
)
def test_a_row_of_a_fold_that_cannot_be_read_is_named(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(DataError) as refused:
        load(publish_folds(tmp_path, line))
    assert str(refused.value).startswith(f"{tmp_path / 'fold0/dev.csv'}, line 2 ") and told in str(refused.value)


def test_without_either_form_both_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither mawps_1920\.jsonl nor fold0 in .* data/cv_mawps of github\.com"):
        load(tmp_path)


def test_the_published_file_trains_and_tests(published_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of 1,520 questions that are not tested, 12 are not told by their equation, and 177 are asked before."""
    splits = load(published_data / "mawps", test_limit=400, train_size=1331)
    assert "Left out 12 of the 1520 " in caplog.text and "Dropped 177 of the 1508 " in caplog.text
    for one in splits["train"]:
        assert mawps.answers_equal(str(mawps.extract_answer(one.reference)), one.answer)
        assert all(value_of(mark) is not None for mark in gsm8k.equations(one.reference))
