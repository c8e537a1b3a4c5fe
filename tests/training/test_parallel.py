"""Two processes learn what one learns, on every path, whole or sharded, and across a checkpoint."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from aft.training.parallel import collectives

SOURCE = Path(__file__).parents[2] / "src"
NAMES = [
    *("naive", "shared", "several passes", "two_pass", "pairs", "points", "lora", "maximum likelihood"),
    *("sharded", "sharded, several passes", "sharded, logits in chunks", "sharded lora", "sharded, tied"),
]
CURVES = (
    "loss",
    "grad_norm",
    "vft_term",
    "alignment_term",
    "constraint_term",
    "score_positive",
    "margin",
    "held_out_perplexity",
)


@pytest.fixture(scope="module")
def apart(processes_apart, tmp_path_factory):
    """The folder with what two processes learned in each scenario."""
    root = tmp_path_factory.mktemp("apart")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    done = subprocess.run(
        [*command, "--rdzv-endpoint", "localhost:0", processes_apart.__file__, str(root)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert list(processes_apart.SCENARIOS) == NAMES
    return root


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_learn_what_one_learns(name, apart, processes_apart, tmp_path):
    """Sums over processes are rounded in another order, nothing else differs: losses agree to 1e-5, and the weights to
    1e-4 of the way that they went, as between any two paths of one process.
    """
    if "lora" in name:
        pytest.importorskip("peft")
    scenario = processes_apart.SCENARIOS[name]
    alone = processes_apart.seven_steps(scenario, tmp_path)
    curve = json.loads((apart / name / "at once.json").read_text(encoding="utf-8"))
    assert len(curve) == len(alone["curve"]) == 7
    for row, expected in zip(curve, alone["curve"], strict=True):
        for column in set(CURVES) & set(expected):
            assert row[column] == pytest.approx(expected[column], rel=1e-5, abs=1e-5), (row["step"], column)
    found = load_file(apart / name / "at once.safetensors")
    start = processes_apart.killed_runs.small_llama(tied=processes_apart.is_tied(scenario)).state_dict()
    went = sum(float((w - start[n]).norm()) ** 2 for n, w in alone["weights"].items() if n in start) ** 0.5 or 1.0
    off = sum(float((found[n] - w).norm()) ** 2 for n, w in alone["weights"].items()) ** 0.5
    assert off < 1e-4 * went


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_of_two_processes_is_the_same(name, apart):
    """From the fourth step, one into the second epoch: bit by bit, but for sums that sharding may order anew."""
    at_once, resumed = (load_file(apart / name / f"{kind}.safetensors") for kind in ("at once", "resumed"))
    assert at_once.keys() == resumed.keys()
    for key, weights in at_once.items():
        if name.startswith("sharded"):
            assert torch.allclose(weights, resumed[key], rtol=0, atol=1e-6), key
        else:
            assert torch.equal(weights, resumed[key]), key


@pytest.mark.parametrize("name", ["two_pass", "sharded"])
def test_a_run_that_two_began_is_ended_by_one(name, apart, processes_apart, tmp_path):
    """The checkpoint after four steps, one into the second epoch, says nothing of how many wrote it, sharded or not."""
    begun = tmp_path / "checkpoint-4"
    shutil.copytree(apart / name / begun.name, begun)
    alone = processes_apart.seven_steps(processes_apart.SCENARIOS[name], tmp_path)
    expected = json.loads((apart / name / "at once.json").read_text(encoding="utf-8"))
    assert [row["step"] for row in alone["curve"]] == list(range(1, 8))
    for row, other in zip(alone["curve"][4:], expected[4:], strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_first_process_keeps_what_is_gathered(name, apart):
    """Weights and the state of the optimiser, sharded or not."""
    first, second = json.loads((apart / name / "kept.json").read_text(encoding="utf-8"))
    assert second == {"weights": 0, "moments": 0}
    numbers = sum(tensor.numel() for tensor in load_file(apart / name / "at once.safetensors").values())
    assert first["weights"] == numbers
    assert first["moments"] > numbers  # two for each weight, and counts of steps


@given(costs=st.lists(st.integers(1, 500), max_size=24), n=st.integers(1, 6))
def test_every_group_is_read_once_and_loads_are_alike(costs, n):
    """No process has more than the least loaded one and its last, so smallest, group."""
    taken = collectives.shares(costs, n)
    assert sorted(index for indices in taken for index in indices) == list(range(len(costs)))
    loads = [sum(costs[index] for index in indices) for indices in taken]
    for indices, load in zip(taken, loads, strict=True):
        assert indices == sorted(indices)
        if indices:
            assert load - min(costs[index] for index in indices) <= min(loads)


def test_alone_there_is_nothing_to_do():
    model = torch.nn.Linear(2, 1)
    collectives.add_up_gradients(model)
    assert model.weight.grad is None
    assert (collectives.count(), collectives.rank(), collectives.is_first()) == (1, 0, True)
    assert collectives.summed({"a": 1.5}) == {"a": 1.5}
