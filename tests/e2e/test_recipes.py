"""Every recipe for published data, whole, on a few published rows: with a tiny random model, for two steps."""

import gzip
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from aft.errors import SettingsError
from aft.project import check_recipe
from aft.tasks.base import SPLITS

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
COMPARISONS = yaml.safe_load((ROOT / "conf/base/parameters_evaluate.yml").read_text(encoding="utf-8"))["comparisons"]
WITH_BASE = ["vft", "base", "rft", "aft", "aft_dc", "aft_dc_plus"]
RECIPES = sorted(path.parent.name for path in (ROOT / "conf").glob("*/globals.yml"))

TRAIN, HELD_OUT = 12, 8  # rows that are taken of each published file
ROWS = {  # what a file is made of
    "gsm8k/train.jsonl": ("gsm8k/train.jsonl", TRAIN),
    "gsm8k/test.jsonl": ("gsm8k/test.jsonl", HELD_OUT),
    "aqua_rat/train.json": ("aqua_rat/train_partial.jsonl.gz", TRAIN),
    "aqua_rat/dev.json": ("aqua_rat/dev.json", HELD_OUT),
    "aqua_rat/test.json": ("aqua_rat/test.json", HELD_OUT),
    "ecqa/train.jsonl": ("ecqa/train.jsonl.gz", TRAIN),
    "ecqa/val.jsonl": ("ecqa/val.jsonl.gz", HELD_OUT),
    "ecqa/test.jsonl": ("ecqa/test.jsonl.gz", HELD_OUT),
    "mmlu/test.jsonl": ("mmlu/test.jsonl.gz", HELD_OUT),
    "mawps/mawps_1920.jsonl": ("mawps/mawps_1920.jsonl.gz", 2 * TRAIN),
}
GSM8K = {"path": "gsm8k", "validation_size": 3}
AQUA_RAT = {"path": "aqua_rat", "train_size": 9, "validation_size": 4, "test_size": 6}
ECQA = {"path": "ecqa"}
SETTINGS: dict[
    str, dict[str, Any]
] = {  # what differs from the recipe, and what training, validation and test then hold
    "gsm8k": {"sizes": (12, 3, 5), **GSM8K},
    "gsm8k_rank": {"sizes": (10, 3, 5), **GSM8K, "train_size": 10},
    "aqua_rat": {"sizes": (9, 4, 6), **AQUA_RAT},
    "ecqa": {"sizes": (12, 8, 8), **ECQA},
    "smollm2_mawps": {"sizes": (9, 3, 6), "path": "mawps", "test_limit": 6, "train_size": 9, "validation_size": 3},
    "multitask": {"sizes": (33, 15, 19), "gsm8k": GSM8K, "aqua_rat": AQUA_RAT, "ecqa": ECQA},
}


