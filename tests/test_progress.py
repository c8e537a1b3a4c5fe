"""Where bars are drawn: nowhere for what is done at once, and elsewhere if another process asks."""

import itertools
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


@pytest.mark.parametrize(("total", "told"), [(100, ["train: about 7 min left, by the first 5 of 90 steps."]), (16, [])])
def test_the_log_tells_once_how_long_the_rest_takes(
    total: int, told: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Six seconds a step, ten done before: after five in 24 seconds, 85 are left, 6.8 minutes; of 16 steps, one."""
    clock = itertools.count(0, 6)
    monkeypatch.setattr(progress._Bar, "format_dict", property(lambda self: {"elapsed": next(clock)}))
    with caplog.at_level("INFO", "aft"):
        bar_ = bar("train", total, "step", done=10)
        for _ in range(6):
            bar_.update()
    assert caplog.messages == told
