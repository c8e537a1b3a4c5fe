"""A run that is killed with `kill -9` ends as if it never was: bit-equal weights, optimiser state and curve."""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aft.directories import finish_directory
from aft.models.adapters import LoraSettings
from aft.models.pocket import build_tokenizer
from aft.training import checkpoints, loop
from aft.training.job import Job
from aft.training.parallel import replicated
from aft.training.run import train_once
from aft.training.settings import Objective, TrainingSettings

SOURCE = Path(__file__).parents[2] / "src"

# Steps 1 to 4 are the first epoch, 5 to 8 the second; of a whole batch each or, under a budget of one token, of
# four questions in two passes each (one question in the last step of an epoch). `resumed` is the step of the checkpoint
# from which the second run continues.
SCENARIOS = {
    "before any checkpoint": {"moment": "forward", "call": 2, "resumed": None},
    "mid-epoch": {"moment": "forward", "call": 8, "resumed": 6},
    "at an epoch's end": {"moment": "forward", "call": 5, "resumed": 4},
    "between two passes": {"moment": "forward", "call": 23, "resumed": 6, "token_budget": 1},
    "at an epoch's end, accumulating": {"moment": "forward", "call": 14, "resumed": 4, "token_budget": 1},
    "in the first checkpoint": {"moment": "half a checkpoint", "call": 2, "resumed": None},
    "in a checkpoint": {"moment": "half a checkpoint", "call": 4, "resumed": 2},
    "before a manifest": {"moment": "no manifest", "call": 2, "resumed": 2},
    "with two checkpoints": {"moment": "two checkpoints", "call": 1, "resumed": 4},
    "after the last step": {"moment": "model", "call": 1, "resumed": 8},
    "before the curve": {"moment": "curve", "call": 1, "resumed": 8, "dropout": 0.0},
}
DEFAULTS = {"dropout": 0.3, "token_budget": 8192}


