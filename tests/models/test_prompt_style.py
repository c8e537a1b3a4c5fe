"""A given model that is to be asked in its chat template: the style is part of the model, through every stage."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aft.code import source_hash
from aft.directories import is_intact
from aft.errors import ModelError
from aft.models.chat import STYLE_KEY, prompt_style
from aft.models.directory import ModelDirectory, open_model
from aft.models.pocket import Architecture, build_model, build_tokenizer
from aft.models.publish import in_prompt_style, publish, save_model
from aft.models.tokens import encode_prompt, encode_response
from aft.sampling.run import sample_responses
from aft.sampling.settings import SamplingSettings
from aft.scoring.tokens import token_logprobs
from aft.tasks import Question, pocket
from aft.training.examples import build_examples
from aft.training.job import Job
from aft.training.run import train
from aft.training.settings import Objective, TrainingSettings

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    """A pocket model, untrained, with ChatML's tokens and template; the roles' names are unknown words to it."""
    tokenizer: Any = build_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = TEMPLATE
    model = build_model(Architecture(hidden_size=16, intermediate_size=32, layers=1, heads=2), len(tokenizer))
    folder = tmp_path_factory.mktemp("given")
    save_model(model, tokenizer, folder)
    return open_model(folder)


@pytest.fixture(scope="module")
def chat(given: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    return in_prompt_style(given, "chat", tmp_path_factory.mktemp("cache"))


def chat_ids(tokenizer: Any, text: str) -> list[int]:
    """The conversation by hand: every role's name is the unknown token, and a line break is a token of its own."""
    start, end, line, unknown = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "\n", "<unk>"])
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [start, unknown, line, *own, end, line, start, unknown, line]


def config_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))


def test_only_the_configuration_of_the_tokenizer_is_another(given: ModelDirectory, chat: ModelDirectory) -> None:
    assert STYLE_KEY not in config_of(given.path)
    assert config_of(chat.path) == {**config_of(given.path), STYLE_KEY: "chat"}
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        assert (chat.path / name).read_bytes() == (given.path / name).read_bytes(), name
        assert not (chat.path / name).samefile(given.path / name), "whoever gave it may edit it in place"
    assert open_model(given.path) == given
    assert chat.fingerprint != given.fingerprint
    assert chat.made_from["prompt_style"] == "chat" and chat.made_from["fingerprint"] == given.fingerprint
    assert torch.equal(chat.model().lm_head.weight, given.model().lm_head.weight)


