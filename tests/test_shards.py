"""The store makes every shard once, keeps it through `kill -9`, remakes what is damaged and mixes nothing."""

import json
import logging
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.code import source_hash
from aft.errors import StoreError
from aft.locks import lock_of, locked
from aft.sampling.settings import ROOMS
from aft.shards import Shards, ShardStore, attributes, encode, is_finished, n_rows

Start = Callable[..., "subprocess.Popen[str]"]
Block = tuple[str, Callable[[], pd.DataFrame]]
DESCRIPTION = {"model": "abc", "seed": 1}


class Maker:
    """Blocks of two rows each, and a list of those that were made."""

    def __init__(self, contents: str = "abc") -> None:
        self.made: list[str] = []
        self.blocks: list[Block] = [(content, lambda content=content: self._make(content)) for content in contents]

    def _make(self, content: str) -> pd.DataFrame:
        self.made.append(content)
        return pd.DataFrame({"question_id": [f"{content}/0", f"{content}/1"], "token_ids": [[1, 2], [3]]})


def fill(store: ShardStore, blocks: Sequence[Block], **options: Any) -> list[Path]:
    """Fill a store with blocks that are made one after the other."""

    def make(missing: Sequence[int]) -> Generator[tuple[int, bytes], None, None]:
        yield from ((number, encode(blocks[number][1]())) for number in missing)

    return store.fill([content for content, _ in blocks], make, **options)


def bytes_of(shards: list[Path]) -> list[bytes]:
    return [shard.read_bytes() for shard in shards]


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    return ShardStore(tmp_path / "store", DESCRIPTION, *ROOMS)


def test_every_block_is_made_once_and_in_order(store: ShardStore) -> None:
    maker, again, heard = Maker(), Maker(), []
    shards = fill(store, maker.blocks, report=heard.append)
    assert maker.made == ["a", "b", "c"] and heard == [0, 1, 2, 3]
    assert [pd.read_parquet(shard)["question_id"][0] for shard in shards] == ["a/0", "b/0", "c/0"]
    assert fill(store, again.blocks) == shards
    assert again.made == []


def test_blocks_come_in_any_order_and_those_that_came_stay(store: ShardStore) -> None:
    """The third and the first arrive, then the maker fails: it is told that nobody listens, and only `b` is made."""
    maker, closed = Maker(), []

    def make(missing: Sequence[int]) -> Generator[tuple[int, bytes], None, None]:
        assert missing == [0, 1, 2]
        try:
            yield from ((number, encode(maker.blocks[number][1]())) for number in (2, 0))
            raise ArithmeticError("not finite")
        finally:
            closed.append(True)

    with pytest.raises(ArithmeticError):
        store.fill(list("abc"), make)
    again = Maker()
    shards = fill(store, again.blocks)
    assert again.made == ["b"] and closed == [True]
    assert [pd.read_parquet(shard)["question_id"][0] for shard in shards] == ["a/0", "b/0", "c/0"]


def test_the_folder_says_what_its_shards_are_made_from(store: ShardStore) -> None:
    fill(store, Maker().blocks)
    told = json.loads((store.directory / "description.json").read_text(encoding="utf-8"))
    assert told == {**DESCRIPTION, "code": source_hash(*ROOMS)}


def test_code_that_was_edited_since_it_was_imported_draws_nothing(
    store: ShardStore, edit_file: Callable[[str], None]
) -> None:
    """What is finished is found all the same."""
    maker = Maker()
    shards = fill(store, maker.blocks[:1])
    edit_file("sampling/engine.py")
    assert fill(store, maker.blocks[:1]) == shards
    with pytest.raises(StoreError, match=r"changed since this run began \(aft/sampling/engine.py\)"):
        fill(store, maker.blocks)
    assert maker.made == ["a"]


def test_a_failing_block_costs_only_itself(store: ShardStore) -> None:
    maker = Maker()

    def fails() -> pd.DataFrame:
        raise ArithmeticError("not finite")

    with pytest.raises(ArithmeticError):
        fill(store, [*maker.blocks[:2], ("c", fails)])
    again = Maker()
    fill(store, again.blocks)  # the lock is free
    assert again.made == ["c"]


