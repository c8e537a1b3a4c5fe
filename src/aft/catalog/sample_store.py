"""A Kedro dataset for sampled responses: it saves the list of shards and loads their rows as one table."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from aft.errors import StoreError
from aft.files import hash_file, write_json

if TYPE_CHECKING:
    import pandas as pd


class SampleStoreDataset(AbstractDataset[list[Path], "pd.DataFrame"]):
    """A file that names the shards of one finished sampling run, with the hash of each; the shards stay in their store."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> "pd.DataFrame":
        """The rows of all shards, in the questions' order; raises `StoreError` if one is missing or changed."""
        from aft.sampling.store import read_shards

        listed = json.loads(self._filepath.read_text()) if self._exists() else {"shards": []}
        shards = [self._filepath.parent / shard["path"] for shard in listed["shards"]]
        if not shards:
            raise StoreError(f"Nothing was sampled into {self._filepath} yet; run the pipeline that samples first.")
        return read_shards(shards)

    def save(self, data: list[Path]) -> None:
        """Name the shards of a finished run, relative to the file."""
        home = self._filepath.parent
        shards = [{"path": os.path.relpath(shard, home), "sha256": hash_file(shard)} for shard in data]
        write_json(self._filepath, {"shards": shards})

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _exists(self) -> bool:
        return self._filepath.is_file()
