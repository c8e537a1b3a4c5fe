"""MATH and sets of its form: rows with a boxed answer, from a folder or the hub's MATH-500."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from aft.errors import DataError, SettingsError
from aft.tasks import get_task, latex, math


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if math-verify was there: nothing here needs it."""
    monkeypatch.setattr(latex, "find_spec", lambda name: True)


def write(path: Path, *problems: tuple[str, str]) -> None:
    rows = [{"problem": problem, "solution": solution, "level": 3} for problem, solution in problems]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def test_a_published_row_becomes_a_question_with_a_boxed_answer(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", ("What is $1/2$?", r"It is $\boxed{1}$; no, $\boxed{\frac{1}{2}}$."))
    splits = math.load_questions(math.Settings(path=str(tmp_path)))
    (question,) = splits["test"]
    assert (splits["train"], splits["validation"]) == ([], [])
    assert (question.question_id, question.dataset, question.answer) == ("math/test/00000", "math", "0.5")
    task = get_task("math")
    assert task.prompt(question).endswith(
        "What is $1/2$?\n\nReason step by step, and put your final answer within \\boxed{}.\n\n### Response:\n"
    )
    assert task.extract_answer(r"So $\boxed{0.50}$") == "0.5" and task.extract_answer("#### 0.5") is None
    assert task.answers_equal(r"\boxed{1/2}", r"\boxed{1/2}")


def test_train_and_validation_are_read_where_there_are_such_files_and_leaks_leave_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three = ((f"Find ${n}$.", rf"$\boxed{{{n}}}$") for n in range(3))
    write(tmp_path / "train.jsonl", one, two, three)
    write(tmp_path / "test.jsonl", one)
    splits = math.load_questions(math.Settings(path=str(tmp_path), train_limit=1))
    assert [question.answer for question in splits["train"]] == ["1"] and len(splits["test"]) == 1
    assert "Dropped 1 of the 3 train questions of MATH" in caplog.text


def test_the_hub_is_asked_for_math_500_at_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, config: None, **where: Any) -> list[dict[str, str]]:
        assert (name, config, where) == (
            math.HUB_DATASET,
            None,
            {"split": "test", "revision": math.Settings().revision},
        )
        return [{"problem": "Find $x$.", "solution": r"$\boxed{x}$", "answer": "x"}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert [len(questions) for questions in math.load_questions(math.Settings()).values()] == [0, 0, 1]


def test_a_solution_without_a_box_is_told_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", ("a", r"$\boxed{1}$"), ("b", "It is 1."))
    with pytest.raises(DataError, match=r"test\.jsonl, line 2 has no answer in a box"):
        math.load_questions(math.Settings(path=str(tmp_path)))


def test_without_math_verify_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(latex, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="not installed"):
        math.load_questions(math.Settings(path=str(tmp_path)))
