"""One training run: made once, found again, and kept whole."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from aft import files
from aft.errors import ModelError, NumericalError
from aft.training import trainer
from aft.training.examples import Example
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
        return train(pocket_directory, examples, settings, objective, seed, tmp_path, label, probe=probe)

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
    assert all(set(row) == set(CURVE_COLUMNS) - {"held_out_perplexity"} for row in trained.curve)
    assert trained.warnings == []
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [trained.directory.path]
    assert not [path for path in trained.directory.path.rglob("*") if "checkpoint" in path.name]


def test_a_finished_run_is_found_again_without_loading_the_model(tmp_path, small_llama, pocket_tokenizer, caplog):
    def run(load):
        return train_once({"kind": "model"}, load, EXAMPLES, SETTINGS, AFT, 0, tmp_path, "train")

    first = run(lambda: (small_llama(), pocket_tokenizer))
    with caplog.at_level("INFO", "aft"):
        assert run(refuse_to_load) == first
    assert any("same inputs, same settings" in message for message in caplog.messages)


def test_a_damaged_model_is_made_anew(tmp_path, small_llama, pocket_tokenizer, caplog):
    def run(load):
        return train_once({"kind": "model"}, load, EXAMPLES, SETTINGS, AFT, 0, tmp_path, "train")

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
        return train_once({"kind": "model"}, load, EXAMPLES, SETTINGS, AFT, 0, tmp_path, "train")

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "finish_directory", fail)
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
    """Four steps, a probe after every second or first: three runs, whose weights are the same to the last bit."""
    plain = start()
    every = [dataclasses.replace(SETTINGS, monitor_every=steps) for steps in (2, 1)]
    probed = [start(settings=settings, probe=PROBE) for settings in every]
    assert len({trained.directory.path for trained in (plain, *probed)}) == 3
    assert {trained.directory.fingerprint for trained in (plain, *probed)} == {plain.directory.fingerprint}
    rows = [[row["step"] for row in trained.curve if "held_out_perplexity" in row] for trained in probed]
    assert rows == [[2, 4], [1, 2, 3, 4]]
    assert start(settings=every[0], probe=PROBE) == probed[0], "found again"


def test_a_model_from_before_there_was_a_monitor_has_no_warnings(start):
    """Its directory lacks the file, and its manifest does not name it."""
    first = start()
    (first.directory.path / "training_warnings.json").unlink()
    manifest = first.directory.path / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["files"]["training_warnings.json"]
    manifest.write_text(json.dumps(content))
    assert start() == first


def test_a_failed_run_leaves_no_model(start, tmp_path, monkeypatch):
    """The loss turns NaN in step 3 of 4; a rerun continues from the checkpoint of step 2 and is whole."""
    whole = start().curve
    original = trainer.objective_loss
    with monkeypatch.context() as patch, pytest.raises(NumericalError, match="not finite at step 2"):
        calls = itertools.count(1)

        def nan_at_the_third_call(*options):
            loss, metrics = original(*options)
            return loss * math.nan if next(calls) == 3 else loss, metrics

        patch.setattr(trainer, "objective_loss", nan_at_the_third_call)
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


def test_the_manifest_says_what_the_model_was_made_from(start, pocket_directory):
    made_from = json.loads((start().directory.path / "manifest.json").read_text())["made_from"]
    assert made_from["kind"] == "model train aft+detached"
    assert made_from["start"] == pocket_directory.fingerprint
    assert made_from["training"]["learning_rate"] == 1e-3
    assert made_from["objective"]["constraint"] == "detached"
    assert made_from["seed"] == 0
    assert "probe" not in made_from, "there is none"
    probed = json.loads((start(probe=PROBE).directory.path / "manifest.json").read_text())["made_from"]
    assert probed.pop("probe") and probed == made_from
