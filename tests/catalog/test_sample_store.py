"""The catalog's list of shards: exactly what was sampled is loaded, from wherever the data folder lies."""

import json
from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError

from aft.catalog.sample_store import SampleStoreDataset
from aft.files import hash_file
from aft.shards import Shards, ShardStore, encode


def rows(content: str) -> pd.DataFrame:
    return pd.DataFrame({"question_id": [f"{content}/0", f"{content}/1"], "token_ids": [[1, 2], [3]]})


def sampled(root: Path, contents: str = "ba") -> list[Path]:
    return ShardStore(root, {"seed": 1}).fill(
        contents, lambda missing: ((number, encode(rows(contents[number]))) for number in missing)
    )


@pytest.fixture
def dataset(tmp_path: Path) -> SampleStoreDataset:
    metadata = {"kedro-viz": {"layer": "sampled"}}
    return SampleStoreDataset(filepath=str(tmp_path / "data" / "04_feature" / "candidates.json"), metadata=metadata)


def test_rows_come_in_the_order_of_the_shards(tmp_path: Path, dataset: SampleStoreDataset) -> None:
    dataset.save(Shards(sampled(tmp_path / "data" / "store")))
    table = dataset.load().table()
    assert table["question_id"].tolist() == ["b/0", "b/1", "a/0", "a/1"]
    assert table.index.tolist() == [0, 1, 2, 3]
    assert [list(ids) for ids in table["token_ids"]] == [[1, 2], [3], [1, 2], [3]]


def test_nothing_sampled_is_told(dataset: SampleStoreDataset) -> None:
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="is missing; run sample_cots, which makes it"):
        dataset.load()
    dataset.save(Shards())  # there was no question to answer
    assert dataset.load().table().empty


@pytest.mark.parametrize("damage", ["removed", "changed", "another of the same name"])
def test_only_the_very_shards_that_were_listed_are_loaded(
    tmp_path: Path, dataset: SampleStoreDataset, damage: str
) -> None:
    """The last case is a store that was made anew with other content: whole, but not what the list was made of."""
    shards = sampled(tmp_path / "data" / "store")
    dataset.save(Shards(shards))
    if damage == "removed":
        shards[1].unlink()
    elif damage == "changed":
        shards[1].write_bytes(shards[1].read_bytes()[:-1])
    else:
        rows("x").to_parquet(shards[1], index=False)
        shards[1].with_suffix(".json").write_text(
            json.dumps({"sha256": hash_file(shards[1]), "rows": 2}), encoding="utf-8"
        )
    with pytest.raises(DatasetError, match=rf"missing or changed.*{shards[1].name}.*run sample_cots"):
        dataset.load()


def test_the_data_folder_may_be_moved(tmp_path: Path, dataset: SampleStoreDataset) -> None:
    dataset.save(Shards(sampled(tmp_path / "data" / "store")))
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    moved = SampleStoreDataset(filepath=str(tmp_path / "elsewhere" / "04_feature" / "candidates.json"))
    assert len(moved.load().table()) == 4


@pytest.mark.parametrize("linked", ["store", "04_feature"])
def test_a_layer_may_lie_on_another_disk(tmp_path: Path, dataset: SampleStoreDataset, linked: str) -> None:
    """A folder that is a symbolic link: `..` from its inside does not lead back to the data folder."""
    target = tmp_path / "scratch" / "deep" / linked
    target.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / linked).symlink_to(target)
    dataset.save(Shards(sampled(tmp_path / "data" / "store")))
    assert len(dataset.load().table()) == 4
