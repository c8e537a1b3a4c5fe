"""What a group costs, and how costs are packed under a budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft.errors import DataError
from aft.scoring.groups import Group, pack


def test_the_prompt_and_equal_responses_cost_once():
    """3 + 2 + 1: [7, 8] is there twice, the second time as an array."""
    responses = [[7, 8], [9], np.array([7, 8])]
    assert Group([1, 2, 3], responses).cost == 6  # type: ignore[arg-type]
    assert Group([1, 2, 3], []).cost == 3


@pytest.mark.parametrize(("prompt", "responses"), [([], [[1]]), ([1], [[]]), ([1], [[2], []])])
def test_nothing_to_read_is_refused(prompt, responses):
    with pytest.raises(DataError, match="without tokens"):
        Group(prompt, responses)


def test_packs_by_hand():
    """3 + 4 = 7 fits exactly, 1 more does not; 9 is beyond the budget and stands alone; order is kept."""
    assert pack([3, 4, 1, 9, 2, 5, 0], 7) == [[0, 1], [2], [3], [4, 5, 6]]
    assert pack([], 7) == []
    assert pack([2, 1], 0) == pack([2, 1], -5) == [[0], [1]], "without any room each stands alone"


@given(st.lists(st.integers(1, 20)), st.integers(-3, 40))
def test_packs_keep_order_and_budget(costs, budget):
    packs = pack(costs, budget)
    assert [number for numbers in packs for number in numbers] == list(range(len(costs)))
    for numbers in packs:
        total = sum(costs[number] for number in numbers)
        assert len(numbers) == 1 or total <= budget
        following = costs[numbers[-1] + 1 :]
        assert not following or total + following[0] > budget, "a pack ends where the next does not fit"
