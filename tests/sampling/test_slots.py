"""Slots keep each row's keys and values wherever rows move, and attend to them as attention over the whole row does."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from aft.sampling.slots import Admission, Slots

LAYERS, HEADS, KEY_HEADS, SIZE, VALUE_SIZE = 2, 4, 2, 8, 6


class Layer(torch.nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.layer_idx = number


class Rows:
    """Slots and, beside them, all keys and values of every live row by themselves, per layer."""

    def __init__(self, capacity: int, cells: int, limit: int) -> None:
        self.slots = Slots(capacity, cells, limit, torch.device("cpu"))
        self.expected: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.count = 0

    @property
    def responses(self) -> list[int]:
        """Of the live rows, in their order."""
        return self.slots.response_R.tolist()

    def admit(self, prompts: Sequence[int], rows: int) -> None:
        """Prompts of these lengths, with so many rows each."""
        total = sum(prompts)
        memory = {
            layer: (torch.randn(total, KEY_HEADS, SIZE), torch.randn(total, KEY_HEADS, VALUE_SIZE))
            for layer in range(LAYERS)
        }
        admissions, start = [], 0
        for length in prompts:
            responses = range(self.count, self.count + rows)
            self.count += rows
            admissions.append(Admission(start, length, responses))
            for response in responses:
                here = slice(start, start + length)
                self.expected[response] = [(keys[here], values[here]) for keys, values in memory.values()]
            start += length
        before = self.slots.rows
        assert self.slots.admit(memory, admissions) == before

    def step(self, window: int | None) -> None:
        """One token of every row; outputs are those of attention over each row's whole keys and values."""
        responses = self.responses
        self.slots.prepare()
        for number in range(LAYERS):
            query = torch.randn(len(responses), HEADS, 1, SIZE)
            key = torch.randn(len(responses), KEY_HEADS, 1, SIZE)
            value = torch.randn(len(responses), KEY_HEADS, 1, VALUE_SIZE)
            options: dict[str, Any] = {"scaling": 0.3, "dropout": 0.0, "sliding_window": window}
            outputs = self.slots(Layer(number), query, key, value, **options)
            assert outputs.shape == (len(responses), 1, HEADS, VALUE_SIZE)
            for row, response in enumerate(responses):
                keys, values = self.expected[response][number]
                keys, values = torch.cat([keys, key[row, :, 0][None]]), torch.cat([values, value[row, :, 0][None]])
                self.expected[response][number] = (keys, values)
                seen = slice(None) if window is None else slice(-window, None)
                expected = scaled_dot_product_attention(
                    query[row],
                    keys[seen].transpose(0, 1).repeat_interleave(HEADS // KEY_HEADS, 0),
                    values[seen].transpose(0, 1).repeat_interleave(HEADS // KEY_HEADS, 0),
                    scale=0.3,
                )
                torch.testing.assert_close(outputs[row, 0], expected[:, 0], rtol=0, atol=1e-5)
        positions = [len(self.expected[response][0][0]) - 1 for response in responses]
        assert self.slots.position_R.tolist() == positions
        self.slots.advance()

    def retire(self, ended: Sequence[bool]) -> None:
        gone = {response for response, is_ended in zip(self.responses, ended, strict=True) if is_ended}
        self.slots.retire(ended)
        self.expected = {response: kept for response, kept in self.expected.items() if response not in gone}
        assert sorted(self.responses) == sorted(self.expected)


@pytest.mark.parametrize("window", [None, 5])
def test_rows_that_come_and_go_at_random(window: int | None) -> None:
    """Rows outgrow the first buffers, end in any order and are sorted by age now and then."""
    torch.manual_seed(0)
    chance = random.Random(0)
    rows, sorted_times = Rows(capacity=24, cells=4, limit=120), 0
    rows.admit([9, 7, 3], rows=4)
    for _ in range(110):
        rows.step(window)
        disorder = rows.slots.disorder
        ended = [chance.random() < 0.03 for _ in rows.responses]
        rows.retire(ended)
        sorted_times += rows.slots.disorder < disorder
        if rows.slots.free >= 8:
            rows.admit([chance.randint(1, 12), chance.randint(1, 12)], rows=4)
    assert rows.slots.own[0][0].shape[2] > 64
    assert rows.count > 60 and sorted_times > 0


def test_a_prompt_is_kept_once() -> None:
    rows = Rows(capacity=60, cells=30, limit=10)
    rows.admit([5, 4], rows=30)
    assert rows.slots.prompts[0][0].shape == (2, KEY_HEADS, 5, SIZE)
    assert rows.slots.prompts[1][1].shape == (2, KEY_HEADS, 5, VALUE_SIZE)


def test_a_prompt_goes_with_its_last_row() -> None:
    rows = Rows(capacity=6, cells=2, limit=10)
    rows.admit([5, 4, 3], rows=2)
    rows.step(None)
    rows.retire([True, False, True, True, False, False])
    assert (rows.slots.groups, rows.slots.free) == (2, 3)
    rows.step(None)
    rows.retire([True, True, True])
    assert (rows.slots.groups, rows.slots.free) == (0, 6)
    rows.admit([4], rows=2)
    rows.step(None)


def test_ended_rows_cost_nothing_and_few_are_moved() -> None:
    """Only the last rows move, into the places of those that have ended."""
    rows = Rows(capacity=8, cells=8, limit=10)
    rows.admit([2], rows=8)
    rows.step(None)
    rows.retire([False, True, False, False, False, True, False, False])
    assert rows.responses == [0, 6, 2, 3, 4, 7]


def test_attention_reads_little_beyond_the_end_of_young_rows() -> None:
    rows = Rows(capacity=64, cells=32, limit=40)
    rows.admit([3], rows=32)
    for _ in range(30):
        rows.step(None)
    rows.admit([3], rows=32)
    lengths = [rows.slots.clock - oldest for a, b, oldest in rows.slots.blocks for _ in range(a, b)]
    assert lengths == sorted(lengths, reverse=True)
    assert sum(lengths) < 1.2 * 32 * 30


def test_half_precision() -> None:
    slots = Slots(2, 2, 4, torch.device("cpu"))
    half = torch.bfloat16
    memory = {0: (torch.randn(3, 1, SIZE, dtype=half), torch.randn(3, 1, SIZE, dtype=half))}
    slots.admit(memory, [Admission(0, 3, [0, 1])])
    slots.prepare()
    query, key, value = (torch.randn(2, heads, 1, SIZE, dtype=half) for heads in (2, 1, 1))
    outputs = slots(Layer(0), query, key, value)
    assert outputs.dtype == half
    for row in range(2):
        keys, values = (
            torch.cat([kept, new[row, :, 0][None]]).transpose(0, 1).float().repeat_interleave(2, 0)
            for kept, new in zip(memory[0], (key, value), strict=True)
        )
        expected = scaled_dot_product_attention(query[row].float(), keys, values)
        torch.testing.assert_close(outputs[row, 0].float(), expected[:, 0], rtol=0.03, atol=0.03)
