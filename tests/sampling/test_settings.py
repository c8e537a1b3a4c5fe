"""Sampling settings that make no sense are refused in one sentence."""

from typing import Any

import pytest

from aft.errors import SettingsError
from aft.sampling.settings import SamplingSettings


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"samples": 0}, "samples"),
        ({"samples": -1, "greedy": True}, "samples"),
        ({"samples": 1, "temperature": 0.0}, "temperature"),
        ({"samples": 1, "temperature": -1.0}, "temperature"),
        ({"samples": 1, "temperature": float("nan")}, "temperature"),
        ({"samples": 1, "top_k": 0}, "top_k"),
        ({"samples": 1, "top_p": 0.0}, "top_p"),
        ({"samples": 1, "top_p": 1.1}, "top_p"),
        ({"samples": 1, "top_p": float("nan")}, "top_p"),
        ({"samples": 1, "max_new_tokens": 0}, "max_new_tokens"),
        ({"samples": 1, "block_size": 0}, "block_size"),
        ({"samples": 1, "batch_rows": 0}, "batch_rows"),
    ],
)
def test_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        SamplingSettings(**wrong)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_greedy_alone_is_allowed() -> None:
    assert SamplingSettings(samples=0, greedy=True).samples == 0
