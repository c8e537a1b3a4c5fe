"""The three families together: unions, ids and checks of their own, and no question in two splits."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.errors import SettingsError
from aft.evaluation.predictions import greedy_by_set
from aft.pipelines.evaluate.nodes import predict_others
from aft.pipelines.ingest.nodes import load_questions as ingest
from aft.pipelines.parameters import TaskChoice
from aft.pipelines.tables import to_questions
from aft.shards import Shards
from aft.tasks import aqua_rat, ecqa, get_source, get_task, gsm8k, multitask, task_names
from aft.tasks.base import SPLITS

OPTIONS = ["21", "22", "23", "24", "25"]


def _gsm8k(name: str) -> dict[str, Any]:
    return {"question": f"GSM8K {name}?", "answer": "1+1=<<1+1=2>>2\n#### 2"}


def _aqua_rat(name: str) -> dict[str, Any]:
    options = [f"{letter}){text}" for letter, text in zip("ABCDE", OPTIONS, strict=True)]
    return {"question": f"AQUA {name}?", "options": options, "rationale": "It is 23.", "correct": "C"}


def _ecqa(name: str) -> dict[str, Any]:
    return {"question": f"ECQA {name}?", "choices": OPTIONS, "answer": "B", "free_flow": "It is 22."}


ROWS = {  # 6 / 0 / 5 questions before 2 of test validate; 4 / 2 / 3; 3 / 2 / 2
    "gsm8k/train.jsonl": [_gsm8k(f"train {number}") for number in range(6)],
    "gsm8k/test.jsonl": [_gsm8k(f"test {number}") for number in range(5)],
    "aqua_rat/train.json": [_aqua_rat(f"train {number}") for number in range(4)],
    "aqua_rat/dev.json": [_aqua_rat(f"dev {number}") for number in range(2)],
    "aqua_rat/test.json": [_aqua_rat(f"test {number}") for number in range(3)],
    "ecqa/train.jsonl": [_ecqa(f"train {number}") for number in range(3)],
    "ecqa/val.jsonl": [_ecqa(f"val {number}") for number in range(2)],
    "ecqa/test.jsonl": [_ecqa(f"test {number}") for number in range(2)],
}


def _publish(folder: Path, **more: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of the families, whose files are in `folder`; `more` are rows beside `ROWS`."""
    for name, rows in ROWS.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        family = name.partition("/")[0] if path.stem in ("train",) else None
        path.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, *more.get(family or "", [])]), "utf-8")
    return {
        "gsm8k": {"path": str(folder / "gsm8k"), "validation_size": 2},
        "aqua_rat": {"path": str(folder / "aqua_rat"), "train_size": 4, "validation_size": 2, "test_size": 3},
        "ecqa": {"path": str(folder / "ecqa")},
    }


def _settings(choice: dict[str, dict[str, Any]]) -> multitask.Settings:
    return multitask.Settings(
        gsm8k.Settings(**choice["gsm8k"]), aqua_rat.Settings(**choice["aqua_rat"]), ecqa.Settings(**choice["ecqa"])
    )


def test_it_brings_questions_and_asks_none_itself() -> None:
    assert "multitask" in task_names()
    assert get_source("multitask").Settings is multitask.Settings
    with pytest.raises(SettingsError, match="'multitask' lacks prompt, extract_answer, answers_equal"):
        get_task("multitask")


def test_splits_are_the_unions_and_questions_stay_as_they_are(tmp_path: Path) -> None:
    """6 + 4 + 3 train, 2 + 2 + 2 validate, 3 + 3 + 2 test."""
    choice = _publish(tmp_path)
    settings = _settings(choice)
    splits = multitask.load_questions(settings)
    assert tuple(splits) == SPLITS
    assert [len(splits[split]) for split in SPLITS] == [13, 6, 8]
    for split in SPLITS:
        assert splits[split] == [
            *gsm8k.load_questions(settings.gsm8k)[split],
            *aqua_rat.load_questions(settings.aqua_rat)[split],
            *ecqa.load_questions(settings.ecqa)[split],
        ]
    for question in (question for questions in splits.values() for question in questions):
        task = get_task(question.dataset)
        assert question.question_id.startswith(f"{question.dataset}/")
        assert task.extract_answer(question.reference) == question.answer
        assert ("(A) 21" in task.prompt(question)) == (question.dataset != "gsm8k")


