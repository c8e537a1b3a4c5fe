"""A run that was killed, out of memory for instance, goes on under another budget and ends with the same weights.

Under dropout other masks are drawn, so that the weights are of the same distribution only.
"""

import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aft.models.directory import ModelDirectory, open_model
from aft.training import checkpoints
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import TrainedModel, train
from aft.training.settings import Objective, TrainingSettings

SETTINGS = TrainingSettings(epochs=9, max_steps=8, learning_rate=0.01, batch_size=4, checkpoint_every=2)
AFT = Objective(term="aft", constraint="boundary")

KILLED = """
import json, os, sys
from pathlib import Path
from aft.models.directory import open_model
from aft.training import loop
from aft.training.examples import Example
from aft.training.run import train
from aft.training.job import Job
from aft.training.settings import Objective, TrainingSettings

add_gradient, calls = loop.add_gradient, []
def killed(*args):
    calls.append(args)
    if len(calls) == 6:
        os.kill(os.getpid(), 9)
    return add_gradient(*args)
loop.add_gradient = killed
examples = [Example(**one) for one in json.loads(sys.argv[3])]
settings, objective = TrainingSettings(**json.loads(sys.argv[4])), Objective(**json.loads(sys.argv[5]))
train(open_model(Path(sys.argv[1])), Job(examples, settings, objective, 7, "train"), Path(sys.argv[2]))
"""


def begin(start: ModelDirectory, examples: list[Example], workspace: Path, start_python: Callable[..., Any]) -> None:
    """A run that is killed in step 6."""
    orders = (json.dumps(one) for one in ([asdict(one) for one in examples], asdict(SETTINGS), asdict(AFT)))
    assert start_python(KILLED, start.path, workspace, *orders).wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "changes",
    [
        {"token_budget": 40},
        {"scoring": "naive"},
        {"gradient_checkpointing": True},
        {"token_budget": 1, "scoring": "two_pass", "checkpoint_every": 3, "monitor_every": None},
    ],
    ids=str,
)
def test_a_killed_run_goes_on_under_other_settings_of_how(
    changes: dict[str, Any],
    pocket_directory: ModelDirectory,
    ragged_examples: Callable[[int], list[Example]],
    start_python: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """Killed in step 6 after the checkpoint of step 4; then all that is written follows the settings in force."""
    examples = ragged_examples(13)

    def run(settings: TrainingSettings, workspace: Path) -> TrainedModel:
        return train(pocket_directory, Job(examples, settings, AFT, 7, "train"), workspace)

    begin(pocket_directory, examples, tmp_path / "cut", start_python)
    saved: list[int] = []
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *given: (saved.append(len(given[-1])), save(*given)))
    settings = replace(SETTINGS, **changes)
    with caplog.at_level("INFO", "aft"):
        resumed = run(settings, tmp_path / "cut")
    assert "train: continuing from step 4." in caplog.messages
    assert saved == [step for step in (5, 6, 7) if step % settings.checkpoint_every == 0]

    expected = run(SETTINGS, tmp_path / "whole")
    assert resumed.directory.path.name == expected.directory.path.name
    ours, theirs = (load_file(one.directory.path / "model.safetensors") for one in (resumed, expected))
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("changes", [{"token_budget": 40}, {"token_budget": 1, "scoring": "two_pass"}], ids=str)
def test_under_dropout_a_killed_run_goes_on_with_other_masks(
    changes: dict[str, Any],
    pocket_directory: ModelDirectory,
    ragged_examples: Callable[[int], list[Example]],
    start_python: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """Under the same key, to its end; its weights are others than those of a run that was not cut."""
    folder = Path(shutil.copytree(pocket_directory.path, tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.3}), encoding="utf-8")
    start, examples, settings = open_model(folder), ragged_examples(13), replace(SETTINGS, **changes)
    begin(start, examples, tmp_path / "cut", start_python)
    with caplog.at_level("INFO", "aft"):
        resumed = train(start, Job(examples, settings, AFT, 7, "train"), tmp_path / "cut")
    assert "train: continuing from step 4." in caplog.messages
    expected = train(start, Job(examples, SETTINGS, AFT, 7, "train"), tmp_path / "whole")
    assert resumed.directory.path.name == expected.directory.path.name
    assert resumed.curve[3]["loss"] == expected.curve[3]["loss"]
    losses = [row["loss"] for row in resumed.curve]
    assert len(losses) == 8 and all(map(math.isfinite, losses))
    assert resumed.directory.fingerprint != expected.directory.fingerprint
