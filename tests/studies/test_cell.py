"""A cell in a process of its own: it makes what its study asked for, or nothing."""

import io
import json
from collections.abc import Callable

import pytest

from aft.code import source_hash
from aft.pipelines.evaluate.nodes import ROOMS
from aft.studies import cell


def test_a_cell_of_other_code_than_its_study_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its results would be marked as those of the code that the study began with."""
    monkeypatch.setattr(cell, "_end_with_the_study", lambda: None)  # which would end the tests
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"code": "of an hour ago"}) + "\n"))
    with pytest.raises(SystemExit) as ended:
        cell.main()
    assert ended.value.code == "Error: The code has changed while the study was going; run the same command again."


def test_a_cell_whose_code_is_edited_while_it_starts_makes_nothing(
    monkeypatch: pytest.MonkeyPatch, edit_file: Callable[[str], None]
) -> None:
    monkeypatch.setattr(cell, "_end_with_the_study", lambda: None)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"code": source_hash(*ROOMS)}) + "\n"))
    edit_file("tasks/gsm8k.py")
    with pytest.raises(SystemExit, match=r"^Error: The code has changed since this run began \(aft/tasks/gsm8k.py\)"):
        cell.main()
