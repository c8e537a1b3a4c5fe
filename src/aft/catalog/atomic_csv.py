"""CSV tables that are whole and sealed, or absent."""

from pathlib import Path

import pandas as pd
from kedro_datasets.pandas import CSVDataset

from aft.catalog.stages import way_out
from aft.files import check_seal, write_sealed


class AtomicCSVDataset(CSVDataset):
    """`pandas.CSVDataset`, but the file is written beside its name, renamed and sealed."""

    def load(self) -> pd.DataFrame:
        """The table; raises `StoreError` if it is missing or not as it was written."""
        path = Path(self._get_load_path())
        check_seal(path, way_out(self.metadata, path))
        return super().load()

    def save(self, data: pd.DataFrame) -> None:
        """Write `data`; raises `StoreError` if the disk is full."""
        write_sealed(Path(self._get_save_path()), lambda staged: data.to_csv(staged, **self._save_args))
        self._invalidate_cache()
