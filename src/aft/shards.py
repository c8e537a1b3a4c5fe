"""Long tables in shards: Parquet files with the rows of a block of questions each, in a store that is only added to.

    <store>/<key>/description.json        what all its shards are made from, as a model; the key is its hash
    <store>/<key>/<block>-<hash>.parquet  one block's rows; the name carries the hash of what the block is made from

A shard is written beside its name, synced and renamed, with the hash of its bytes in a small file next to it. A rerun
finds the finished shards and makes the others; shards of other settings, models or questions are never mixed in.
"""

import json
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft.code import load_rooms, source_hash
from aft.directories import Description, announce, remove_leftovers
from aft.errors import StoreError
from aft.files import digest, hash_file, write_atomically, write_json
from aft.locks import lock_of, locked

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Make = Callable[[Sequence[int]], Generator[tuple[int, bytes], None, None]]
"""Makes the blocks of these numbers: number and bytes (`encode`) of each as it is finished, in any order."""


@dataclass(frozen=True, slots=True)
class Shards:
    """A handle on the shards of a table, whole questions in each; one of them is in memory at a time."""

    paths: Sequence[Path] = ()

    def __iter__(self) -> "Iterator[pd.DataFrame]":
        """The rows of each shard; raises `StoreError` for one that was lost or damaged since it was found."""
        return map(_read, self.paths)

    def column(self, name: str) -> "pd.Series":
        """One column of all rows; the others are not read."""
        import pandas as pd

        return pd.concat((_read(path, [name])[name] for path in self.paths), ignore_index=True)

    def table(self) -> "pd.DataFrame":
        """All rows, where they are few."""
        import pandas as pd

        return pd.concat(self, ignore_index=True) if self.paths else pd.DataFrame()


@contextmanager
def _reading(shard: Path) -> Iterator[None]:
    """Name a shard that was lost or damaged since it was found."""
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ArrowException) as error:
        raise StoreError(f"The shard {shard} is missing or damaged: run the stage that makes it again.") from error


def _read(shard: Path, columns: list[str] | None = None) -> "pd.DataFrame":
    import pandas as pd

    with _reading(shard):
        return pd.read_parquet(shard, columns=columns)


def n_rows(shard: Path) -> int:
    """How many rows a shard has; they are not read. Raises `StoreError` for one that was lost or damaged."""
    from pyarrow.parquet import read_metadata

    with _reading(shard):
        return read_metadata(shard).num_rows


def attributes(shard: Path) -> dict[str, Any]:
    """What the rows of a shard had in `DataFrame.attrs` when they were encoded; they are not read."""
    from pyarrow.parquet import read_schema

    with _reading(shard):
        return json.loads((read_schema(shard).metadata or {}).get(b"PANDAS_ATTRS", b"{}"))


class ShardStore:
    """The shards that are made from one `description` and the code of the rooms that decide their rows."""

    def __init__(self, root: Path, description: Description, *rooms: str) -> None:
        self.rooms = rooms
        self.description = {"code": source_hash(*rooms), **description}
        self.directory = root / digest(self.description)

    def fill(
        self, contents: Sequence[str], make: Make, report: Callable[[int], object] = lambda finished: None
    ) -> list[Path]:
        """Make the shard of every block that is not finished yet; the shards of all blocks, in their order.

        A block is known by the hash of what it is made from. `make` gets the numbers of those to be made, and each is
        written as soon as it comes; it is not called if there are none. `report` hears how many are finished. Raises
        `StoreError` if the disk is full, or the code is not that in memory (see `aft.code.load_rooms`). Another run
        that fills the store is waited for.
        """
        shards = [self.directory / f"{i:05d}-{content}.parquet" for i, content in enumerate(contents)]
        if not all(shard.is_file() for shard in shards):
            announce()
        with locked(lock_of(self.directory), f"the {self.description.get('kind', 'shards')} in {self.directory}"):
            remove_leftovers(self.directory)
            write_json(self.directory / "description.json", self.description)
            missing = [i for i, shard in enumerate(shards) if not is_finished(shard)]
            finished = len(shards) - len(missing)
            report(finished)
            if missing:
                load_rooms(*self.rooms)
                with closing(make(missing)) as made:  # at once when writing fails: there may be workers to dismiss
                    for number, content in made:
                        _write(shards[number], content)
                        finished += 1
                        report(finished)
        return shards


def encode(rows: "pd.DataFrame") -> bytes:
    """The bytes of a block's shard."""
    return rows.to_parquet(index=False)


def is_finished(shard: Path) -> bool:
    """Whether a shard is there and has the bytes that its seal names; a damaged one is logged and counts as missing."""
    if not shard.is_file() or not _seal(shard).is_file():
        return False
    try:
        expected = json.loads(_seal(shard).read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError):
        expected = None
    if hash_file(shard) == expected:
        return True
    logger.warning("The shard %s is damaged and is made anew.", shard.name)
    return False


def _write(shard: Path, content: bytes) -> None:
    write_atomically(shard, lambda staged: staged.write_bytes(content))
    write_json(_seal(shard), {"sha256": hash_file(shard), "rows": n_rows(shard)})


def _seal(shard: Path) -> Path:
    return shard.with_suffix(".json")
