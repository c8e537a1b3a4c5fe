"""Locks between runs: how long one is waited for, and that it is free again."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest

from aft import locks
from aft.errors import SettingsError, StoreError
from aft.locks import PATIENCE, locked, patience_s


def one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and ". " not in text


class TestLocked:
    def test_waits_as_long_as_it_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        waited, acquired = [], locks._acquired

        def counted(lock: Any, seconds: float) -> bool:
            waited.append(seconds)
            return acquired(lock, seconds)

        lock = tmp_path / ".vft.lock"
        with locked(lock):
            monkeypatch.setenv(PATIENCE, "0.2")
            monkeypatch.setattr(locks, "_acquired", counted)
            with pytest.raises(StoreError, match="vft; wait") as caught, locked(lock):
                pass
        assert sum(seconds for seconds in waited if seconds > 0) == pytest.approx(0.2)
        assert str(tmp_path / "vft") in str(caught.value), "the lock's name tells what is made"

    @pytest.mark.parametrize("told", ["soon", "nan", "-1", "-inf", "", "1s"])
    def test_a_patience_that_is_none_is_one_sentence(self, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(PATIENCE, told)
        with pytest.raises(SettingsError, match=PATIENCE) as caught:
            patience_s()
        assert one_sentence(str(caught.value))

    def test_without_one_it_has_no_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(PATIENCE, raising=False)
        assert patience_s() == math.inf

    def test_is_free_again_after_an_exception(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="inside"), locked(tmp_path / "new" / ".lock"):
            raise ValueError("inside")
        with locked(tmp_path / "new" / ".lock"):
            pass

    @pytest.mark.usefixtures("impatient")
    def test_refuses_a_second_holder_in_the_same_process(self, tmp_path: Path) -> None:
        with locked(tmp_path / ".lock"), pytest.raises(StoreError, match="Another run"), locked(tmp_path / ".lock"):
            pass

    def test_a_forbidden_folder_is_one_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(*args: Any, **kwargs: Any) -> int:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "open", forbidden)
        with pytest.raises(StoreError, match="Cannot write") as caught, locked(tmp_path / ".lock"):
            pass
        assert one_sentence(str(caught.value))
