"""Training examples in an Arrow file that all processes of a run map into memory, and of which each reads a batch."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple, get_type_hints
from uuid import uuid4

import numpy as np
import pyarrow as pa

from aft.errors import StoreError
from aft.files import write_atomically, writing
from aft.locks import lock_of, locked
from aft.training.examples import Example, Overview

_ROWS = 1024  # examples of a record batch
_NAME = "examples-"  # of the folders of `stored`
_TOKENS = pa.list_(pa.int32())
_TYPES = {str: pa.string(), Sequence[int]: _TOKENS, Sequence[Sequence[int]]: pa.list_(_TOKENS)}
_TYPES |= {Sequence[float]: pa.list_(pa.float64())}
_FIELDS = {one.name: _TYPES[get_type_hints(Example)[one.name]] for one in fields(Example)}
_SIZES = ("cost", "longest", "largest")
_SCHEMA = pa.schema([*_FIELDS.items(), *((name, pa.int32()) for name in _SIZES)])


class Sizes(NamedTuple):
    """What each of N examples takes, 4 bytes each."""

    cost_N: np.ndarray  # tokens that scoring its group reads
    longest_N: np.ndarray  # tokens of the prompt and the longest response
    largest_N: np.ndarray  # the largest token id


class StoredExamples(Sequence[Example]):
    """The examples in a file of `write_examples`, read one by one; no more of them is kept."""

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = range(self._file.num_record_batches)
        self._length = sum(self._file.get_batch(number).num_rows for number in batches)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        batch, row = divmod(range(len(self))[number], _ROWS)
        return Example(*(_plain(column[row]) for column in self._file.get_batch(batch).columns[: len(_FIELDS)]))

    def sizes(self) -> Sizes:
        """What each takes; no token is read."""
        batches = [self._file.get_batch(number) for number in range(self._file.num_record_batches)]
        columns = ([batch[name].to_numpy() for batch in batches] for name in _SIZES)
        return Sizes(*(np.concatenate([np.empty(0, np.int32), *parts]) for parts in columns))


def sizes_of(examples: Sequence[Example]) -> Sizes:
    """What each example takes, in a file or in memory."""
    if isinstance(examples, StoredExamples):
        return examples.sizes()
    return Sizes(*np.array([_sizes(example) for example in examples], np.int32).reshape(-1, len(_SIZES)).T)


def write_examples(path: Path, examples: Iterable[Example]) -> Overview:
    """Write examples into a file as they come, in the form that `StoredExamples` reads; what is told of them all."""
    overview = Overview()

    def write(staged: Path) -> None:
        with pa.OSFile(str(staged), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
            rows = ([*(getattr(one, name) for name in _FIELDS), *_sizes(one)] for one in overview.passing(examples))
            while some := list(islice(rows, _ROWS)):
                columns = zip(*some, strict=True)
                arrays = [pa.array(column, kind.type) for column, kind in zip(columns, _SCHEMA, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))

    write_atomically(path, write)
    return overview


@contextmanager
def stored(examples: Iterable[Example], folder: Path) -> Iterator[tuple[StoredExamples, Overview]]:
    """The examples in a file below `folder`, which is gone afterwards, and what is told of them all.

    What a killed process left of them is removed by the next one. Its lock tells that a process is at work.
    """
    for left in folder.glob(f".{_NAME}*.partial"):
        with suppress(StoreError), locked(_lock_of(left), patience=0):
            rmtree(left, ignore_errors=True)
            _lock_of(left).unlink(missing_ok=True)
    place = folder / f".{_NAME}{uuid4().hex}.partial"
    lock = _lock_of(place)
    with locked(lock):
        try:
            with writing(place):
                place.mkdir()
            path = place / "examples.arrow"
            overview = write_examples(path, examples)
            yield StoredExamples(path), overview
        finally:
            rmtree(place, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _lock_of(place: Path) -> Path:
    return lock_of(place.with_name(place.name.removeprefix(".").removesuffix(".partial")))


def _sizes(example: Example) -> tuple[int, int, int]:
    cost, responses = example.group.cost, (*example.targets, *example.candidates)
    longest = len(example.prompt) + max(map(len, responses), default=0)
    return cost, longest, max((*example.prompt, *map(max, responses)))


def _plain(value: Any) -> Any:
    """A value of Arrow's as Python has it; lists of numbers go through numpy, which is faster."""
    if not pa.types.is_list(value.type):
        return value.as_py()
    if pa.types.is_list(value.type.value_type):
        return [_plain(one) for one in value.values]
    return value.values.to_numpy().tolist()
