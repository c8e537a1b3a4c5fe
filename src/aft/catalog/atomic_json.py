"""JSON files that are whole and sealed, or absent: runs of several seeds may write and read the same one at once."""

from pathlib import Path
from typing import Any

from kedro_datasets.json import JSONDataset

from aft.catalog.stages import way_out
from aft.files import check_seal, json_text, write_sealed


class AtomicJSONDataset(JSONDataset):
    """`json.JSONDataset`, but the file is written beside its name, renamed and sealed."""

    def load(self) -> Any:
        """What was saved; raises `StoreError` if it is missing or not as it was written."""
        path = Path(self._get_load_path())
        check_seal(path, way_out(self.metadata, path))
        return super().load()

    def save(self, data: Any) -> None:
        """Write `data`; raises `StoreError` if the disk is full."""
        text = json_text(data)
        write_sealed(Path(self._get_save_path()), lambda staged: staged.write_text(text, encoding="utf-8"))
        self._invalidate_cache()
