"""The process that runs cells: each makes what its study asked for, or nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aft.code import source_hash
from aft.errors import IncompleteRecord, SettingsError
from aft.pipelines.evaluate.nodes import ROOMS
from aft.studies import cell


def order(**changes: Any) -> cell.Order:
    names = ("project", "env", "conf_source", "runtime_params", "to_outputs")
    return {**dict.fromkeys(names), "code": source_hash(*ROOMS), "families": {}, **changes}


def test_a_cell_of_other_code_than_its_study_makes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Its results would be marked as those of the code that the study began with."""
    assert cell.run(order(code="of an hour ago")) == 1
    assert (
        capsys.readouterr().err
        == "Error: The code has changed while the study was going; run the same command again.\n"
    )


def test_a_cell_of_another_family_than_its_study_makes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """An own family may be edited before the process imports it, and math-verify installed anew."""
    assert cell.run(order(families={"code of math": "of an hour ago"})) == 1
    assert "Error: The code has changed while the study was going" in capsys.readouterr().err


def test_a_cell_whose_code_is_edited_while_it_starts_makes_nothing(
    capsys: pytest.CaptureFixture[str], edit_file: Callable[[str], None]
) -> None:
    edit_file("tasks/gsm8k.py")
    assert cell.run(order()) == 1
    assert "Error: The code has changed since this run began (aft/tasks/gsm8k.py)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (IncompleteRecord("The results are complete; 1 record is missing in MLflow."), cell.UNTRACKED, ""),
        (SettingsError("This is no setting."), 1, "Error: This is no setting.\n"),
        (ZeroDivisionError("by ours"), 1, "Traceback"),
    ],
)
def test_a_status_tells_how_a_cell_ended(
    error: Exception,
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def create(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(cell.KedroSession, "create", create)
    assert cell.run(order()) == status and status not in (None, 0)
    assert told in capsys.readouterr().err


RUN = """
import os, sys, time
from aft.studies import cell

def run(order):
    os.system("echo of a child")
    print("trouble", file=sys.stderr, flush=True)
    print("words", order["n"], flush=order["s"] > 0)
    time.sleep(order["s"])
    return order["n"]

cell.run = run
print("from an import", flush=True)
cell.main()
"""


def test_a_process_runs_one_cell_after_another_and_ends_with_its_study(tmp_path: Path) -> None:
    """Each has a log of its own, with what libraries and children print; one that is under way is ended, too."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    assert process.stdin is not None and process.stdout is not None
    while process.stdout.readline() != "from an import\n":  # Kedro's, too, may say something as it is imported
        assert process.poll() is None
    for number, seconds in ((0, 0), (3, 0), (5, 60)):
        log = str(tmp_path / f"{number}.txt")
        process.stdin.write(json.dumps({"log": log, "n": number, "s": seconds}) + "\n")
        process.stdin.flush()
        if not seconds:
            assert process.stdout.readline() == "\n"
            assert process.stdout.readline() == f"{cell.ENDED}{number}\n"
            assert Path(log).read_text("utf-8") == f"of a child\ntrouble\nwords {number}\n", "flushed before"
    while not (tmp_path / "5.txt").is_file() or "words" not in (tmp_path / "5.txt").read_text("utf-8"):
        assert process.poll() is None
    process.stdin.close()
    assert process.wait(20) == (-signal.SIGTERM if os.name == "posix" else signal.SIGTERM)
    for number in (0, 3, 5):
        assert (tmp_path / f"{number}.txt").read_text("utf-8") == f"of a child\ntrouble\nwords {number}\n"
