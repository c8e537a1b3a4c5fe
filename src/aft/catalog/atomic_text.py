"""Texts that are whole and sealed, or absent."""

from pathlib import Path

from kedro_datasets.text import TextDataset

from aft.catalog.stages import way_out
from aft.files import check_seal, write_sealed


class AtomicTextDataset(TextDataset):
    """`text.TextDataset`, but the file is written beside its name, renamed and sealed."""

    def load(self) -> str:
        """The text; raises `StoreError` if it is missing or not as it was written."""
        path = Path(self._get_load_path())
        check_seal(path, way_out(self.metadata, path))
        return super().load()

    def save(self, data: str) -> None:
        """Write `data`; raises `StoreError` if the disk is full."""
        write_sealed(Path(self._get_save_path()), lambda staged: staged.write_text(data, encoding="utf-8"))
        self._invalidate_cache()
