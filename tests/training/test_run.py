"""One training run: made once, found again, and kept whole."""

import dataclasses
import itertools
import json
import math
import shutil
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from aft import directories
from aft.errors import ModelError, NumericalError, SettingsError
from aft.models.adapters import LoraSettings
from aft.models.card import model_card
from aft.models.directory import open_model
from aft.models.publish import publish
from aft.sealed import with_seal
from aft.training import loop, selection
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import CURVE_COLUMNS, train, train_once
from aft.training.settings import Objective, TrainingSettings

SETTINGS = TrainingSettings(epochs=2, learning_rate=1e-3, batch_size=2, checkpoint_every=1)
EXAMPLES = [Example(f"q{i}", [0, 5, 6 + i], [[7, 8 + i, 1]], [[9, 1], [10, i + 4, 1]], [0, 1]) for i in range(4)]
AFT = Objective(term="aft", constraint="detached")
PROBE = [Example("held out", [0, 5, 3], [[7, 8, 1]])]


@pytest.fixture
def start(pocket_directory, tmp_path):
    def started(examples=EXAMPLES, settings=SETTINGS, objective=AFT, seed=0, probe=()):
        label = f"train {objective.label}"
        return train(pocket_directory, Job(examples, settings, objective, seed, label, probe=probe), tmp_path)

    return started


def refuse_to_load():
    raise AssertionError("a finished run must not load a model")


def test_a_finished_model_is_whole_and_loads_anywhere(start, pocket_directory, tmp_path):
    """Plain transformers reads it; weights moved; four steps in the curve; checkpoints are gone."""
    trained = start()
    model = AutoModelForCausalLM.from_pretrained(trained.directory.path, local_files_only=True)
    before = pocket_directory.model().state_dict()
    assert any(not torch.equal(weights, before[name]) for name, weights in model.state_dict().items())
    assert trained.directory.tokenizer().eos_token_id == 1
    assert trained.directory.fingerprint != pocket_directory.fingerprint

    assert [row["step"] for row in trained.curve] == [1, 2, 3, 4]
    assert all(set(row) == set(CURVE_COLUMNS) - {"held_out_perplexity", *selection.COLUMNS} for row in trained.curve)
    assert trained.warnings == []
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [trained.directory.path]
    assert not [path for path in trained.directory.path.rglob("*") if "checkpoint" in path.name]


def test_a_finished_run_is_found_again_without_loading_the_model(tmp_path, small_llama, pocket_tokenizer, caplog):
    def run(load):
        return train_once({"kind": "model"}, load, lambda: EXAMPLES, Job((), SETTINGS, AFT, 0, "train"), tmp_path)

    first = run(lambda: (small_llama(), pocket_tokenizer))
    with caplog.at_level("INFO", "aft"):
        assert run(refuse_to_load) == first
    assert any("same inputs, same settings" in message for message in caplog.messages)


def test_a_damaged_model_is_made_anew(tmp_path, small_llama, pocket_tokenizer, caplog):
    def run(load):
        return train_once({"kind": "model"}, load, lambda: EXAMPLES, Job((), SETTINGS, AFT, 0, "train"), tmp_path)

    first = run(lambda: (small_llama(), pocket_tokenizer))
    weights = first.directory.path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert run(lambda: (small_llama(), pocket_tokenizer)).directory == first.directory
    assert weights.read_bytes() == whole, "and it is the same again"
    assert any("made anew" in message for message in caplog.messages)


def test_a_model_that_lacks_only_its_name_is_not_trained_again(tmp_path, small_llama, pocket_tokenizer, monkeypatch):
    """Interrupted after the last file was written: the next run finds weights and curve, and only finishes."""

    def run(load):
        return train_once({"kind": "model"}, load, lambda: EXAMPLES, Job((), SETTINGS, AFT, 0, "train"), tmp_path)

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(directories, "finish_directory", fail)
        run(lambda: (small_llama(), pocket_tokenizer))
    trained = run(refuse_to_load)
    assert [row["step"] for row in trained.curve] == [1, 2, 3, 4]
    assert not (trained.directory.path / "checkpoints").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"examples": EXAMPLES[:3]},
        {"objective": dataclasses.replace(AFT, constraint="none")},
        {"settings": dataclasses.replace(SETTINGS, learning_rate=2e-3)},
    ],
)
def test_another_run_has_a_model_of_its_own(changes, start):
    one, other = start(), start(**changes)
    assert one.directory.path != other.directory.path
    assert one.directory.fingerprint != other.directory.fingerprint
    assert start() == one, "the first is still there"