def test_generation_ends_where_a_response_does(given: ModelDirectory) -> None:
    """The model's own end is token 1; its tokenizer was told another, and plain transformers stops at both."""
    end = given.tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert end != 1
    assert json.loads((given.path / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"] == [1, end]
    assert given.model().config.eos_token_id == 1


def test_what_has_the_style_already_is_taken_as_it_is(
    given: ModelDirectory, chat: ModelDirectory, tmp_path: Path
) -> None:
    assert in_prompt_style(given, "plain", tmp_path) is given
    assert in_prompt_style(chat, "chat", tmp_path) is chat
    assert list(tmp_path.iterdir()) == []


def test_the_same_once_more_is_not_made_again(given: ModelDirectory, tmp_path: Path) -> None:
    first = in_prompt_style(given, "chat", tmp_path)
    before = first.path.stat().st_ino
    assert in_prompt_style(given, "chat", tmp_path) == first and first.path.stat().st_ino == before


def test_edited_code_makes_it_anew(given: ModelDirectory, tmp_path: Path, edit_code: Callable[[str], None]) -> None:
    first = in_prompt_style(given, "chat", tmp_path)
    edit_code("models")
    assert in_prompt_style(given, "chat", tmp_path).path != first.path
    assert in_prompt_style(first, "plain", tmp_path).made_from["code"] == source_hash("models")


def test_what_a_killed_run_left_is_no_obstacle(given: ModelDirectory, tmp_path: Path) -> None:
    key = in_prompt_style(given, "chat", tmp_path).path.name
    left = tmp_path / f".{key}.partial"
    (tmp_path / key).rename(left)
    (left / "manifest.json").unlink()
    again = in_prompt_style(given, "chat", tmp_path)
    assert again.path.name == key and is_intact(again.path) and not left.exists()


def test_back_to_plain(given: ModelDirectory, chat: ModelDirectory, tmp_path: Path) -> None:
    plain = in_prompt_style(chat, "plain", tmp_path)
    assert (plain.path / "model.safetensors").samefile(chat.path / "model.safetensors"), "made here: no second copy"
    text = "Mia has 4 pens."
    assert encode_prompt(plain.tokenizer(), text) == encode_prompt(given.tokenizer(), text)
    assert encode_prompt(plain.tokenizer(), text) != encode_prompt(chat.tokenizer(), text)


def test_across_disks_by_symbolic_links(given: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_disk(source: Path, target: Path) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", another_disk)
    linked = in_prompt_style(given, "chat", tmp_path / "cache")
    published = publish(linked, tmp_path / "base")
    assert (published.path / "model.safetensors").is_symlink()
    assert prompt_style(published.tokenizer()) == "chat"
    assert published.fingerprint == linked.fingerprint == open_model(published.path).fingerprint


def test_a_model_that_cannot_chat(pocket_directory: ModelDirectory, given: ModelDirectory, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        in_prompt_style(pocket_directory, "chat", tmp_path)
    folder = Path(shutil.copytree(given.path, tmp_path / "other_end"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config_of(folder), "eos_token": "</s>"}), "utf-8")
    with pytest.raises(ModelError, match=r"<\|im_end\|>.*</s>"):
        in_prompt_style(open_model(folder), "chat", tmp_path)
    with pytest.raises(ModelError, match=r"<\|im_end\|>.*</s>"):  # also when it comes with the style
        config = {**config_of(folder), STYLE_KEY: "chat"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        in_prompt_style(open_model(folder), "chat", tmp_path)


def test_training_sampling_and_scoring_read_one_prompt(
    chat: ModelDirectory, pocket_questions: list[Question], tmp_path: Path
) -> None:
    """One step of training, then two samples of the trained model, which is asked in chat, too."""
    tokenizer, end = chat.tokenizer(), chat.tokenizer().convert_tokens_to_ids("<|im_end|>")
    questions = pocket_questions[:4]
    examples = build_examples(questions, [], tokenizer, Objective(), 512)
    for example, question in zip(examples, questions, strict=True):
        assert list(example.prompt) == chat_ids(tokenizer, pocket.prompt(question))
        assert [list(target) for target in example.targets] == [encode_response(tokenizer, question.reference)]
        assert example.targets[0][-1] == end
    settings = TrainingSettings(epochs=1, learning_rate=0.01, batch_size=4)
    trained = train(chat, Job(examples, settings, Objective(), 0, "train vft"), tmp_path / "models").directory
    assert config_of(trained.path)[STYLE_KEY] == "chat"
    again = trained.tokenizer()
    assert encode_prompt(again, pocket.prompt(questions[0])) == list(examples[0].prompt)

    sampling = SamplingSettings(samples=2, max_new_tokens=6)
    shards = sample_responses(trained, questions[:1], sampling, 0, tmp_path / "samples", "sample")
    import pandas as pd

    rows = pd.concat(map(pd.read_parquet, shards))
    logprobs = token_logprobs(trained, questions[0], [list(ids) for ids in rows["token_ids"]])
    assert [sum(row) for row in logprobs] == pytest.approx(rows["sum_logprob"].tolist(), abs=1e-4)


def test_what_is_made_in_the_two_styles_never_mixes(
    given: ModelDirectory, chat: ModelDirectory, pocket_questions: list[Question], tmp_path: Path
) -> None:
    """Samples of both lie in one cache: the same seeds, but stores, and texts, of their own."""
    sampling = SamplingSettings(samples=1, max_new_tokens=4)
    both = [set(sample_responses(one, pocket_questions[:2], sampling, 0, tmp_path, "sample")) for one in (given, chat)]
    assert both[0].isdisjoint(both[1])
