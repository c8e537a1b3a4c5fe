"""Nested settings as dotted keys."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from aft.nested import leaves


@dataclass
class Settings:
    rate: float = 0.1
    lora: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"training": {"lora": {}, "steps": {"warm_up": 3}}, "a": 1},
            [("training.lora", {}), ("training.steps.warm_up", 3), ("a", 1)],
        ),
        ({"training": Settings()}, [("training.rate", 0.1), ("training.lora", {})]),
        ({"": {"a": [1]}}, [(".a", [1])]),
        ({}, []),
    ],
)
def test_leaves_stand_in_their_order_and_an_empty_mapping_is_one(values: Any, expected: list[tuple[str, Any]]) -> None:
    assert list(leaves(values)) == expected
