"""A finished model against the one that it was trained from: other weights, and else what must be different only."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aft.errors import ModelError
from aft.models.adapters import LoraSettings
from aft.models.directory import ModelDirectory, open_model
from aft.models.publish import save_model
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import train
from aft.training.settings import Objective, TrainingSettings

EXAMPLES = [Example(f"q{i}", [0, 5, 6 + i], [[7, 8 + i, 1]]) for i in range(2)]
SETTINGS = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=2)
SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.5}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


def read(directory: Path, name: str = "config.json") -> dict[str, Any]:
    return json.loads((directory / name).read_text(encoding="utf-8"))


@pytest.fixture
def trained_from(pocket_directory: ModelDirectory, tmp_path: Path) -> Callable[..., tuple[ModelDirectory, Path]]:
    """Train a copy of the pocket model whose files are changed first; the model, and the folder it came from."""

    def trained(settings: TrainingSettings = SETTINGS, **changes: dict[str, Any]) -> tuple[ModelDirectory, Path]:
        base = Path(shutil.copytree(pocket_directory.path, tmp_path / "base"))
        for name, content in changes.items():
            (base / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return train(
            open_model(base), Job(EXAMPLES, settings, Objective(), 0, "x"), tmp_path / "models"
        ).directory, base

    return trained


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({**IDS, **SAMPLING}, IDS),
        ({**IDS, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 2}, {**IDS, "eos_token_id": [2, 1]}),
        ({"eos_token_id": [2, 1], "max_length": 20, "suppress_tokens": [5]}, {"eos_token_id": [2, 1]}),
        ({"pad_token_id": -1, "forced_eos_token_id": 2}, {"eos_token_id": 1}),
    ],
    ids=["sampling", "flags that transformers refuses to save with another end", "bounds", "no pad token"],
)
def test_of_the_settings_of_generation_the_ids_of_tokens_are_kept(
    given: dict[str, Any], kept: dict[str, Any], trained_from: Callable[..., tuple[ModelDirectory, Path]]
) -> None:
    finished, base = trained_from(generation_config=given)
    told = read(finished.path, "generation_config.json")
    del told["transformers_version"]
    assert told == kept
    assert read(base, "generation_config.json") == given, "the given model stays as it is"


def test_a_greedy_answer_in_plain_transformers_is_ours(
    trained_from: Callable[..., tuple[ModelDirectory, Path]],
) -> None:
    from transformers import AutoModelForCausalLM

    finished, _ = trained_from(generation_config={**IDS, **SAMPLING})
    plain: Any = AutoModelForCausalLM.from_pretrained(finished.path, local_files_only=True)
    for first in range(3, 13):
        ids = torch.tensor([[0, first, first + 1]])
        answer = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8)
        with torch.no_grad():
            for _ in range(answer.shape[1] - ids.shape[1]):
                ids = torch.cat([ids, plain(ids).logits[:, -1:].argmax(-1)], dim=1)
        assert answer.tolist() == ids.tolist()


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        dataclasses.replace(SETTINGS, gradient_checkpointing=True),
        dataclasses.replace(SETTINGS, precision="bfloat16"),
        dataclasses.replace(SETTINGS, lora=LoraSettings(rank=2)),
    ],
    ids=["all weights", "gradient checkpointing", "mixed precision", "LoRA"],
)
def test_training_leaves_no_trace_in_the_configuration(
    settings: TrainingSettings, trained_from: Callable[..., tuple[ModelDirectory, Path]]
) -> None:
    if settings.lora:
        pytest.importorskip("peft")
    finished, base = trained_from(settings)
    assert read(base)["use_cache"] is True
    assert read(finished.path) == read(base)


def test_the_weights_are_in_float32_and_the_configuration_says_so(
    pocket_directory: ModelDirectory, tmp_path: Path
) -> None:
    save_model(pocket_directory.model("bfloat16"), pocket_directory.tokenizer(), tmp_path / "base")
    base = open_model(tmp_path / "base")
    finished = train(base, Job(EXAMPLES, SETTINGS, Objective(), 0, "x"), tmp_path / "models").directory
    assert read(base.path)["dtype"] == "bfloat16"
    assert read(finished.path) == {**read(base.path), "dtype": "float32"}


def test_a_configuration_that_never_spoke_of_a_cache_does_not_in_the_end(pocket_tokenizer: Any, tmp_path: Path) -> None:
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    config = OpenAIGPTConfig(vocab_size=len(pocket_tokenizer), n_positions=32, n_embd=8, n_layer=1, n_head=2)
    save_model(OpenAIGPTLMHeadModel(config), pocket_tokenizer, tmp_path / "base")
    base = open_model(tmp_path / "base")
    finished = train(base, Job(EXAMPLES, SETTINGS, Objective(), 0, "x"), tmp_path / "models").directory
    assert read(finished.path) == read(base.path)


def test_a_configuration_that_could_not_be_saved_is_refused_before_training(
    pocket_directory: ModelDirectory, trained_from: Callable[..., tuple[ModelDirectory, Path]], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="output_attentions"):
        trained_from(config={**read(pocket_directory.path), "output_attentions": True})
    assert not list(tmp_path.rglob("checkpoint-*")) and not list(tmp_path.rglob("training_curve.json"))
