"""JSON files that are whole or absent: runs of several seeds may write and read the same one at once."""

from pathlib import Path
from typing import Any

from kedro_datasets.json import JSONDataset

from aft.files import write_json


class AtomicJSONDataset(JSONDataset):
    """`json.JSONDataset`, but the file is written beside its name and renamed."""

    def save(self, data: Any) -> None:
        """Write `data`; raises `StoreError` if the disk is full."""
        write_json(Path(self._get_save_path()), data)
        self._invalidate_cache()
