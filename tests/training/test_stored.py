"""Examples in a file are those in memory, with the same fingerprint and the same sizes, and few of them are read."""

import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from aft.cache import find_entries, remove
from aft.errors import DataError, StoreError
from aft.files import digest
from aft.training import stored as module
from aft.training.examples import Example, Overview
from aft.training.stored import StoredExamples, sizes_of, stored, write_examples


def ragged(count: int) -> list[Example]:
    rng = random.Random(0)

    def tokens() -> list[int]:
        return [rng.randrange(100) for _ in range(rng.randint(1, 9))]

    examples = []
    for i in range(count):
        responses = [tokens() for _ in range(i % 4)]
        floats = [-0.1 * j - i / 3 for j in range(len(responses))]
        ranks = list(range(len(responses)))
        targets = [tokens()]
        unscored = [len(response) - 1 for response in (*targets, *responses)] if i % 3 else []
        examples.append(Example(f"q{i}", tokens(), targets, responses, ranks, floats, [], floats, floats, unscored))
    return examples


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 4)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_what_is_stored_is_what_was_given(count: int, tmp_path: Path) -> None:
    """Float by float: training reads them."""
    given = ragged(count)
    overview = write_examples(tmp_path / "x.arrow", iter(given))
    read = StoredExamples(tmp_path / "x.arrow")
    assert list(read) == given and read[1:9:2] == given[1:9:2] and len(read) == count
    assert overview.fingerprint == Overview(given).fingerprint == Overview(read).fingerprint
    assert (overview.examples, overview.questions, overview.has_candidates) == (count, count, count > 1)
    for one, other in zip(sizes_of(read), sizes_of(given), strict=True):
        assert one.tolist() == other.tolist() and one.dtype.itemsize == 4
    assert sizes_of(read).cost_N.tolist() == [example.group.cost for example in given]
    with pytest.raises(IndexError):
        read[count]


def test_the_fingerprint_is_that_of_the_list_as_a_whole() -> None:
    """Models that were trained before are found."""
    names = ("question_id", "prompt", "targets", "candidates", "ranks")
    names += ("ratings", "reference_scores", "rewards", "behaviour_scores")
    for count in (0, 1, 3):
        given = [replace(one, unscored=()) for one in ragged(count)]
        rows = [[getattr(one, name) for name in names] for one in given]
        assert Overview(given).fingerprint == digest(rows)
    assert Overview(ragged(3)).fingerprint != digest(rows), "tokens that are read only count as well"


def test_the_file_is_gone_afterwards_and_cleaning_the_cache_leaves_it_alone_until_then(tmp_path: Path) -> None:
    with stored(ragged(2), tmp_path) as (examples, _):
        (entry,) = find_entries(tmp_path, [])
        assert entry.state == "unfinished" and len(examples) == 2
        with pytest.raises(StoreError, match="Another run is making"):
            remove(entry)
        assert len(list(examples)) == 2
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="without tokens"), stored([Example("q", [], [[1]])], tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_one_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".examples-0123.partial"
    left.mkdir()
    (left / "examples.arrow").write_bytes(b"half")
    with stored(ragged(2), tmp_path) as (one, _), stored(ragged(3), tmp_path) as (other, _):
        assert not left.exists() and (len(list(one)), len(list(other))) == (2, 3)
        assert len(find_entries(tmp_path, [])) == 2


def test_a_full_disk_is_one_sentence(tmp_path: Path, limit_file_size) -> None:
    with limit_file_size(10_000), pytest.raises(StoreError, match="disk is full"):
        write_examples(tmp_path / "x.arrow", ragged(3000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_batches")
def test_neither_writing_nor_reading_takes_memory_that_grows_with_the_file(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        given = (Example(f"q{i}", [1] * 9, [[2] * 9], [[3] * 9] * 4, [0] * 4) for i in range(count))
        write_examples(tmp_path / "x.arrow", given)
        examples = StoredExamples(tmp_path / "x.arrow")
        assert all(examples[number].prompt for number in range(0, count, 7))
        taken = tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes()
        tracemalloc.stop()
        return taken

    peak(10)
    assert peak(2_000) < peak(500) + 200_000, "the tokens of 1,500 examples more take 4 MB as lists"
