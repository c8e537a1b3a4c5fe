"""Parquet tables are whole or absent."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError

from aft.catalog.atomic import AtomicParquetDataset

TABLE = pd.DataFrame({"question_id": ["a", "b"], "score": [-0.5, -1.25], "token_ids": [[1, 2], [3]]})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    dataset = AtomicParquetDataset(filepath=str(tmp_path / "new" / "table.parquet"))
    assert not dataset.exists()
    dataset.save(TABLE)
    assert dataset.exists()
    loaded = dataset.load()
    pd.testing.assert_frame_equal(loaded[["question_id", "score"]], TABLE[["question_id", "score"]])
    assert [list(ids) for ids in loaded["token_ids"]] == [[1, 2], [3]]
    assert [path.name for path in (tmp_path / "new").iterdir() if path.name[0] != "."] == ["table.parquet"]


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
    assert {path.name for path in tmp_path.iterdir()} == {"table.parquet", ".table.parquet.sha256", ".lock"}
