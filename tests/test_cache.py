"""What may go of what is kept: what was abandoned is named, what anything names stays."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.cache import Entry, find_entries, refuse_shared, refuse_while_running, remove
from aft.catalog.sample_store import SampleStoreDataset
from aft.directories import build_once, finish_directory, remembered
from aft.errors import StoreError
from aft.files import write_json
from aft.locks import LOCKS, lock_of, locked
from aft.models.directory import ModelDirectory, open_model
from aft.models.publish import publish, standing_for
from aft.sealed import write_sealed
from aft.shards import Shards, ShardStore, encode


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def caches(data: Path) -> list[Path]:
    return [data / "06_models/cache", data / "04_feature/cache", data / "05_model_input/cache"]


def found(data: Path, caches: list[Path]) -> dict[str, Entry]:
    return {str(entry.path.relative_to(data)): entry for entry in find_entries(data, caches)}


def cached_model(cache: Path, pocket_directory: ModelDirectory, name: str) -> ModelDirectory:
    def build(directory: Path) -> None:
        for path in pocket_directory.path.iterdir():
            (directory / path.name).write_bytes(path.read_bytes())

    return open_model(build_once(cache, {"kind": f"model {name}"}, build))


def sampled(cache: Path, seed: int) -> list[Path]:
    rows = encode(pd.DataFrame({"question_id": ["a"], "token_ids": [[1, 2]]}))
    return ShardStore(cache, {"kind": "samples", "seed": seed}).fill(
        ["x"], lambda missing: ((i, rows) for i in missing)
    )


@pytest.mark.parametrize("linked", ["hard", "symbolic"])
def test_a_model_that_is_published_is_used_and_another_is_not(
    linked: str, data: Path, caches: list[Path], pocket_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links are symbolic where the cache lies on another disk: without the cached files nothing would be left."""
    if linked == "symbolic":
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("another disk")))
    one, other = (cached_model(caches[0], pocket_directory, name) for name in ("one", "other"))
    publish(one, data / "06_models/pocket/seed_0/vft")
    states = {entry.kind: entry.state for entry in find_entries(data, caches)}
    assert states == {"model one": "used", "model other": "unused"}
    remove(found(data, caches)[str(other.path.relative_to(data))])
    assert not other.path.exists()
    assert open_model(data / "06_models/pocket/seed_0/vft").fingerprint == one.fingerprint


def test_files_that_stand_for_those_of_another_model_are_counted_once(
    data: Path, caches: list[Path], pocket_directory: ModelDirectory
) -> None:
    """The room that both take is that of the older one, and a manifest."""
    alone = cached_model(caches[0], pocket_directory, "one")
    (entry,) = find_entries(data, caches)
    other = standing_for(alone, {"term": "aft"}, caches[0])
    first, second = find_entries(data, caches)
    sizes = {first.path: first.size, second.path: second.size}
    assert sum(sizes.values()) == entry.size + (other.path / "manifest.json").stat().st_size


def test_what_is_remembered_is_listed_by_its_kind_and_may_go(data: Path, caches: list[Path]) -> None:
    remembered(caches[0], {"kind": "figures of a variant"}, lambda: {"accuracy": 0.5})
    (entry,) = find_entries(data, caches)
    assert (entry.kind, entry.state) == ("figures of a variant", "unused")
    remove(entry)
    assert find_entries(data, caches) == []


def test_shards_that_a_list_names_are_used(data: Path, caches: list[Path]) -> None:
    shards = [sampled(caches[1], seed) for seed in (0, 1)]
    dataset = SampleStoreDataset(filepath=str(data / "04_feature/pocket/seed_0/candidates.json"))
    dataset.save(Shards(shards[0]))
    states = {entry.path: (entry.kind, entry.state) for entry in find_entries(data, caches)}
    assert states == {shards[0][0].parent: ("samples", "used"), shards[1][0].parent: ("samples", "unused")}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:20],
        lambda text: "",
        lambda text: "{}",
        lambda text: text.replace("shards", "chards"),
        lambda text: text.replace("../", "./", 1),
        lambda text: None,
    ],
    ids=["cut", "empty", "another", "a letter of its key", "a path", "gone"],
)
def test_a_damaged_list_of_shards_is_told(damage: Callable[[str], str | None], data: Path, caches: list[Path]) -> None:
    """Else all that it names would be taken for unused."""
    listed = data / "04_feature/pocket/seed_0/candidates.json"
    SampleStoreDataset(filepath=str(listed)).save(Shards(sampled(caches[1], 0)))
    text = damage(listed.read_text(encoding="utf-8"))
    listed.unlink() if text is None else listed.write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=r"candidates\.json (has changed|is missing).* name samples that are in use"):
        find_entries(data, caches)


@pytest.mark.parametrize("content", ['{"shards": [{"pa', '{"shards": 3}', '["shards"]', '{"shards": [{"path": 1}]}'])
def test_files_of_others_that_speak_of_shards_are_left_alone(content: str, data: Path, caches: list[Path]) -> None:
    """Whoever put it there did not write it with a seal: it is no list of ours, and nobody is told to delete it."""
    sampled(caches[1], 0)
    (data / "01_raw").mkdir(parents=True)
    (data / "01_raw/mine.json").write_text(content, encoding="utf-8")
    assert [entry.state for entry in find_entries(data, caches)] == ["unused"]


