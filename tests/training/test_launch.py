"""Training in processes of their own: started, ended, resumed, and told of in the words of the process that failed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from aft.errors import ModelError, NumericalError, SettingsError, StoreError, WorkerError
from aft.models.adapters import LoraSettings
from aft.models.directory import ModelDirectory
from aft.training.examples import Example
from aft.training.job import Job, read_job, write_job
from aft.training.launch import fit_together
from aft.training.run import train
from aft.training.selection import ACCURACY, Exam
from aft.training.settings import Launch, Objective, TrainingSettings

SOURCE = Path(__file__).parents[2] / "src"
TWO = Launch(processes=2)
SHARDED = Launch(processes=2, sharding="full")
SETTINGS = TrainingSettings(epochs=2, learning_rate=1e-3, batch_size=3, checkpoint_every=2)
EXAMPLES = [Example(f"q{i}", [0, 5, 6 + i], [[7, 8 + i, 1]], [[9, 1], [10, i + 4, 1]], [0, 1]) for i in range(7)]
AFT = Objective(term="aft", constraint="detached")
PROBE = [Example("held out", [0, 5, 3], [[7, 8, 1]])]


@pytest.fixture(autouse=True)
def on_this_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


def test_a_job_is_read_as_it_was_written(tmp_path, pocket_questions):
    settings = dataclasses.replace(SETTINGS, lora=LoraSettings(rank=2))
    full = [Example("q", [5], [[7, 1]], [[9, 1], [4, 1]], [0, 1], [-1.5, -0.1], [9.0, 2.5], [1.0, 0.0], [-1.0, -2.0])]
    full = [dataclasses.replace(full[0], unscored=[1, 0, 0])]
    bare = [Example("held out", [5], [[7, 1]], [], [], [], [], [], [], [])]
    choices = dataclasses.replace(pocket_questions[0], choices=("1", "2"))
    exam = Exam([choices, pocket_questions[1]], max_new_tokens=5, batch_rows=2)
    job = Job(full, settings, AFT, 3, "label", bare, exam, "# card")
    start = ModelDirectory(tmp_path / "start", "0123456789abcdef")
    write_job(tmp_path / "job", job, start, "full")
    read, *rest = read_job(tmp_path / "job")
    assert [dataclasses.replace(read, examples=list(read.examples)), *rest] == [job, start, "full"]


@pytest.mark.parametrize("room", ["alignment", "models", "scoring", "training"])
def test_a_job_is_refused_by_other_code_than_that_of_its_key(room, tmp_path, edit_code):
    """Edited between the start of the run and that of its workers, which would train under the old code's key."""
    job = Job([], SETTINGS, AFT, 3, "label")
    write_job(tmp_path, job, ModelDirectory(tmp_path / "start", "0123456789abcdef"), "none")
    edit_code(room)
    with pytest.raises(WorkerError, match="The code has changed while the run was going"):
        read_job(tmp_path)
    edit_code("tasks")
    assert read_job(tmp_path)[0].label == job.label


def test_a_worker_whose_code_was_edited_while_it_started_does_not_train(tmp_path, edit_file):
    write_job(tmp_path, Job([], SETTINGS, AFT, 3, "label"), ModelDirectory(tmp_path, "0123"), "none")
    edit_file("training/loop.py")
    with pytest.raises(StoreError, match=r"changed since this run began \(aft/training/loop.py\)"):
        read_job(tmp_path)


