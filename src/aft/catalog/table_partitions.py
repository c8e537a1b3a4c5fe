"""Tables of several runs side by side: each run writes its own, and those of all runs are loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from kedro_datasets.partitions import PartitionedDataset

from aft.catalog.atomic import AtomicParquetDataset
from aft.catalog.stages import way_out
from aft.errors import StoreError
from aft.sealed import lost_files


class TablePartitionsDataset(PartitionedDataset):
    """`partitions.PartitionedDataset` of Parquet tables with a seal; one that has disappeared is an error, too."""

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(
            path=path,
            dataset={"type": AtomicParquetDataset, "metadata": metadata},
            filename_suffix=".parquet",
            metadata=metadata,
        )
        self._directory = Path(path)

    def load(self) -> dict[str, Callable[[], pd.DataFrame]]:
        """The functions that load the tables, by name; raises `StoreError` if there are none, or one was removed.

        They raise `StoreError` for a table that is not as it was written.
        """
        lost = lost_files(self._directory)
        if lost:
            raise StoreError(f"{lost[0]} is missing; {way_out(self.metadata, lost[0])}.")
        if not any(self._directory.glob("*.parquet")):
            raise StoreError(f"There is no table in {self._directory}; {way_out(self.metadata, self._directory)}.")
        return super().load()
