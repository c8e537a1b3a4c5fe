"""Parquet tables that are whole or absent, and the list of those that several runs wrote side by side."""

from pathlib import Path

import pandas as pd
from kedro_datasets.pandas import ParquetDataset

from aft.files import write_atomically


class AtomicParquetDataset(ParquetDataset):
    """`pandas.ParquetDataset`, but a file is written beside its name and renamed: a killed run leaves no half table."""

    def save(self, data: pd.DataFrame) -> None:
        """Write `data`; raises `StoreError` if the disk is full."""
        write_atomically(Path(self._get_save_path()), lambda staged: data.to_parquet(staged, **self._save_args))
        self._invalidate_cache()