def test_a_question_of_two_families_is_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """AQUA-RAT's test question 1 is asked in ECQA's train, too, and ECQA's val question 0 in AQUA-RAT's train."""
    leaks = {"ecqa": [{**_ecqa(""), "question": "aqua TEST 1"}]}
    leaks["aqua_rat"] = [{**_aqua_rat(""), "question": "ECQA val 0?"}]
    choice = _publish(tmp_path, **leaks)
    choice["aqua_rat"]["train_size"] = 5
    splits = multitask.load_questions(_settings(choice))
    assert [len(splits[split]) for split in SPLITS] == [13, 6, 8]
    assert "Dropped 2 of the 15 train questions of the families together" in caplog.text
    hashes = [question.content_hash for split in SPLITS for question in splits[split]]
    assert len(set(hashes)) == len(hashes)


def test_a_question_that_two_families_train_on_is_trained_on_once(tmp_path: Path) -> None:
    choice = _publish(tmp_path, ecqa=[{**_ecqa(""), "question": "AQUA train 1?"}])
    splits = multitask.load_questions(_settings(choice))
    assert [question.dataset for question in splits["train"]] == ["gsm8k"] * 6 + ["aqua_rat"] * 4 + ["ecqa"] * 3


def test_the_settings_may_come_from_a_parameters_file(tmp_path: Path) -> None:
    train, validation, test, others, held_out = ingest(TaskChoice("multitask", dict(_publish(tmp_path))), {})
    assert (len(train), len(validation), len(test), len(others), len(held_out)) == (
        13,
        6,
        8,
        6,
        28,
    )  # hashes with and without spaces
    assert {question.dataset for question in to_questions(test)} == {"gsm8k", "aqua_rat", "ecqa"}


def test_the_accuracy_on_each_dataset_is_told_beside_that_on_all(tmp_path: Path) -> None:
    """Greedy answers to the 3, 3 and 2 test questions, of which 1, 2 and 0 are right: 3/8 in all."""
    _, _, test, _, _ = ingest(TaskChoice("multitask", dict(_publish(tmp_path))), {})
    right = {"gsm8k": 1, "aqua_rat": 2, "ecqa": 0}
    place = test.groupby("dataset").cumcount()
    rows = pd.DataFrame(
        {
            **{"question_id": test["question_id"], "sample_index": -1, "response": "", "extracted_answer": "1"},
            **{"is_correct": place < test["dataset"].map(right), "score": -1.0, "identity": "x"},
        }
    )
    sampled = rows.assign(sample_index=0, is_correct=True)
    predictions = {"seed_0": lambda: pd.concat([rows, sampled], ignore_index=True)}
    others = predict_others(Shards(), test.iloc[:0], predictions, test, 0, "x")["seed_0"]
    accuracy = {name: own["is_correct"].mean() for name, own in greedy_by_set(others)}
    assert accuracy == {"gsm8k": 1 / 3, "aqua_rat": 2 / 3, "ecqa": 0}
    alone = test[test["dataset"] == "ecqa"]
    assert predict_others(Shards(), test.iloc[:0], predictions, alone, 0, "x")["seed_0"].empty


def test_a_test_set_cannot_have_the_name_of_a_dataset(tmp_path: Path) -> None:
    choice: dict[str, Any] = _publish(tmp_path)
    with pytest.raises(SettingsError, match="cannot be called 'ecqa': the test questions of ecqa are that set"):
        ingest(TaskChoice("multitask", choice), {"ecqa": {"family": "ecqa", "settings": choice["ecqa"]}})


def test_a_mistake_in_the_settings_of_a_family_is_named_with_it(tmp_path: Path) -> None:
    choice: dict[str, Any] = _publish(tmp_path)
    with pytest.raises(SettingsError, match=r"gsm8k\.train_sise': did you mean 'train_size'"):
        ingest(TaskChoice("multitask", {**choice, "gsm8k": {"train_sise": 3}}), {})
    with pytest.raises(SettingsError, match=r"ecqa\.path is missing"):
        ingest(TaskChoice("multitask", {**choice, "ecqa": {}}), {})
    with pytest.raises(SettingsError, match=r"mmlu': there are gsm8k, aqua_rat, ecqa"):
        ingest(TaskChoice("multitask", {**choice, "mmlu": {}}), {})


def test_the_recipe_has_the_settings_of_each_family_s_own(recipe_parameters: Callable[[str], dict[str, Any]]) -> None:
    together = recipe_parameters("multitask")
    for name in ("gsm8k", "aqua_rat", "ecqa"):
        alone = recipe_parameters(name)
        set_alone = {key: value for key, value in alone["task"]["settings"].items() if not key.endswith("_limit")}
        assert together["task"]["settings"][name] == set_alone
        differ = {key for key, value in alone["training"].items() if together["training"][key] != value}
        assert differ <= {"epochs"}
    assert replace(_settings(together["task"]["settings"]).gsm8k, path="x").validation_size == 400
    assert together["align"]["aft_bc"]["objective"]["beta"] == 0.15
