"""The order of training: everything once, seeded by epoch, little padding."""

import random
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft.training.batches import batches_from, batches_of_epoch, steps_per_epoch

costs_of = st.lists(st.integers(1, 1000), max_size=200)
seeds = st.integers(0, 2**32)


def order(costs, batch_size, seed, epoch):
    return [index for batch in batches_of_epoch(costs, batch_size, seed, epoch) for index in batch]


@given(costs_of, st.integers(1, 9), seeds, st.integers(0, 9))
def test_every_index_once_an_epoch(costs, batch_size, seed, epoch):
    assert sorted(order(costs, batch_size, seed, epoch)) == list(range(len(costs)))
    assert len(batches_of_epoch(costs, batch_size, seed, epoch)) == steps_per_epoch(costs, batch_size)


@given(costs_of.filter(bool), st.integers(1, 9), seeds, st.integers(0, 40))
def test_a_resumed_run_sees_the_batches_that_it_would_have_seen(costs, batch_size, seed, step):
    """They follow from seed and step only, not from other random numbers."""
    expected = list(islice(batches_from(0, costs, batch_size, seed), step + 5))[step:]
    random.random()
    assert list(islice(batches_from(step, costs, batch_size, seed), 5)) == expected


def test_seeds_and_epochs_have_orders_of_their_own():
    costs = list(range(64))
    orders = [order(costs, 4, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(one) for one in orders}) == 9


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 8), seeds)
def test_batches_are_neighbours_in_cost_and_the_smaller_one_is_last(batch_size, full, rest, seed):
    """Up to 32 batches are sorted together: with distinct costs, each full batch is a run of the sorted costs."""
    n = full * batch_size + rest % batch_size
    costs = random.Random(seed).sample(range(10 * n + 1), n)
    ordered = order(costs, batch_size, seed, 0)
    position = {cost: i for i, cost in enumerate(sorted(costs))}
    for i in range(full):
        batch = [position[costs[index]] for index in ordered[i * batch_size : (i + 1) * batch_size]]
        assert batch == list(range(batch[0], batch[0] + batch_size))


@pytest.mark.parametrize("batch_size", [4, 16])
def test_less_is_padded_than_in_random_order(batch_size):
    """Costs from 20 to 200: what a batch reads is its size times its largest."""
    rng = random.Random(1)
    costs = [rng.randint(20, 200) for _ in range(1000)]

    def padded(ordered):
        batches = [[costs[i] for i in ordered[at : at + batch_size]] for at in range(0, len(ordered), batch_size)]
        return sum(len(batch) * max(batch) for batch in batches) / sum(costs) - 1

    at_random = padded(rng.sample(range(1000), 1000))
    assert padded(order(costs, batch_size, 0, 0)) < 0.2 * at_random
    assert at_random > 0.2


def test_batches_come_in_random_order_of_cost():
    """Sorting must not turn the epoch into a curriculum: neither rising nor falling."""
    costs = list(range(128))
    ordered = order(costs, 4, 0, 0)
    batches = [sum(ordered[at : at + 4]) for at in range(0, 128, 4)]
    rises = sum(one < other for one, other in pairwise(batches))
    assert 8 <= rises <= 23  # of 31
