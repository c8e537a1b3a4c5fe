"""Parquet tables are whole or absent, and lie in partitions like any others."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError
from kedro_datasets.partitions import PartitionedDataset

from aft.catalog.atomic_parquet import AtomicParquetDataset

TABLE = pd.DataFrame({"question_id": ["a", "b"], "score": [-0.5, -1.25], "token_ids": [[1, 2], [3]]})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    dataset = AtomicParquetDataset(filepath=str(tmp_path / "new" / "table.parquet"))
    assert not dataset.exists()
    dataset.save(TABLE)
    assert dataset.exists()
    loaded = dataset.load()
    pd.testing.assert_frame_equal(loaded[["question_id", "score"]], TABLE[["question_id", "score"]])
    assert [list(ids) for ids in loaded["token_ids"]] == [[1, 2], [3]]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["table.parquet"]


def test_save_arguments_are_heeded(tmp_path: Path) -> None:
    dataset = AtomicParquetDataset(filepath=str(tmp_path / "table.parquet"), save_args={"index": True})
    dataset.save(TABLE.set_index("question_id"))
    assert dataset.load().index.tolist() == ["a", "b"]


def test_a_failed_save_leaves_the_old_table(
    tmp_path: Path, limit_file_size: Callable[[int], AbstractContextManager[None]]
) -> None:
    dataset = AtomicParquetDataset(filepath=str(tmp_path / "table.parquet"))
    dataset.save(TABLE)
    with limit_file_size(20_000), pytest.raises(DatasetError, match="disk is full"):
        dataset.save(pd.DataFrame({"text": [f"{i:050d}" for i in range(5000)]}))
    assert len(dataset.load()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_partitions_of_several_runs_lie_side_by_side(tmp_path: Path) -> None:
    """Each run saves its own; what a killed run left half written is no partition."""
    (tmp_path / ".seed_2.parquet.4242.partial").write_bytes(b"ha")
    for seed in (0, 1):
        partitions = PartitionedDataset(
            path=str(tmp_path),
            dataset={"type": AtomicParquetDataset},
            filename_suffix=".parquet",
        )
        partitions.save({f"seed_{seed}": TABLE.assign(seed=seed)})
    loaded = {name: load() for name, load in partitions.load().items()}
    assert {name: table["seed"].unique().tolist() for name, table in loaded.items()} == {"seed_0": [0], "seed_1": [1]}
