"""Several processes make the same bytes as one, and a run is as safe with them: none is left, and all is kept."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aft.files import hash_file

pytestmark = pytest.mark.e2e
TOGETHER = "parallel=2"


@pytest.fixture
def based(finished, fresh):
    """A project that has the base model and nothing else."""
    for manifest in finished.data.glob("06_models/cache/*/manifest.json"):
        if json.loads(manifest.read_text(encoding="utf-8"))["made_from"]["kind"] == "pocket base model":
            shutil.copytree(manifest.parent, fresh.data / "06_models/cache" / manifest.parent.name)
    return fresh


def made(project) -> dict[str, str]:
    """The hash of every model's weights, of every shard and of all scores, by path."""
    files = [
        *project.data.glob("06_models/cache/*/model.safetensors"),
        *project.data.glob("04_feature/cache/*/*.parquet"),
        *project.data.glob("07_model_output/cache/*/*.parquet"),
    ]
    return {path.relative_to(project.data).as_posix(): hash_file(path) for path in files}


def start(project, parameters: str) -> "subprocess.Popen[str]":
    """A run in a process group of its own, as of a terminal: Ctrl-C reaches it even if these tests ignore it, as what a
    shell starts in the background does, and hands on."""
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*project.command(), f"--params={parameters}"],
            cwd=Path(__file__).parents[2],
            env=project.environment(),
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, ours)


def workers(project) -> list[int]:
    """The processes that work for a run of this project."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            ours = project.tracking_uri.encode() in (folder / "environ").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
        if b"aft.hooks.worker" in words and ours:
            found.append(int(folder.name))
    return found


def until(reached: Callable[[], Any], process: "subprocess.Popen[str] | None" = None) -> Any:
    deadline = time.monotonic() + 300
    while not (what := reached()):
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.01)
    return what


def variant_is_trained(project) -> Callable[[], bool]:
    """Whether the training of a variant, not of VFT, has a checkpoint."""

    def reached() -> bool:
        for checkpoint in project.data.glob("06_models/cache/.*.partial/checkpoints/checkpoint-3"):
            with suppress(OSError):  # the training has just ended
                begun = json.loads((checkpoint.parents[1] / "manifest.json").read_text(encoding="utf-8"))
                return begun["made_from"]["kind"] != "model train vft"
        return False

    return reached


def test_two_processes_make_what_one_makes(finished, based):
    """The finished run is of two, this one is of one."""
    done = based.run()
    assert done.returncode == 0, done.stderr[-4000:]
    assert made(based) == made(finished)
    logs = (finished.folder / "log.txt").read_text(encoding="utf-8"), done.stderr
    assert ["2 processes work side by side" in log for log in logs] == [True, False]


def test_a_run_goes_on_when_a_process_that_works_for_it_is_killed(finished, based):
    run = start(based, TOGETHER)
    (worker,) = until(lambda: workers(based), run)
    until(variant_is_trained(based), run)
    os.kill(worker, signal.SIGKILL)
    _, told = run.communicate()
    assert run.returncode == 0, told[-4000:]
    assert told.count("the run goes on without it") == 1
    assert made(based) == made(finished)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_leaves_no_process_and_goes_on_where_it_was(finished, based, how):
    """SIGINT as Ctrl-C sends it, to all processes of the group. What two began, one ends; its log says from where."""
    run = start(based, TOGETHER)
    until(lambda: workers(based), run)
    until(variant_is_trained(based), run)
    os.killpg(run.pid, how) if how == signal.SIGINT else run.send_signal(how)
    run.communicate()
    assert run.returncode != 0
    until(lambda: not workers(based))
    again = based.run()
    assert again.returncode == 0, again.stderr[-4000:]
    assert re.search("continuing from step [36]", again.stderr)
    assert made(based) == made(finished)


def test_an_error_in_a_variant_is_told_once(copied):
    done = copied.run(f"--params={TOGETHER},align.aft_dc.objective.weight=1e30")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("Error: The")
    assert done.stderr.count("is not finite;") <= 2 and "Traceback" not in done.stderr