def test_sealed_files_that_are_no_lists_name_nothing(data: Path, caches: list[Path]) -> None:
    sampled(caches[1], 0)
    for number, content in enumerate(("{}", "[1]", '{"shards": 3}', '{"shards": [3]}')):
        path = data / f"08_reporting/{number}.json"
        write_sealed(path, lambda staged, content=content: staged.write_text(content, encoding="utf-8"))
    assert [entry.state for entry in find_entries(data, caches)] == ["unused"]


@pytest.mark.parametrize("name", ["comparison.csv", "cache/0123456789abcdef/0.parquet"])
def test_what_a_running_process_removes_meanwhile_is_no_obstacle(
    name: str, data: Path, caches: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is gone when it is looked at again: that it was there a moment ago says nothing."""
    write_json(caches[1] / "0123456789abcdef/description.json", {"kind": "samples"})
    vanishing, look = data / "04_feature" / name, Path.stat
    vanishing.write_bytes(b"")

    def stat(path: Path, **how: Any) -> os.stat_result:
        found = look(path, **how)
        if path == vanishing:
            path.unlink()
        return found

    monkeypatch.setattr(Path, "stat", stat)
    assert [entry.kind for entry in find_entries(data, caches)] == ["samples"]


def test_a_cache_outside_the_data_folder_may_be_in_use_elsewhere(data: Path, caches: list[Path]) -> None:
    """Also one that a link leads to: it lies on the disk that has room for it, where another project finds it, too."""
    outside = data.parent / "shared"
    for folder in (outside, *caches[:2]):
        folder.mkdir(parents=True)
    refuse_shared(data, caches)
    caches[2].parent.mkdir(parents=True)
    caches[2].symlink_to(outside)
    for cache in (outside, caches[2]):
        with pytest.raises(StoreError, match="lies outside the data folder"):
            refuse_shared(data, [*caches[:2], cache])


def test_ratings_are_never_unused(data: Path, caches: list[Path]) -> None:
    write_json(caches[2] / ("0" * 16) / "description.json", {"kind": "ratings"})
    assert [(entry.kind, entry.state) for entry in find_entries(data, caches)] == [("ratings", "used")]


def test_what_a_killed_run_left_is_named_by_what_it_was_to_be(
    data: Path, caches: list[Path], start_python: Callable[..., Any]
) -> None:
    code = """
import os, sys
from pathlib import Path
from aft.directories import build_once
def build(directory):
    (directory / "checkpoint").write_bytes(bytes(1000))
    os.kill(os.getpid(), 9)
build_once(Path(sys.argv[1]), {"kind": "pocket base model"}, build)
"""
    assert start_python(code, caches[0]).wait() == -signal.SIGKILL
    (entry,) = find_entries(data, caches)
    assert (entry.kind, entry.state) == ("pocket base model", "unfinished")
    assert 1000 < entry.size < 2000 and 0 <= entry.age_s < 600
    remove(entry)
    assert find_entries(data, caches) == []


def test_what_publishing_left_is_found_wherever_it_lies(data: Path, caches: list[Path]) -> None:
    for name in (".vft.partial", ".vft.replaced"):
        (data / "06_models/pocket/seed_0" / name).mkdir(parents=True)
    assert set(found(data, caches)) == {f"06_models/pocket/seed_0/.vft.{kind}" for kind in ("partial", "replaced")}
    assert {entry.state for entry in find_entries(data, caches)} == {"unfinished"}


def test_what_a_running_process_makes_is_left_alone(data: Path, caches: list[Path]) -> None:
    def build(directory: Path) -> None:
        (entry,) = find_entries(data, caches)
        with pytest.raises(StoreError, match="Another run is making the pocket base model"):
            remove(entry)
        assert directory.is_dir()

    build_once(caches[0], {"kind": "pocket base model"}, build)


@pytest.mark.parametrize("name", ["mine", "0123456789abcdef"])
def test_folders_of_others_are_no_entries(name: str, data: Path, caches: list[Path]) -> None:
    """A cache may be set to a folder that holds other things."""
    (caches[0] / name).mkdir(parents=True)
    (caches[0] / name / "thesis.tex").write_text("mine", encoding="utf-8")
    assert find_entries(data, caches) == []


def test_a_folder_that_is_linked_in_a_circle_is_walked_once(data: Path, caches: list[Path]) -> None:
    staged = data / "staged"
    staged.mkdir(parents=True)
    caches[0].mkdir(parents=True)
    finish_directory(staged, caches[0] / ("1" * 16), {"kind": "model"})
    (data / "06_models/again").symlink_to(data)
    assert [entry.kind for entry in find_entries(data, caches)] == ["model"]


def test_while_a_run_goes_on_nobody_knows_what_it_will_name(data: Path) -> None:
    refuse_while_running(data)
    with locked(data / LOCKS / "a.lock"), pytest.raises(StoreError, match="Another run"):
        refuse_while_running(data)
    refuse_while_running(data)


def test_a_store_that_is_being_filled_is_left_alone(data: Path, caches: list[Path]) -> None:
    (shard,) = sampled(caches[1], 0)
    (entry,) = find_entries(data, caches)
    with locked(lock_of(shard.parent)), pytest.raises(StoreError, match="Another run"):
        remove(entry)
    assert json.loads((shard.parent / "description.json").read_text(encoding="utf-8"))["seed"] == 0