@pytest.mark.parametrize("launch", [TWO, SHARDED])
def test_two_processes_train_what_one_trains(launch, pocket_directory, tmp_path):
    """The same key, so that either finds the other's model; one writer, a whole curve, nothing left of the job."""
    alone = train(pocket_directory, Job(EXAMPLES, SETTINGS, AFT, 0, "x", probe=PROBE), tmp_path / "one")
    both = train(pocket_directory, Job(EXAMPLES, SETTINGS, AFT, 0, "x", probe=PROBE), tmp_path / "two", launch=launch)
    assert both.directory.path.name == alone.directory.path.name
    files = {str(path.relative_to(both.directory.path)) for path in both.directory.path.rglob("*")}
    assert files == {str(path.relative_to(alone.directory.path)) for path in alone.directory.path.rglob("*")}
    assert [row["step"] for row in both.curve] == [1, 2, 3, 4, 5, 6]
    for row, expected in zip(both.curve, alone.curve, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert_nearly_equal(both, alone)


def assert_nearly_equal(one, other):
    """Up to the rounding of sums."""
    weights, expected = one.directory.model().state_dict(), other.directory.model().state_dict()
    assert all(torch.allclose(weights[name], expected[name], rtol=1e-4, atol=1e-6) for name in expected)


@pytest.mark.parametrize("launch", [TWO, SHARDED])
def test_two_processes_select_the_epoch_that_one_selects(launch, pocket_directory, pocket_questions, tmp_path):
    """One of them answers, with whole weights: that of an epoch before the last, since this model is never right."""
    exam = Exam(pocket_questions[:3], max_new_tokens=8, batch_rows=3)
    job = Job(EXAMPLES, dataclasses.replace(SETTINGS, select="validation"), AFT, 0, "x", exam=exam)
    alone = train(pocket_directory, job, tmp_path / "one")
    both = train(pocket_directory, job, tmp_path / "two", launch=launch)
    assert both.directory.path.name == alone.directory.path.name
    examined = [[(row["step"], row[ACCURACY]) for row in run.curve if ACCURACY in row] for run in (alone, both)]
    assert examined == [[(3, 0.0), (6, 0.0)]] * 2
    assert_nearly_equal(both, alone)
    last = train(pocket_directory, Job(EXAMPLES, SETTINGS, AFT, 0, "x"), tmp_path / "last")
    with pytest.raises(AssertionError):
        assert_nearly_equal(both, last)


@pytest.mark.parametrize("launch", [TWO, SHARDED])
def test_the_error_of_a_process_is_the_error_of_the_run(launch, pocket_directory, tmp_path):
    """A learning rate of 1e30 makes the second step's scores infinite or not a number."""
    settings = dataclasses.replace(SETTINGS, learning_rate=1e30, max_grad_norm=1e30)
    with pytest.raises(NumericalError, match=r"not finite.*its questions are q"):
        train(pocket_directory, Job(EXAMPLES, settings, AFT, 0, "x"), tmp_path, launch=launch)


RUN = """
import sys
from pathlib import Path
from aft.models.directory import open_model
from aft.models.adapters import LoraSettings
from aft.models.directory import ModelDirectory
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import train
from aft.training.settings import Launch, Objective, TrainingSettings
examples = [Example(f"q{i}", [0, 5, 6 + i], [[7, 8 + i, 1]], [[9, 1], [10, i + 4, 1]], [0, 1]) for i in range(7)]
settings = TrainingSettings(epochs=20000, learning_rate=1e-3, batch_size=3, checkpoint_every=5)
start, workspace = open_model(Path(sys.argv[1])), Path(sys.argv[2])
train(start, Job(examples, settings, Objective(), 0, "x"), workspace, launch=Launch(processes=2))
"""


def test_the_model_that_it_was_asked_for_is_trained_or_none(pocket_directory, tmp_path):
    """Another run may replace the folder in between: the result must not pass for that of the model before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    start = ModelDirectory(pocket_directory.path, "0" * 16)
    with pytest.raises(ModelError, match="was replaced while this run was going"):
        train(start, Job(EXAMPLES, SETTINGS, AFT, 0, "x"), tmp_path, launch=TWO)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before, "and torch's are gone"


def test_a_run_that_several_began_leaves_no_job_in_the_model_of_one(pocket_directory, tmp_path):
    """Training rows and the place of the start model are in it."""
    made = train(pocket_directory, Job(EXAMPLES, SETTINGS, AFT, 0, "x"), tmp_path / "once").directory
    left = tmp_path / "again" / f".{made.path.name}.partial" / "job"
    left.mkdir(parents=True)
    (left / "order.json").write_text("{}", encoding="utf-8")
    again = train(pocket_directory, Job(EXAMPLES, SETTINGS, AFT, 0, "x"), tmp_path / "again").directory
    assert again.fingerprint == made.fingerprint
    assert not (again.path / "job").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_one_that_asked(number, pocket_directory, tmp_path):
    """Killed in the midst of training: its workers are gone soon after, and a checkpoint is there to go on from."""
    asked = subprocess.Popen(
        [sys.executable, "-c", RUN, str(pocket_directory.path), str(tmp_path)], stderr=subprocess.DEVNULL
    )
    wait_until(lambda: list(tmp_path.glob(".*.partial/checkpoints/checkpoint-*/manifest.json")), 60)
    workers = workers_of(tmp_path)
    assert len(workers) == 2
    os.kill(asked.pid, number)
    asked.wait(30)
    wait_until(lambda: not workers_of(tmp_path), 15)


def test_a_worker_that_is_killed_is_told_of(pocket_directory, tmp_path):
    """The other one does not wait for it, and the checkpoint is there to go on from."""
    asked = subprocess.Popen(
        [sys.executable, "-c", RUN, str(pocket_directory.path), str(tmp_path)],
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    wait_until(lambda: list(tmp_path.glob(".*.partial/checkpoints/checkpoint-*/manifest.json")), 60)
    os.kill(int(workers_of(tmp_path)[0].parent.name), signal.SIGKILL)
    _, told = asked.communicate(timeout=60)
    assert told.strip().splitlines()[-1].startswith("aft.errors.WorkerError: x: one of the processes ended early")
    assert not workers_of(tmp_path)
    assert list(tmp_path.glob(".*.partial/checkpoints/checkpoint-*/manifest.json"))


def test_workers_that_had_not_begun_end_as_well(pocket_directory, tmp_path):
    """Their parent is gone before they could ask who it is."""
    asked = subprocess.Popen(
        [sys.executable, "-c", RUN, str(pocket_directory.path), str(tmp_path)], stderr=subprocess.DEVNULL
    )
    wait_until(lambda: workers_of(tmp_path), 60)
    os.kill(asked.pid, signal.SIGKILL)
    asked.wait(30)
    wait_until(lambda: not workers_of(tmp_path), 60)


def workers_of(folder):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"aft.training.worker" in command and any(str(folder).encode() in part for part in command):
            found.append(path)
    return found


def wait_until(happened, seconds):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"processes": 0}, "whole number from 1"),
        ({"machines": 2}, "needs launch.rendezvous"),
    ],
)
def test_launches_without_a_meaning_are_refused(wrong, complaint):
    with pytest.raises(SettingsError, match=complaint):
        Launch(**wrong)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"scoring": "two_pass"}, "scored on the path 'two_pass'"),
        ({"optimizer": "adafactor"}, "does not know sharded"),
        ({"weights": "bfloat16", "precision": "bfloat16"}, "are not kept in bfloat16"),
    ],
)
def test_what_does_not_go_with_sharded_weights_is_refused(wrong, complaint, pocket_directory, tmp_path):
    settings = dataclasses.replace(SETTINGS, **wrong)
    with pytest.raises(SettingsError, match=complaint):
        fit_together(Job(EXAMPLES, settings, AFT, 0, "x"), pocket_directory, tmp_path, Launch(sharding="full"))
    assert json.loads((tmp_path / "job" / "error.json").read_text(encoding="utf-8"))["kind"] == "SettingsError"