def test_a_probe_makes_another_curve_of_the_same_model(start):
    """Four steps, a probe after every second: two runs, whose weights are the same to the last bit."""
    plain = start()
    every_second = dataclasses.replace(SETTINGS, monitor_every=2)
    probed = start(settings=every_second, probe=PROBE)
    assert probed.directory.path != plain.directory.path
    assert probed.directory.fingerprint == plain.directory.fingerprint
    assert [row["step"] for row in probed.curve if "held_out_perplexity" in row] == [2, 4]
    assert start(settings=every_second, probe=PROBE) == probed, "found again"


@pytest.mark.parametrize(
    "changes",
    [
        {"token_budget": 1},
        {"scoring": "naive"},
        {"checkpoint_every": 3},
        {"monitor_every": 1},
        {"gradient_checkpointing": True},
    ],
    ids=str,
)
def test_the_same_model_computed_in_another_way_is_found_again(changes, start):
    assert start(settings=dataclasses.replace(SETTINGS, **changes)) == start()


@pytest.mark.parametrize("room", ["alignment", "models", "scoring", "training"])
def test_edited_code_trains_another_model(room, start, edit_code):
    """A losses.py with another rule, under the same version, is not answered with a model of the old rule."""
    before = start()
    edit_code(room)
    after = start()
    assert after.directory.path != before.directory.path
    edit_code("sampling")
    assert start() == before, "which is made of none of the training's code"


def test_a_model_from_before_there_was_a_monitor_has_no_warnings(start):
    """Its directory lacks the file, and its manifest does not name it."""
    first = start()
    (first.directory.path / "training_warnings.json").unlink()
    manifest = first.directory.path / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    del content["files"]["training_warnings.json"], content["seal"]
    manifest.write_text(json.dumps(with_seal(content)), encoding="utf-8")
    assert start() == first


def test_a_failed_run_leaves_no_model(start, tmp_path, monkeypatch):
    """The loss turns NaN in step 3 of 4; a rerun continues from the checkpoint of step 2 and is whole."""
    whole = start().curve
    original = loop.objective_loss
    with monkeypatch.context() as patch, pytest.raises(NumericalError, match="The loss of step 3 is not finite"):
        calls = itertools.count(1)

        def nan_at_the_third_call(*options):
            loss, metrics = original(*options)
            return loss * math.nan if next(calls) == 3 else loss, metrics

        patch.setattr(loop, "objective_loss", nan_at_the_third_call)
        start(seed=5)
    finished = [path for path in tmp_path.iterdir() if path.is_dir() and not path.name.startswith(".")]
    assert len(finished) == 1, "only the first run's"
    again = start(seed=5)
    assert [row["step"] for row in again.curve] == [row["step"] for row in whole]


def test_rows_longer_than_the_models_positions_are_refused(start, pocket_directory, tmp_path):
    """511 + 1 fit the 512 positions of the pocket model, 511 + 2 do not: refused before training."""
    fits = Example("fits", [0] * 511, [[1]])
    start([fits], dataclasses.replace(SETTINGS, max_steps=1), Objective())
    too_long = Example("too long", [0] * 511, [[1]], [[5, 1]], [0])
    with pytest.raises(ModelError, match="A row has 513 tokens, but the model has 512 positions"):
        start([fits, too_long])
    with pytest.raises(ModelError, match="A row has 513 tokens, but the model has 512 positions"):
        start(probe=[too_long])


def test_less_than_one_step_is_refused(start):
    """Four examples are two steps of two per epoch: half an epoch is one."""
    assert len(start(settings=dataclasses.replace(SETTINGS, epochs=0.5)).curve) == 1
    with pytest.raises(SettingsError, match=r"epochs is 0\.4: of 2 optimiser step\(s\) .*set it to 0\.5 or more"):
        start(settings=dataclasses.replace(SETTINGS, epochs=0.4))


