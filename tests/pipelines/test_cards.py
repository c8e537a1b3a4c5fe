"""The card of a model that the pipelines made: where it comes from, in words that a person can look up."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from aft.models.directory import ModelDirectory
from aft.models.source import find_model
from aft.pipelines.align_train.nodes import train_variant
from aft.pipelines.ingest.nodes import prepare_base_model
from aft.pipelines.parameters import BaseModel, Evaluation
from aft.pipelines.tables import to_table
from aft.pipelines.vft_train.nodes import train_vft
from aft.sampling.settings import SamplingSettings
from aft.tasks import Question
from aft.training.settings import Launch, Objective, TrainingSettings

EVALUATION = Evaluation(SamplingSettings(samples=1, greedy=True), ks=[1])
SETTINGS = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=4, max_steps=1, monitor_every=None)
TEMPLATE = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"


@pytest.fixture
def snapshot(pocket_directory: ModelDirectory, tmp_path: Path) -> Path:
    """A model with a chat template where the hub's client keeps it."""
    folder = tmp_path / "hub" / "models--owner--tiny" / "snapshots" / "0123abcd"
    shutil.copytree(pocket_directory.path, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


@pytest.mark.parametrize("start", ["base", "vft"])
def test_it_names_recipe_data_style_base_and_the_fingerprints(
    start: str, snapshot: Path, pocket_questions: list[Question], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, questions, none = str(tmp_path / "cache"), to_table(pocket_questions), to_table([])
    with caplog.at_level("INFO", "aft"):
        base = prepare_base_model(BaseModel(source=str(snapshot), prompt_style="chat"), cache)
    told = next(re.findall("has the fingerprint ([0-9a-f]{16})", message)[0] for message in caplog.messages)
    model, _ = train_vft(base, questions, none, [], SETTINGS, 0, cache, Launch(), "gsm8k", EVALUATION)
    if start == "vft":
        objective = Objective(start="vft")
        options = ([], [], SETTINGS, objective, 0, cache, cache, Launch(), "gsm8k", EVALUATION)
        model, _ = train_variant(base, model, questions, none, *options)

    card = (model.path / "README.md").read_text(encoding="utf-8")
    for row in (
        *("| Recipe | `gsm8k` |", "| Training questions | `pocket (12)` |", "| Prompt style | `chat` |"),
        *("| Base model | `owner/tiny` |", f"| Fingerprint of the base model, as in the log | `{told}` |"),
    ):
        assert row in card, row
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "owner/tiny"
    assert find_model(str(model.path), None, None).fingerprint in card
    assert str(tmp_path) not in card


def test_the_same_model_under_another_recipe_is_found_again(
    pocket_directory: ModelDirectory, pocket_questions: list[Question], tmp_path: Path
) -> None:
    """What stands on the card only is in no key: whoever comes first writes it."""
    questions, none = to_table(pocket_questions), to_table([])
    one, other = (
        train_vft(pocket_directory, questions, none, [], SETTINGS, 0, str(tmp_path), Launch(), recipe, EVALUATION)[0]
        for recipe in ("gsm8k", "mine")
    )
    assert one == other
