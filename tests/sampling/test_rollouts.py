"""Responses that were drawn elsewhere become candidates: joined by id or text, never one to a held-out question."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.errors import DataError
from aft.models.directory import ModelDirectory
from aft.models.tokens import encode_prompt, encode_response
from aft.pipelines.sample_cots.nodes import sample_cots
from aft.pipelines.tables import candidates, to_table
from aft.sampling.rollouts import import_responses
from aft.sampling.settings import SamplerSettings, SamplingSettings
from aft.tasks import Question, content_hash, gsm8k, multiple_choice, pocket

Import = Callable[..., pd.DataFrame]


@pytest.fixture
def imported(tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question]) -> Import:
    """The candidates table of these rows."""

    def of(*rows: Any, held_out: tuple[Question, ...] = (), asked: list[Question] | None = None) -> pd.DataFrame:
        path = tmp_path / "rows_3.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        shards = sample_cots(
            *(pocket_directory, to_table(asked or pocket_questions[:6]), None, SamplingSettings(1, block_size=2)),
            *(SamplerSettings(), 3, str(tmp_path / "cache"), str(tmp_path / "rows_{seed}.jsonl")),
            [question.content_hash for question in held_out],
        )
        return candidates(shards.table())

    return of


def test_rows_are_joined_by_id_text_or_prompt_in_whatever_order(
    imported: Import, pocket_questions: list[Question], pocket_directory: ModelDirectory
) -> None:
    tokenizer = pocket_directory.tokenizer()
    seen = tokenizer.decode(encode_prompt(tokenizer, pocket.prompt(pocket_questions[3])))
    mine = f"In a template of my own: {pocket_questions[0].question}"
    table = imported(
        {"prompt": seen, "response": "#### 3"},
        {"question": f"  {pocket_questions[2].question.upper()} ", "response": "#### 2"},
        {"prompt": pocket.prompt(pocket_questions[1]), "response": "#### 1"},
        {"question_id": pocket_questions[0].question_id, "prompt": mine, "response": "#### 0"},
        {"question": pocket_questions[2].question, "response": "#### 22"},
    )
    ids = [pocket_questions[number].question_id for number in (0, 1, 2, 2, 3)]
    assert table["question_id"].tolist() == ids
    assert table["response"].tolist() == ["#### 0", "#### 1", "#### 2", "#### 22", "#### 3"]
    assert table["sample_index"].tolist() == [0, 0, 0, 1, 0]
    assert table["sum_logprob"].isna().all() and table["given_label"].isna().all()


def test_a_prompt_in_alpacas_template_is_matched(imported: Import) -> None:
    text = "What is 2 + 3?"
    question = Question("gsm8k/train/1", "gsm8k", "train", text, None, "#### 5", "5", content_hash(text))
    table = imported({"prompt": gsm8k.prompt(question), "response": "#### 5"}, asked=[question])
    assert table["question_id"].tolist() == ["gsm8k/train/1"]


def test_rows_of_held_out_questions_are_left_out_and_counted(
    imported: Import, pocket_questions: list[Question], caplog: pytest.LogCaptureFixture
) -> None:
    """By their text or prompt, even under the id of a training question."""
    train, secret = pocket_questions[0], pocket_questions[7]
    with caplog.at_level(logging.INFO):
        table = imported(
            {"question_id": train.question_id, "response": "#### 1"},
            {"question_id": train.question_id, "question": secret.question, "response": "#### 2"},
            {"prompt": pocket.prompt(secret), "response": "#### 3"},
            {"question_id": "mine/17", "response": "#### 4"},
            {"question": "Who?", "response": "#### 5"},
            held_out=(secret,),
        )
    assert table["response"].tolist() == ["#### 1"]
    assert "1 responses to 1 of 6 training questions; left out are 2 to validation or test questions" in caplog.text
    assert "and 2 that match no question ('mine/17', 'Who?')" in caplog.text


@pytest.mark.parametrize("family", ["ecqa", "aqua_rat", "jsonl/choice/hashes"])
def test_questions_with_options_are_known_by_what_is_asked(
    family: str, imported: Import, caplog: pytest.LogCaptureFixture
) -> None:
    """In the prompt of the family or as they stand in it, under the id of a training question, too.

    As they stand in it is how they are exported for a model whose chat prompts are the question only.
    """

    def asking(number: int) -> Question:
        choices = ("pot", f"{number} mm")
        text = f"Tom has {number} pens . Where are they ?"
        question = Question(f"{family}/{number}", family, "", text, choices, "#### A", "A", content_hash(text, choices))
        return replace(question, prompt=multiple_choice.prompt(question))

    train, secret = asking(1), asking(2)
    bare = multiple_choice.with_options(secret.question, secret.choices or ())
    table = imported(
        {"question_id": train.question_id, "prompt": multiple_choice.prompt(train), "response": "#### A"},
        {"question_id": train.question_id, "prompt": multiple_choice.prompt(secret), "response": "#### B"},
        {"question": f"{bare} ", "response": "#### C"},
        {"question": multiple_choice.with_options(train.question, train.choices or ()), "response": "#### D"},
        asked=[train],
        held_out=(secret,),
    )
    assert table["response"].tolist() == ["#### A", "#### D"]
    assert "left out are 2 to validation or test questions, and 0 that match no question" in caplog.text


def test_without_any_training_question_the_first_ids_are_told(imported: Import) -> None:
    with pytest.raises(DataError, match=r"None of the 5 responses .*, 5 to others \('m/0', 'm/1', 'm/2' \.\.\.\)"):
        imported(*({"question_id": f"m/{number}", "response": "#### 1"} for number in range(5)))


def test_an_id_and_a_text_of_two_questions_are_refused(imported: Import, pocket_questions: list[Question]) -> None:
    one, other = pocket_questions[:2]
    with pytest.raises(DataError, match=rf"line 1 has the id of {one.question_id} and asks {other.question_id}"):
        imported({"question_id": one.question_id, "question": other.question, "response": "#### 1"})


def test_a_known_id_under_which_another_question_was_asked_is_left_out(
    imported: Import, pocket_questions: list[Question], caplog: pytest.LogCaptureFixture
) -> None:
    """Ids are often numbers, which name other questions under other settings."""
    first, second = (question.question_id for question in pocket_questions[:2])
    table = imported(
        {"question_id": first, "prompt": "How many pens are left?", "response": "#### 1"},
        {"question_id": second, "response": "#### 2"},
    )
    assert table["question_id"].tolist() == [second]
    assert f"1 that match no question ('{first}')" in caplog.text


def test_token_ids_are_made_as_sampling_leaves_them(
    imported: Import, pocket_questions: list[Question], pocket_directory: ModelDirectory
) -> None:
    """Given ones are kept where they spell the response; a finished response ends with the end token, a cut one not."""
    whole = encode_response(pocket_directory.tokenizer(), "#### 7")
    row = {"question_id": pocket_questions[0].question_id, "response": "#### 7"}
    table = imported(
        row,
        {**row, "finish_reason": "length"},
        {**row, "token_ids": whole, "sum_logprob": -2.5, "source_model": "org/name"},
        {**row, "response": " #### 7", "token_ids": whole[:-1]},
        {**row, "token_ids": [3, 10**6]},
        {**row, "token_ids": [*whole[:-2], *whole]},
    )
    assert [list(ids) for ids in table["token_ids"]] == [whole, whole[:-1], whole, whole, whole, whole]
    assert table["n_tokens"].tolist() == [len(ids) for ids in table["token_ids"]]
    assert table["finish_reason"].tolist() == ["stop", "length", *["stop"] * 4]
    assert table["sum_logprob"].dropna().tolist() == [-2.5]
    assert table["model_fingerprint"].tolist() == ["unknown", "unknown", "org/name", *["unknown"] * 3]


def test_token_ids_may_end_with_any_end_of_the_model(
    two_ends: ModelDirectory, tmp_path: Path, pocket_questions: list[Question], caplog: pytest.LogCaptureFixture
) -> None:
    """They are kept, as those of the local engine are; an end within the response still makes them foreign."""
    question, tokenizer = pocket_questions[0], two_ends.tokenizer()
    *body, end = encode_response(tokenizer, "#### 7")
    (other,) = two_ends.end_tokens() - {end}
    row, path = {"question_id": question.question_id, "response": "#### 7"}, tmp_path / "rows.jsonl"
    rows = [row | {"token_ids": ids} for ids in ([*body, other], [other, *body, end])]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    (shard,) = import_responses(two_ends, path, [question], (), tmp_path / "cache", 2)
    assert [list(ids) for ids in pd.read_parquet(shard)["token_ids"]] == [[*body, other], [*body, end]]
    assert "1 responses have token ids of another tokenizer" in caplog.text


def test_shards_are_kept_by_content(
    tmp_path: Path, imported: Import, pocket_questions: list[Question], edit_code: Callable[[str], None]
) -> None:
    rows = [{"question_id": one.question_id, "response": "#### 1"} for one in pocket_questions[:3]]

    def stores() -> set[Path]:
        return {path for path in (tmp_path / "cache").iterdir() if path.is_dir()}

    imported(*rows)
    (first,) = stores()
    times = {path: path.stat().st_mtime_ns for path in first.glob("*.parquet")}
    assert len(times) == 2, "blocks of two questions"
    imported(*rows)
    assert stores() == {first} and times == {path: path.stat().st_mtime_ns for path in times}
    imported(*rows[:2], {**rows[2], "response": "#### 2"})
    assert len(stores()) == 2
    assert json.loads((first / "description.json").read_text(encoding="utf-8"))["kind"] == "own rollouts"