@pytest.mark.parametrize(
    "damage",
    [
        *("flip", "truncate", "remove", "seal removed", "seal of another", "seal is no JSON", "seal is a list"),
        "seal is empty",
    ],
)
def test_a_damaged_shard_is_made_anew(store: ShardStore, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    shards = fill(store, Maker().blocks)
    before = bytes_of(shards)
    shard, seal = shards[1], shards[1].with_suffix(".json")
    if damage == "flip":
        content = bytearray(before[1])
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "truncate":
        shard.write_bytes(before[1][:-10])
    elif damage.endswith("removed") or damage == "remove":
        (seal if "seal" in damage else shard).unlink()
    else:
        texts = {"seal of another": shards[0].with_suffix(".json").read_text(encoding="utf-8"), "seal is a list": "[1]"}
        seal.write_text(texts.get(damage, "{" if damage == "seal is no JSON" else ""), encoding="utf-8")
    maker = Maker()
    with caplog.at_level(logging.WARNING):
        assert fill(store, maker.blocks) == shards
    assert maker.made == ["b"]
    assert bytes_of(shards) == before
    assert all(map(is_finished, shards))
    assert ("damaged" in caplog.text) == ("remove" not in damage)  # what is only missing is no damage


@pytest.mark.parametrize("moment", ["in make", "in the shard", "before the seal", "in the seal"])
def test_kill_9_at_any_moment_costs_one_block(
    tmp_path: Path, store: ShardStore, start_python: Start, moment: str
) -> None:
    code = """
import os, sys
from pathlib import Path
import pandas as pd
from aft import shards as module
from aft.sampling.settings import ROOMS
moment, root = sys.argv[1], Path(sys.argv[2])
kill = lambda *args: os.kill(os.getpid(), 9)
def make(content):
    if content == "b":
        if moment == "in make":
            kill()
        if moment == "in the shard":
            Path.write_bytes = lambda path, content: (path.open("wb").write(content[:100]), kill())
        if moment == "before the seal":
            module.write_json = kill
        if moment == "in the seal":
            Path.write_text = lambda path, text, encoding: (path.open("w").write(text[:5]), kill())
    return pd.DataFrame({"question_id": [f"{content}/0", f"{content}/1"], "token_ids": [[1, 2], [3]]})
store = module.ShardStore(root, {"model": "abc", "seed": 1}, *ROOMS)
store.fill(list("abc"), lambda missing: ((number, module.encode(make("abc"[number]))) for number in missing))
"""
    assert start_python(code, moment, store.directory.parent).wait() == -signal.SIGKILL
    maker = Maker()
    shards = fill(store, maker.blocks)
    assert maker.made == ["b", "c"]
    assert bytes_of(shards) == bytes_of(
        fill(ShardStore(tmp_path / "uninterrupted", DESCRIPTION, *ROOMS), Maker().blocks)
    )
    assert not list(store.directory.glob(".*.partial"))


def test_other_descriptions_and_contents_never_mix(tmp_path: Path, store: ShardStore) -> None:
    shards = fill(store, Maker().blocks)
    before = bytes_of(shards)
    for description in ({**DESCRIPTION, "seed": 2}, {**DESCRIPTION, "model": "abd"}, {**DESCRIPTION, "k": 1}):
        maker = Maker()
        others = fill(ShardStore(store.directory.parent, description, *ROOMS), maker.blocks)
        assert maker.made == ["a", "b", "c"] and not set(others) & set(shards)
    maker = Maker("axc")
    others = fill(store, maker.blocks)
    assert maker.made == ["x"] and others[1] not in shards and others[::2] == shards[::2]
    assert bytes_of(shards) == before  # append-only: what was there is still there


def test_the_order_of_the_description_does_not_matter(store: ShardStore) -> None:
    assert ShardStore(store.directory.parent, {"seed": 1, "model": "abc"}, *ROOMS).directory == store.directory


@pytest.mark.usefixtures("impatient")
def test_a_second_run_never_fills_the_same_store(store: ShardStore) -> None:
    store.directory.mkdir(parents=True)
    maker = Maker()
    with locked(lock_of(store.directory)), pytest.raises(StoreError, match="Another run"):
        fill(store, maker.blocks)
    assert maker.made == []


def test_a_full_disk_is_one_sentence_and_finished_shards_stay(
    store: ShardStore, limit_file_size: Callable[[int], AbstractContextManager[None]]
) -> None:
    maker = Maker("a")
    large = pd.DataFrame({"text": [f"{i:050d}" for i in range(5000)]})
    with limit_file_size(20_000), pytest.raises(StoreError, match="disk is full") as caught:
        fill(store, [*maker.blocks, ("b", lambda: large)])
    assert "\n" not in str(caught.value)
    again = Maker("a")
    fill(store, again.blocks)
    assert again.made == []
    assert not list(store.directory.glob(".*.partial"))


def flip(shard: Path) -> None:
    """Eight bytes of the first page, whose footer is whole."""
    content = bytearray(shard.read_bytes())
    content[20:28] = bytes(byte ^ 0xFF for byte in content[20:28])
    shard.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, lambda shard: shard.write_bytes(shard.read_bytes()[:-40]), flip])
def test_a_shard_that_is_lost_or_torn_while_it_is_read_is_named(
    store: ShardStore, damage: Callable[[Path], object]
) -> None:
    shards = fill(store, Maker().blocks)
    read = iter(Shards(shards))
    assert len(next(read)) == 2
    damage(shards[1])
    with pytest.raises(StoreError, match=f"The shard .*{shards[1].name} is missing or damaged"):
        next(read)


@pytest.mark.parametrize("of", [n_rows, attributes])
def test_so_is_one_whose_rows_or_attributes_are_asked_for(store: ShardStore, of: Callable[[Path], object]) -> None:
    shards = fill(store, Maker().blocks)
    shards[0].write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=f"The shard .*{shards[0].name} is missing or damaged"):
        of(shards[0])
