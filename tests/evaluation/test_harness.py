"""The task for lm-evaluation-harness: the model's own prompts, and a pattern that finds its answer."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from aft.cli import cli
from aft.errors import DataError
from aft.evaluation.harness import write_task
from aft.models.chat import CHAT_KEY, STYLE_KEY
from aft.models.directory import ModelDirectory, open_model, publish
from aft.models.tokens import encode_question
from aft.pipelines.tables import to_table
from aft.tasks import Question, multiple_choice


def written(model: ModelDirectory, questions: list[Question], folder: Path) -> tuple[dict[str, Any], list[Any]]:
    path = write_task(model, questions, folder, name="aft_mine", max_new_tokens=70)
    task = yaml.safe_load(path.read_text(encoding="utf-8"))
    lines = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text(encoding="utf-8").splitlines()
    return task, list(map(json.loads, lines))


@pytest.mark.parametrize("style", ["plain", "chat"])
def test_it_asks_what_the_model_is_asked(
    style: str, pocket_directory: ModelDirectory, pocket_questions: list[Question], tmp_path: Path, monkeypatch: Any
) -> None:
    tokenizer = pocket_directory.tokenizer()
    if style == "chat":
        tokenizer.chat_template = "{% for message in messages %}{{ bos_token }}{{ message.content }}\n{% endfor %}"
        tokenizer.init_kwargs |= {STYLE_KEY: "chat", CHAT_KEY: {"system_prompt": "2 + 2"}}
    monkeypatch.setattr(ModelDirectory, "tokenizer", lambda self: tokenizer)
    task, rows = written(pocket_directory, pocket_questions, tmp_path)
    assert [row["answer"] for row in rows] == [question.answer for question in pocket_questions]
    assert task["task"] == "aft_mine" and task["generation_kwargs"]["max_gen_toks"] == 70
    for question, row in zip(pocket_questions, rows, strict=True):
        ids = tokenizer(row["prompt"], add_special_tokens=style == "plain")["input_ids"]
        assert ids == encode_question(tokenizer, question)


@pytest.mark.parametrize(
    ("response", "number", "letter"),
    [
        ("a\n#### 42", "42", None),
        ("#### $1,200.50 in all", "1,200.50", None),
        ("#### -3\n#### 5", "-3", None),
        ("<think>#### 7</think>\n#### 42", "42", None),
        ("<think>#### 7</think>\n#### C", None, "C"),
        ("#### (B)", None, "B"),
        ("#### Because", None, None),
    ],
)
def test_the_pattern_finds_the_answer(
    response: str,
    number: str | None,
    letter: str | None,
    pocket_directory: ModelDirectory,
    pocket_questions: list[Question],
    tmp_path: Path,
) -> None:
    lettered = multiple_choice.choice_question(
        question_id="ecqa/test/1", split="test", question="Q", choices=["a", "b"], answer="A", reasoning="r", where="it"
    )
    for questions, expected in (([pocket_questions[0]], number), ([lettered], letter)):
        task, _ = written(pocket_directory, questions, tmp_path / str(expected))
        found = re.search(task["filter_list"][0]["filter"][0]["regex_pattern"], response)
        assert (found[1] if found else None) == expected


@pytest.mark.parametrize("dataset", ["math", "jsonl/number/boxed", "jsonl/text/hashes", "jsonl/math/hashes"])
def test_answers_that_the_pattern_cannot_find_are_refused(
    dataset: str, pocket_directory: ModelDirectory, pocket_questions: list[Question], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"would mark every answer to {dataset} wrong"):
        written(pocket_directory, [replace(pocket_questions[0], dataset=dataset, prompt="Solve.")], tmp_path)


@pytest.mark.parametrize("dataset", ["jsonl/number/hashes", "jsonl/choice/hashes"])
def test_own_questions_behind_hashes_are_asked(
    dataset: str, pocket_directory: ModelDirectory, pocket_questions: list[Question], tmp_path: Path
) -> None:
    _, rows = written(pocket_directory, [replace(pocket_questions[0], dataset=dataset, prompt="Solve.")], tmp_path)
    assert rows[0]["prompt"] == "Solve."


def test_the_command_finds_the_questions_beside_the_model(
    pocket_directory: ModelDirectory, pocket_questions: list[Question], tmp_path: Path
) -> None:
    folder = tmp_path / "data/06_models/mine/seed_0/aft"
    publish(pocket_directory, folder)
    arguments = ["models", "harness", str(folder), "--to", str(tmp_path / "task")]
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code and "There are no test questions in" in refused.output and "run ingest" in refused.output
    table = tmp_path / "data/03_primary/mine/test_questions.parquet"
    table.parent.mkdir(parents=True)
    to_table(pocket_questions).to_parquet(table)
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0 and "of 12 questions" in done.output and "add_bos_token" not in done.output, done.output
    assert (tmp_path / "task/aft_pocket.yaml").is_file() and open_model(folder) is not None