@pytest.fixture(scope="module")
def killed(killed_runs, tmp_path_factory):
    """The folders of the killed runs, by scenario."""
    root = tmp_path_factory.mktemp("killed")
    scenarios = {name: DEFAULTS | scenario | {"workspace": str(root / name)} for name, scenario in SCENARIOS.items()}
    done = subprocess.run(
        [sys.executable, killed_runs.__file__, json.dumps(scenarios)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == dict.fromkeys(SCENARIOS, -9), "every run ends by SIGKILL"
    return root


@pytest.fixture(scope="module")
def uninterrupted(killed_runs, tmp_path_factory):
    """The same runs without an interruption, each made once: the model, and optimiser and schedule at its end."""
    finished = {}

    def run(dropout, token_budget, trained):
        key = (dropout, token_budget)
        if key not in finished:
            model = killed_runs.ten_steps(tmp_path_factory.mktemp("whole"), *key)
            finished[key] = (model, trained[-1])
        return finished[key]

    return run


def without_speed(curve):
    return [{name: value for name, value in row.items() if name != "tokens_per_s"} for row in curve]


def assert_same_state(one, other):
    """Equal to the last bit: states of optimiser and schedule."""
    (optimizer, schedule), (its_optimizer, its_schedule) = one, other
    ours, theirs = optimizer.state_dict(), its_optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys() and ours["state"]
    for index, values in ours["state"].items():
        for name, tensor in values.items():
            assert torch.equal(tensor, theirs["state"][index][name]), (index, name)
    assert schedule.state_dict() == its_schedule.state_dict()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_killed_run_ends_as_an_uninterrupted_one(name, killed, killed_runs, uninterrupted, trained, tmp_path, caplog):
    scenario = DEFAULTS | SCENARIOS[name]
    options = (scenario["dropout"], scenario["token_budget"])
    expected, its_state = uninterrupted(*options, trained)
    shutil.copytree(killed / name, tmp_path, dirs_exist_ok=True)
    with caplog.at_level("INFO", "aft"):
        resumed = killed_runs.ten_steps(tmp_path, *options)
    told = [record.getMessage() for record in caplog.records if "continuing" in record.getMessage()]
    assert told == ([f"ten steps: continuing from step {scenario['resumed']}."] if scenario["resumed"] else [])

    weights = "model.safetensors"
    assert (resumed.directory.path / weights).read_bytes() == (expected.directory.path / weights).read_bytes()
    assert without_speed(resumed.curve) == without_speed(expected.curve)
    assert [row["step"] for row in resumed.curve] == list(range(1, 11))
    assert_same_state(trained[-1], its_state)
    assert {path.name for path in resumed.directory.path.iterdir()} == {
        path.name for path in expected.directory.path.iterdir()
    }


def test_dropout_makes_the_order_of_random_numbers_matter(killed_runs, uninterrupted, trained):
    """Else the scenarios would say nothing about random states: with dropout, one step already differs."""
    curves = [uninterrupted(dropout, 8192, trained)[0].curve for dropout in (0.0, 0.3)]
    assert curves[0][0]["loss"] != curves[1][0]["loss"]


def test_a_damaged_checkpoint_is_passed_over(killed_runs, uninterrupted, trained, tmp_path, caplog):
    """A run that fails in step 7 leaves checkpoint 6; one byte of it changed, the next run starts anew, and says so."""
    workspace = tmp_path / "workspace"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(loop, "add_gradient", fails_at(7))
        killed_runs.ten_steps(workspace, 0.0, 8192)
    (checkpoint,) = workspace.glob(".*.partial/checkpoints/checkpoint-*")
    assert checkpoint.name == "checkpoint-6"
    path = checkpoint / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    resumed = killed_runs.ten_steps(workspace, 0.0, 8192)
    assert "checkpoint-6 is incomplete or damaged and is passed over." in caplog.messages
    expected, _ = uninterrupted(0.0, 8192, trained)
    assert without_speed(resumed.curve) == without_speed(expected.curve)


def fails_at(call):
    """An `add_gradient` that fails at its n-th call."""
    original, calls = loop.add_gradient, itertools.count(1)

    def add_gradient(*args):
        if next(calls) == call:
            raise RuntimeError("power cut")
        return original(*args)

    return add_gradient


def test_no_pickle_is_ever_written(killed):
    """All files of all killed runs: safetensors, JSON, locks and a card; none begins as a pickle or an archive does."""
    files = [path for path in killed.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".lock", ".md"}
    assert {"model.safetensors", "optimizer.safetensors", "training_state.json"} <= {path.name for path in files}
    assert not [path for path in files if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04")]


# --- other optimisers, and adapters -----------------------------------------------------------------------------------


@pytest.fixture
def six_steps(killed_runs, ragged_examples):
    """A run of six steps with a checkpoint after every second, in a folder, under some settings."""

    def run(folder, settings):
        usual = {"epochs": 9, "max_steps": 6, "learning_rate": 0.01, "batch_size": 4, "checkpoint_every": 2}
        return train_once(
            {"kind": "six steps"},
            lambda: (killed_runs.small_llama(dropout=0.3, tied=False), build_tokenizer()),
            lambda: ragged_examples(13),
            Job(
                (),
                TrainingSettings(**usual, weight_decay=0.1, **settings),
                Objective(term="aft", constraint="boundary"),
                seed=7,
                label="six steps",
            ),
            folder,
        )

    return run


LORA = LoraSettings(rank=2, dropout=0.3)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw"},
        {"optimizer": "adafactor"},
        {"optimizer": "sgd"},
        {"lora": LORA},
        {"lora": LORA, "optimizer": "adafactor"},
        {"weights": "bfloat16", "precision": "bfloat16"},
        {"weights": "bfloat16", "precision": "bfloat16", "optimizer": "adamw_8bit"},
        {"lora": LORA, "weights": "bfloat16", "precision": "bfloat16"},
        {"lora": LORA, "weights": "nf4", "precision": "bfloat16"},
    ],
    ids=str,
)
def test_a_run_continues_bit_by_bit_with_every_optimiser_and_adapter(settings, six_steps, trained, tmp_path):
    """Stopped in step 6, it continues from step 4; all random numbers in between are others."""
    if "lora" in settings:
        pytest.importorskip("peft")
    if "nf4" in settings.values() or "adamw_8bit" in settings.values():
        pytest.importorskip("bitsandbytes")
    expected = six_steps(tmp_path / "whole", settings)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(loop, "add_gradient", fails_at(6))
        six_steps(tmp_path / "cut", settings)
    (checkpoint,) = (tmp_path / "cut").glob(".*.partial/checkpoints/checkpoint-*")
    assert checkpoint.name == "checkpoint-4"
    torch.manual_seed(99)
    resumed = six_steps(tmp_path / "cut", settings)
    names = {path.relative_to(expected.directory.path) for path in expected.directory.path.rglob("*")}
    assert {path.relative_to(resumed.directory.path) for path in resumed.directory.path.rglob("*")} == names
    for name in names:
        if name.suffix == ".safetensors":
            assert (resumed.directory.path / name).read_bytes() == (expected.directory.path / name).read_bytes(), name
    assert without_speed(resumed.curve) == without_speed(expected.curve)
    assert len(resumed.curve) == 6
    (whole, _), _, (its, _) = trained  # at once, stopped, resumed
    ours, theirs = (torch.optim.Optimizer.state_dict(one) for one in (its, whole))  # plain, also of bitsandbytes
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys() and bool(ours["state"]) == (
        settings.get("optimizer") != "sgd"
    )
    for index, values in ours["state"].items():
        for name, value in values.items():
            other = theirs["state"][index][name]
            assert type(value) is type(other) and torch.equal(torch.as_tensor(value), torch.as_tensor(other)), name


def test_a_checkpoint_of_an_adapter_holds_the_adapter_only(six_steps, tmp_path):
    """Rank 2 of seven layers of 16 and 32: (16 + 16) x 4 + (16 + 32) x 3 = 272 rows of two float32 each."""
    pytest.importorskip("peft")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(loop, "add_gradient", fails_at(4))
        six_steps(tmp_path, {"lora": LORA})
    (checkpoint,) = tmp_path.glob(".*.partial/checkpoints/checkpoint-*")
    weights = load_file(checkpoint / checkpoints.WEIGHTS)
    assert sum(tensor.numel() for tensor in weights.values()) == 2 * 272
    moments = load_file(checkpoint / checkpoints.OPTIMIZER)
    assert sum(tensor.numel() for name, tensor in moments.items() if name.endswith("/exp_avg")) == 2 * 272


# --- the parts --------------------------------------------------------------------------------------------------------


def make_checkpoint(folder: Path, step: int) -> Path:
    staged = folder / "staged"
    staged.mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(bytes(8))
    (staged / checkpoints.STATE).write_text('{"curve": []}', encoding="utf-8")
    finish_directory(staged, folder / f"checkpoint-{step}", {"step": step})
    return folder / f"checkpoint-{step}"


def test_the_latest_checkpoint_is_the_newest_intact_one(tmp_path, caplog):
    """9, 10 and 100 by number, not by name; 100 lacks a file, 10 has other bytes; `.checkpoint-200.partial` is none."""
    assert checkpoints.latest(tmp_path / "nowhere") is None
    paths = {step: make_checkpoint(tmp_path, step) for step in (9, 10, 100)}
    (tmp_path / ".checkpoint-200.partial").mkdir()
    assert checkpoints.latest(tmp_path) == paths[100]
    (paths[100] / "model.safetensors").unlink()
    (paths[10] / "model.safetensors").write_bytes(bytes(7))
    assert checkpoints.latest(tmp_path) == paths[9]
    assert [message.split()[0] for message in caplog.messages] == ["checkpoint-100", "checkpoint-10"]
    (paths[9] / "manifest.json").write_text("{", encoding="utf-8")
    assert checkpoints.latest(tmp_path) is None


def test_finishing_a_checkpoint_removes_the_older_ones(tmp_path):
    make_checkpoint(tmp_path, 2)
    staged = tmp_path / ".checkpoint-4.partial"
    staged.mkdir()
    (staged / checkpoints.STATE).write_text('{"curve": []}', encoding="utf-8")
    checkpoints.finish(staged, tmp_path / "checkpoint-4")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    assert checkpoints.latest(tmp_path) == tmp_path / "checkpoint-4"


def save_state(folder: Path) -> None:
    model: Any = torch.nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    model.weight.grad = torch.ones(1, 3)
    optimizer.step()
    checkpoints.save(folder, model, optimizer, schedule, replicated, [{"step": 1.0}])


def load_state(folder: Path) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW(torch.nn.Linear(3, 1, bias=False).parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return checkpoints.load_state(folder / "checkpoint-1", optimizer, schedule, replicated)


@pytest.mark.parametrize("draw", [random.gauss, np.random.standard_normal, lambda *_: torch.rand(3).tolist()])
def test_random_states_come_back(draw, tmp_path):
    """The half-used pair of normal numbers that Python and numpy keep is part of their state."""
    arguments = (0.0, 1.0) if draw is random.gauss else ()
    draw(*arguments)
    save_state(tmp_path)
    expected = [draw(*arguments) for _ in range(5)]
    [draw(*arguments) for _ in range(3)]
    assert load_state(tmp_path) == [{"step": 1.0}]
    assert [draw(*arguments) for _ in range(5)] == expected


def test_a_checkpoint_is_safetensors_and_json(tmp_path):
    save_state(tmp_path)
    folder = tmp_path / "checkpoint-1"
    assert {path.name for path in folder.iterdir()} == {
        *(checkpoints.WEIGHTS, checkpoints.OPTIMIZER, checkpoints.STATE, "manifest.json")
    }
    assert json.loads((folder / checkpoints.STATE).read_text(encoding="utf-8"))["param_groups"][0]["betas"] == [
        0.9,
        0.999,
    ]
