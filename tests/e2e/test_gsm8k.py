"""The GSM8K recipe, from rows in the published format to the comparison, with a model that knows nothing of them."""

import json

import pandas as pd
import pytest

pytestmark = pytest.mark.e2e


def write_rows(path, split, count):
    """Rows whose answers differ, so that none is a duplicate."""
    rows = [
        {
            "question": f"Tom has {i} {split} marbles and buys {i}. How many?",
            "answer": f"{i}+{i}=<<{i}+{i}={2 * i}>>{2 * i}\n#### {2 * i}",
        }
        for i in range(1, count + 1)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def test_the_recipe_goes_through_all_stages(finished, fresh, tmp_path):
    folder = tmp_path / "gsm8k rows"
    folder.mkdir()
    write_rows(folder / "train.jsonl", "red", 12)
    write_rows(folder / "test.jsonl", "blue", 10)
    settings = {
        "base_model.source": finished.data / "06_models/smoke/base",
        "task.settings.path": folder,
        "task.settings.validation_size": 4,
        "training.max_steps": 2,
        "training.batch_size": 4,
        # Half precision is emulated on many CPUs, at a crawl.
        **dict.fromkeys(("training.precision", "sampling.precision", "evaluation.sampling.precision"), "float32"),
        "sampling.max_new_tokens": 12,
        "sampling.samples": 2,
        "evaluation.sampling.max_new_tokens": 12,
    }
    done = fresh.run("--params", ",".join(f"{key}={value}" for key, value in settings.items()), env="gsm8k")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nothing can be aligned" in done.stderr  # no response of such a model is right, and the user is told
    table = pd.read_csv(fresh.data / "08_reporting/gsm8k/binary/comparison.csv")
    assert (table["questions"] == 6).all()
    assert (table["accuracy"] == 0).all()
    questions = pd.read_parquet(fresh.data / "03_primary/gsm8k/test_questions.parquet")
    assert questions["question_id"].str.startswith("gsm8k/test/").all()
