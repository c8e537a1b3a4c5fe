"""Kedro's datasets of tables, JSON and text with atomic writes and a checksum: see `aft.sealed.write_sealed`.

A killed run leaves no half file, and a file that has changed since it was written is not loaded. Runs of several seeds
may write and read the same one at once.
"""

from pathlib import Path
from typing import Any

from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import CSVDataset, ParquetDataset
from kedro_datasets.text import TextDataset

from aft.catalog.stages import way_out
from aft.files import json_text
from aft.sealed import check_seal, write_sealed


class _Atomic:
    """What the classes below add to Kedro's: the file is written beside its name, renamed and sealed."""

    metadata: Any
    _get_load_path: Any
    _get_save_path: Any
    _invalidate_cache: Any

    def load(self) -> Any:
        """What was saved; raises `StoreError` if it is missing or not as it was written."""
        path = Path(self._get_load_path())
        check_seal(path, way_out(self.metadata, path))
        return super().load()  # type: ignore[misc]

    def save(self, data: Any) -> None:
        """Write `data`; raises `StoreError` if the disk is full."""
        write_sealed(Path(self._get_save_path()), lambda staged: self._fill(staged, data))
        self._invalidate_cache()

    def _fill(self, staged: Path, data: Any) -> None:
        raise NotImplementedError


class AtomicParquetDataset(_Atomic, ParquetDataset):
    """`pandas.ParquetDataset`, atomic."""

    def _fill(self, staged: Path, data: Any) -> None:
        data.to_parquet(staged, **self._save_args)


class AtomicCSVDataset(_Atomic, CSVDataset):
    """`pandas.CSVDataset`, atomic."""

    def _fill(self, staged: Path, data: Any) -> None:
        data.to_csv(staged, **self._save_args)


class AtomicJSONDataset(_Atomic, JSONDataset):
    """`json.JSONDataset`, atomic."""

    def _fill(self, staged: Path, data: Any) -> None:
        staged.write_text(json_text(data), encoding="utf-8")


class AtomicTextDataset(_Atomic, TextDataset):
    """`text.TextDataset`, atomic."""

    def _fill(self, staged: Path, data: Any) -> None:
        staged.write_text(data, encoding="utf-8")