@pytest.fixture(scope="module")
def rows(published_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the published files, a few rows of each."""
    folder = tmp_path_factory.mktemp("published")
    for name, (source, count) in ROWS.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        opened = gzip.open if source.endswith(".gz") else open
        with opened(published_data / source, "rt", encoding="utf-8") as lines:
            path.write_text("".join(itertools.islice(lines, count)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(rows: Path) -> Path:
    """A random model of 30,000 weights whose tokens are those of the rows."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ByteLevelBPETokenizer()
    tokens.train([str(rows / name) for name in ROWS], vocab_size=800, special_tokens=["<end>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens._tokenizer, eos_token="<end>", pad_token="<end>")
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=0, pad_token_id=0, bos_token_id=None, **shape)
    LlamaForCausalLM(config).save_pretrained(rows / "model")
    tokenizer.save_pretrained(rows / "model")
    return rows / "model"


def test_every_recipe_is_tried() -> None:
    """All but those with a test of their own: pocket, its smoke, own questions, and the one that asks a chat model."""
    assert sorted({*SETTINGS, "base", "own", "smoke", "smollm2"}) == RECIPES


def test_an_unknown_recipe_is_answered_with_the_list() -> None:
    with pytest.raises(SettingsError) as refused:
        check_recipe("gsm9k", ROOT / "conf")
    assert str(refused.value).endswith(f"choose one of {', '.join(RECIPES)}.")


def parameters(recipe: str, rows: Path, model: Path) -> str:
    def dotted(prefix: str, value: Any) -> list[str]:
        if isinstance(value, dict):
            return [line for name, inner in value.items() for line in dotted(f"{prefix}.{name}", inner)]
        return [f"{prefix}={rows / value if prefix.endswith('.path') else value}"]

    own = {name: value for name, value in SETTINGS[recipe].items() if name != "sizes"}
    changes = {
        "base_model.source": model,
        "training.max_steps": 2,
        "training.batch_size": 4,
        # Half precision is emulated on many CPUs, at a crawl.
        **dict.fromkeys(("training.precision", "sampling.precision", "evaluation.sampling.precision"), "float32"),
        "sampling.samples": 2,
        "sampling.max_new_tokens": 8,
        "evaluation.sampling.samples": 2,
        "evaluation.sampling.max_new_tokens": 8,
        "evaluation.resamples": 50,
        "evaluation.ks": "[2]",
    }
    sets = {"mmlu": {"settings": {"path": "mmlu"}}} if recipe == "multitask" else {}
    settings = [*dotted("task.settings", own), *dotted("test_sets", sets)]
    return ",".join([*(f"{name}={value}" for name, value in changes.items()), *settings])


def test_every_recipe_goes_through_all_stages(fresh: Any, rows: Path, model: Path) -> None:
    """One process runs `kedro run --env=<recipe>` for each, as importing torch and the rest takes the longest."""
    runs = {recipe: fresh.command("--params", parameters(recipe, rows, model), env=recipe)[3:] for recipe in SETTINGS}
    told_in = fresh.folder / "told.json"
    done = fresh.call([sys.executable, "-c", RUN_ALL, json.dumps(runs), str(told_in)])
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(told_in.read_text("utf-8"))  # the traceback of each recipe, None of one that went through
    assert told == dict.fromkeys(SETTINGS)
    for recipe in SETTINGS:
        check_results(fresh.data, recipe)


RUN_ALL = """
import json, sys, traceback
from pathlib import Path
from kedro.framework.cli.cli import KedroCLI

told = {}
for recipe, arguments in json.loads(sys.argv[1]).items():
    told[recipe] = None
    try:
        KedroCLI(Path.cwd()).main(arguments, standalone_mode=False)
    except BaseException:
        told[recipe] = traceback.format_exc()
Path(sys.argv[2]).write_text(json.dumps(told))
"""


def check_results(data: Path, recipe: str) -> None:
    asked = {
        split: pd.read_parquet(data / f"03_primary/{recipe}/{split}_questions.parquet") for split in (*SPLITS, "other")
    }
    assert tuple(len(asked[split]) for split in SPLITS) == SETTINGS[recipe]["sizes"], recipe
    own = {"multitask": {"gsm8k", "aqua_rat", "ecqa"}, "gsm8k_rank": {"gsm8k"}, "smollm2_mawps": {"mawps"}}
    families = own.get(recipe, {recipe})
    assert all(set(asked[split]["dataset"]) == families for split in SPLITS), recipe
    others = {"validation", "mmlu"} if recipe == "multitask" else {"validation"}
    assert set(asked["other"]["split"]) == others, recipe
    assert pd.read_parquet(data / f"03_primary/{recipe}/near_duplicates.parquet").empty, recipe

    compared = {"gsm8k_rank": "ranking", "smollm2_mawps": "with_base"}.get(recipe, "binary")
    table = pd.read_csv(data / f"08_reporting/{recipe}/{compared}/comparison.csv")
    assert table["variant"].tolist() == {**COMPARISONS, "with_base": WITH_BASE}[compared], recipe
    assert (table["questions"] == len(asked["test"])).all(), recipe
    assert (table["accuracy"] == 0).all(), recipe  # of a random model
    told_apart = {name for name in families if f"accuracy_{name}" in table}
    assert told_apart == (families if recipe == "multitask" else set()), recipe
    assert (data / f"08_reporting/{recipe}/{compared}/report.html").is_file(), recipe
