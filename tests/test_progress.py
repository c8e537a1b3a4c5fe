"""Where bars are drawn: nowhere for what is done at once, and elsewhere if another process asks."""

import time

import pytest

from aft import progress
from aft.progress import bar, show_by


def work(steps: int, seconds: float) -> None:
    with bar("train", steps, "step") as shown:
        for _ in range(steps):
            time.sleep(seconds)
            shown.update()


def test_what_is_done_at_once_draws_no_bar(capsys):
    work(5, 0)
    assert capsys.readouterr().err == ""


def test_what_takes_longer_draws_one(capsys):
    work(3, 0.6)
    assert "train: 100%" in capsys.readouterr().err


def test_another_process_draws_what_it_is_told_and_nothing_at_the_end(capsys, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    monkeypatch.setattr(progress, "_elsewhere", [])
    show_by(told.append)
    work(3, 0.6)
    assert told[0].startswith("train:") and "step" in told[0] and told[-1] == ""
    assert capsys.readouterr().err == ""
