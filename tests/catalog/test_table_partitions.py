"""Tables of several seeds lie side by side, and none of them gets lost."""

from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError

from aft.catalog.table_partitions import TablePartitionsDataset

TABLE = pd.DataFrame({"question_id": ["a", "b"], "score": [-0.5, -1.25]})


@pytest.fixture
def partitions(tmp_path: Path) -> TablePartitionsDataset:
    """What two runs wrote, each with an object of its own."""
    found = None
    for seed in (0, 1):
        found = TablePartitionsDataset(
            path=str(tmp_path / "predictions"), metadata={"kedro-viz": {"layer": "evaluated"}}
        )
        found.save({f"seed_{seed}": TABLE.assign(seed=seed)})
    assert found is not None
    return found


def test_partitions_of_several_runs_lie_side_by_side(tmp_path: Path, partitions: TablePartitionsDataset) -> None:
    """Neither what a killed run left half written nor a seal is a partition."""
    (tmp_path / "predictions" / ".seed_2.parquet.4242.partial").write_bytes(b"ha")
    loaded = {name: load() for name, load in partitions.load().items()}
    assert {name: table["seed"].unique().tolist() for name, table in loaded.items()} == {"seed_0": [0], "seed_1": [1]}


def test_a_run_that_was_removed_is_told(tmp_path: Path, partitions: TablePartitionsDataset) -> None:
    """Else the comparison would be one over fewer seeds, without a word."""
    (tmp_path / "predictions" / "seed_1.parquet").unlink()
    with pytest.raises(
        DatasetError, match=r"seed_1\.parquet is missing; run evaluate with --params=seed=1, which makes it"
    ):
        partitions.load()
    partitions.save({"seed_1": TABLE.assign(seed=1)})
    assert set(partitions.load()) == {"seed_0", "seed_1"}


def test_without_any_the_stage_that_makes_them_is_told(tmp_path: Path) -> None:
    nothing = TablePartitionsDataset(path=str(tmp_path / "none"), metadata={"kedro-viz": {"layer": "aligned"}})
    with pytest.raises(DatasetError, match=r"There is no table in .*none; run align_train, which makes it"):
        nothing.load()
