"""Which GPU a cell has while others run beside it; what the machine has is faked."""

import pytest

from aft.studies.devices import VISIBLE, shares_of, usual_jobs, visible_devices


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
    monkeypatch.setattr("os.cpu_count", lambda: 7)
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
    dealt = shares_of(devices, jobs)
    assert [share.get(VISIBLE) for share in dealt] == shares
    assert {share.get("OMP_NUM_THREADS") for share in dealt} == {"1" if jobs > 1 else None}