def test_the_card_says_what_the_model_was_made_from(start, pocket_directory):
    """A file of the directory like any other: the manifest vouches for it."""
    directory = start().directory
    card = (directory.path / "README.md").read_text(encoding="utf-8")
    assert card.startswith(model_card(directory.made_from))
    assert f"configuration and tokenizer is `{directory.fingerprint}`." in card
    assert pocket_directory.fingerprint in card
    assert str(pocket_directory.path) not in card
    assert "README.md" in json.loads((directory.path / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert "base_model" not in card, "the start has no name on the hub"


def test_a_base_model_of_the_hub_is_named_on_the_card_but_is_no_other_one(start, pocket_directory, tmp_path):
    """The same weights from a folder are the same training: whoever comes first writes the card."""

    def train_from(directory, workspace):
        job = Job(EXAMPLES, SETTINGS, AFT, 0, "train aft+detached")
        return train(directory, job, tmp_path / workspace).directory.path

    snapshot = tmp_path / "models--owner--tiny" / "snapshots" / "0123abcd"
    shutil.copytree(pocket_directory.path, snapshot)
    base = publish(open_model(snapshot), tmp_path / "base")
    named, plain = train_from(base, "named"), train_from(pocket_directory, "plain")
    assert named.name == plain.name
    assert "base_model: owner/tiny\n" in (named / "README.md").read_text(encoding="utf-8")
    assert "owner/tiny" not in (plain / "README.md").read_text(encoding="utf-8")


# --- LoRA -------------------------------------------------------------------------------------------------------------

QUERIES = LoraSettings(rank=2, target_modules=["q_proj", "v_proj"])
LORA = dataclasses.replace(SETTINGS, learning_rate=0.1, lora=QUERIES)


def test_a_model_trained_with_an_adapter_is_a_plain_one(start, pocket_directory):
    """Plain transformers reads merged weights, of which only q and v moved; start + adapter is the same model."""
    peft = pytest.importorskip("peft")
    directory = start(settings=LORA).directory
    merged = AutoModelForCausalLM.from_pretrained(directory.path, local_files_only=True)
    assert type(merged) is type(pocket_directory.model())
    before = pocket_directory.model().state_dict()
    changed = {name for name, weights in merged.state_dict().items() if not torch.equal(weights, before[name])}
    assert changed == {name for name in before if "q_proj" in name or "v_proj" in name}

    ids = torch.tensor([[0, 5, 6, 7, 8]])
    adapted = peft.PeftModel.from_pretrained(pocket_directory.model(), str(directory.path / "adapter"))
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)

    manifest = json.loads((directory.path / "manifest.json").read_text(encoding="utf-8"))
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= manifest["files"].keys()
    assert manifest["made_from"]["training"]["lora"] == dataclasses.asdict(QUERIES)
    texts = [path.read_text(encoding="utf-8") for path in directory.path.rglob("*") if path.suffix in (".json", ".md")]
    assert not [text for text in texts if str(pocket_directory.path) in text]


def test_another_adapter_is_another_model(start):
    pytest.importorskip("peft")
    settings = [LORA, dataclasses.replace(LORA, lora=dataclasses.replace(QUERIES, rank=3))]
    found = [start(settings=one) for one in (*settings, SETTINGS)]
    assert len({trained.directory.fingerprint for trained in found}) == 3


def test_without_peft_nothing_is_loaded_but_what_was_made_is_found(start, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    made = start(settings=LORA)
    monkeypatch.setitem(sys.modules, "peft", None)
    assert start(settings=LORA) == made
    with pytest.raises(SettingsError, match=r"pip install 'aft\[lora\]'"):
        train_once({"kind": "model"}, refuse_to_load, lambda: EXAMPLES, Job((), LORA, AFT, 0, "train"), tmp_path)


# --- the manifest -----------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_the_model_was_made_from(start, pocket_directory):
    made_from = json.loads((start().directory.path / "manifest.json").read_text(encoding="utf-8"))["made_from"]
    assert made_from["kind"] == "model train aft+detached"
    assert made_from["start"] == pocket_directory.fingerprint
    assert made_from["training"]["learning_rate"] == 1e-3
    assert "token_budget" not in made_from["training"], "which does not count for what was learned"
    assert made_from["objective"]["constraint"] == "detached"
    assert made_from["seed"] == 0
    assert "probe" not in made_from, "there is none"
    probed = json.loads((start(probe=PROBE).directory.path / "manifest.json").read_text(encoding="utf-8"))["made_from"]
    assert probed.pop("probe") and probed == made_from
