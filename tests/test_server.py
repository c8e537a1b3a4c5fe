"""Works side by side: never more than may be, each told when it is done, and none begun after a failure."""

import asyncio

import pytest

from aft.errors import StoreError
from aft.server import read_json, run, run_concurrently


@pytest.mark.parametrize("most", [1, 3, 20])
def test_all_are_done_and_never_more_at_a_time(most: int) -> None:
    under_way, highest, done, heard = 0, 0, [], []

    async def work(number: int) -> None:
        nonlocal under_way, highest
        under_way += 1
        highest = max(highest, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        done.append(number)

    run(run_concurrently((work(number) for number in range(10)), most, lambda: heard.append(1)))
    assert sorted(done) == list(range(10)) and len(heard) == 10
    assert highest == min(most, 10)


def test_the_first_failure_is_raised_as_it_is_and_nothing_more_is_begun() -> None:
    """Two at a time: the third fails while the fourth is under way, which is cancelled; the fifth is never made.

    Only the first two count as done.
    """
    begun, cancelled, heard = [], [], []

    async def work(number: int) -> None:
        begun.append(number)
        if number == 2:
            raise StoreError("gone.")
        try:
            await asyncio.sleep(0 if number < 2 else 60)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    with pytest.raises(StoreError, match="gone"):
        run(run_concurrently((work(number) for number in range(10)), 2, lambda: heard.append(1)))
    assert begun == [0, 1, 2, 3] and cancelled == [3] and len(heard) == 2


def test_an_answer_that_is_far_too_long_is_none() -> None:
    """64 MiB: a hundred bytes for each of 600,000 tokens."""
    assert read_json(b"[" + b" " * 1000 + b"]") == []
    assert read_json(b"[" + b" " * 2**26 + b"]") is None
