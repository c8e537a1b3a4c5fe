"""What one process has of the machine while others run beside it; what the machine has is faked."""

import subprocess
import sys

import pytest
import torch

from aft.machine import (
    SMALL,
    THREADS,
    VISIBLE,
    share_cores,
    shares_of,
    use_threads,
    usual_jobs,
    visible_devices,
    warn_of_slowness,
)


@pytest.fixture(params=[4, 0])
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: request.param)
    return request.param


def test_all_gpus_are_visible_if_nobody_says_which(gpus: int) -> None:
    assert visible_devices() == ["0", "1", "2", "3"][:gpus]


@pytest.mark.parametrize(
    ("named", "devices"),
    [
        ("2", ["2"]),
        ("3,1", ["3", "1"]),
        ("GPU-8e2f, GPU-11", ["GPU-8e2f", "GPU-11"]),
        ("", []),
        ("-1", []),
        ("1,-1,2", ["1"]),
    ],
)
def test_a_list_of_visible_devices_is_kept_to(named: str, devices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA reads it; without asking torch, which takes seconds to import."""
    monkeypatch.setenv(VISIBLE, named)
    monkeypatch.delattr("torch.cuda.device_count")
    assert visible_devices() == devices


@pytest.mark.parametrize(("processes", "jobs"), [(1, 4), (2, 2), (3, 1), (8, 1)])
def test_there_are_as_many_jobs_as_gpus_suffice_for(
    processes: int, jobs: int, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aft.machine.cores", lambda: 7)
    assert usual_jobs(processes) == (jobs if gpus else 7)


@pytest.mark.parametrize(
    ("devices", "jobs", "shares"),
    [
        (["0", "1"], 2, ["0", "1"]),
        (["4", "7"], 5, ["4", "7", "4", "7", "4"]),
        (["0", "1", "2", "3"], 2, ["0,2", "1,3"]),
        (["0", "1"], 1, ["0,1"]),
        ([], 2, [None, None]),
    ],
)
def test_devices_are_dealt_in_turn(devices: list[str], jobs: int, shares: list[str | None]) -> None:
    assert [share.get(VISIBLE) for share in shares_of(devices, jobs)] == shares


@pytest.mark.parametrize(
    ("explicit", "given", "processes", "weights", "threads"),
    [
        (None, None, 1, SMALL - 1, 1),
        (None, None, 1, SMALL, 6),
        (None, None, 4, SMALL, 1),
        (None, None, 3, SMALL, 2),
        (None, None, 9, SMALL, 1),
        (None, 3, 2, 10, 3),
        ("2", 3, 2, 10, None),
        ("2", None, 1, 10, None),
    ],
)
def test_a_small_model_has_one_thread_and_a_large_one_its_share_unless_someone_says(
    explicit, given, processes, weights, threads, monkeypatch
):
    chosen = []
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    monkeypatch.setattr("aft.machine._all_threads", lambda: 6)
    monkeypatch.delenv(THREADS)
    if explicit:
        monkeypatch.setenv(THREADS, explicit)
    share_cores(processes, given)
    use_threads(weights)
    share_cores(1)
    assert chosen == ([] if threads is None else [threads])
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("device", "half", "recomputes", "told"),
    [
        ("cpu", True, True, "bfloat16 (precision) and gradient_checkpointing may take"),
        ("cpu", False, True, "no GPU: gradient_checkpointing may take"),
        ("cpu", False, False, None),
        ("cuda", True, True, None),
    ],
)
def test_what_is_slow_on_a_processor_is_warned_of(
    device: str, half: bool, recomputes: bool, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_slowness(device, half=half, recomputes=recomputes)
    assert len(caplog.messages) == (told is not None) and all(str(told) in message for message in caplog.messages)


_FAULTS = """
import resource, sys
import numpy as np
from aft.machine import keep_memory
keep_memory(int(sys.argv[1]))
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [np.ones(2**17) for _ in range(32)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
step()
print(step())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="another C library")
@pytest.mark.parametrize(("weights", "kept"), [(SMALL - 1, True), (SMALL, False)])
def test_a_step_of_a_small_model_gets_the_memory_that_the_one_before_left(weights: int, kept: bool) -> None:
    """32 MiB are 8,192 pages, which the kernel would hand out anew."""
    told = subprocess.run(
        [sys.executable, "-c", _FAULTS, str(weights)], capture_output=True, encoding="utf-8", check=True
    )
    assert (int(told.stdout) < 100) == kept
