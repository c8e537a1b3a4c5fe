"""The shapes in which trainers and inference engines write responses are read alike; what is malformed is named."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.errors import DataError
from aft.sampling.rollout_files import Rollout, read_rollouts

PLAIN = {"prompt": "How many?", "completion": "Two."}
ASKED = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "How many?"}]
SAID = [{"role": "assistant", "content": "Two."}]
IN_PARTS = [
    {"role": role, "content": [{"type": "text", "text": text}]}
    for role, text in (("user", "How many?"), ("assistant", "Two."))
]
OTHER = [{"role": "assistant", "content": "Three."}]


def read(folder: Path, *rows: Any, name: str = "rows.jsonl") -> list[Rollout]:
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        table = pd.DataFrame(rows)
        table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    return list(read_rollouts(path))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize(
    ("row", "labels"),
    [
        ({**PLAIN, "label": True}, {"Two.": True}),
        ({"prompt": ASKED, "completion": SAID, "label": False}, {"Two.": False}),
        ({"prompt": "How many?", "chosen": "Two.", "rejected": "Three."}, {"Two.": True, "Three.": False}),
        ({"prompt": ASKED, "chosen": SAID, "rejected": OTHER}, {"Two.": True, "Three.": False}),
        ({"chosen": ASKED + SAID, "rejected": ASKED + OTHER}, {"Two.": True, "Three.": False}),
        ({"messages": ASKED + SAID}, {"Two.": None}),
        ({"messages": IN_PARTS}, {"Two.": None}),
        ({"prompt": ASKED, "responses": ["Two.", "Three."], "scores": [1.0, 0.0]}, {"Two.": True, "Three.": False}),
        ({"prompt": "How many?", "responses": ["Two.", "Three."], "rewards": [-1, 1]}, {"Two.": False, "Three.": True}),
        ({"prompt": "How many?", "text": "other", "responses": ["Two."], "labels": [True]}, {"Two.": True}),
        ({"input": "How many?", "output": "Two.", "score": 0.4, "step": 3}, {"Two.": False}),
        (
            {"prompt": "How many?", "outputs": [{"text": "Two.", "index": 0}, {"text": "No."}]},
            {"Two.": None, "No.": None},
        ),
    ],
)
def test_question_and_responses_of_a_shape(row: Any, labels: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    rollouts = read(tmp_path, row, name=f"rows.{suffix}")
    assert {one.response: one.label for one in rollouts} == labels
    assert {one.asked for one in rollouts} == {"How many?"}
    assert all(one.is_finished and one.rating is None and one.sum_logprob is None for one in rollouts)


def test_a_csv_file_holds_text_only_and_is_read_alike(tmp_path: Path) -> None:
    (one,) = read(tmp_path, {**PLAIN, "label": True, "rating": 7, "sum_logprob": -1.5, "id": 4}, name="rows.csv")
    assert (one.response, one.label, one.rating, one.sum_logprob, one.question_id) == ("Two.", True, 7.0, -1.5, None)


def test_what_stands_beside_each_of_several_responses(tmp_path: Path) -> None:
    row = {"question_id": 7, "responses": ["a", "b"], "ranks": [0, 1], "finish_reasons": ["stop", "length"]}
    one, two = read(tmp_path, {**row, "token_ids": [[1, 2], [3]], "model": "org/name", "question": None})
    assert (one.question_id, one.rating, one.is_finished, one.token_ids) == ("7", 0.0, True, (1, 2))
    assert (two.question_id, two.rating, two.is_finished, two.source) == ("7", -1.0, False, "org/name")


def test_a_folder_is_read_by_name_and_line(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.json"):
        read(tmp_path, {**PLAIN, "completion": f"{name} 1"}, {**PLAIN, "completion": f"{name} 2"}, name=name)
    (tmp_path / "notes.txt").write_text("no rollouts", encoding="utf-8")
    said = [one.response for one in read_rollouts(tmp_path)]
    assert said == ["a.json 1", "a.json 2", "b.jsonl 1", "b.jsonl 2"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"completion": "Two."}, "has no question"),
        ({"prompt": "How many?"}, "has no response"),
        ({**PLAIN, "completion": None}, "has no response"),
        ({"messages": ASKED}, "has the messages"),
        ({**PLAIN, "completion": 5}, "has the completion 5, which is no text"),
        ({**PLAIN, "completion": "\ud800"}, "has the completion"),
        ({**PLAIN, "label": "perhaps"}, "has the label 'perhaps', which is no true or false"),
        ({**PLAIN, "reward": float("nan")}, "has the reward nan"),
        ({**PLAIN, "sum_logprob": 0.5}, "has the sum_logprob 0.5, which is no number of at most 0"),
        ({**PLAIN, "token_ids": [1, "2"]}, "has the token_ids"),
        ({**PLAIN, "completion": "", "finish_reason": "length"}, "has an empty response that was cut"),
        ({"prompt": "How many?", "responses": "Two."}, "has responses that are no list"),
        ({"prompt": "How many?", "responses": ["Two."], "scores": [1, 0]}, "has scores that are no list with one for"),
        ({"prompt": "How many?", "responses": ["Two."], "label": True}, "has label that are no list with one for"),
        (["Two."], "is no object with fields"),
    ],
)
def test_a_malformed_row_is_named_with_file_and_line(row: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2 {told}") as caught:
        read(tmp_path, PLAIN, row)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.jsonl", "rows.txt", "empty"])
def test_what_is_no_file_of_rows_is_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"must be a file that ends in \.jsonl, \.json, \.csv, \.parquet, or a folder"):
        list(read_rollouts(tmp_path / name))
