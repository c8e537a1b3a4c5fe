"""A Kedro dataset for a table in shards: of the handle on them it saves their list, from which it is loaded."""

import json
import os
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from aft.catalog.stages import way_out
from aft.errors import StoreError
from aft.files import hash_file, json_text
from aft.sealed import check_seal, write_sealed
from aft.shards import Shards


class SampleStoreDataset(AbstractDataset[Shards, Shards]):
    """A file that names the shards of one finished run of a stage, with their hashes; the shards stay in their store.

    The file itself is sealed.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Shards:
        """All shards, in the questions' order; raises `StoreError` if anything is missing or changed."""
        check_seal(self._filepath, way_out(self.metadata, self._filepath))
        listed = json.loads(self._filepath.read_bytes())["shards"]
        shards = {self._home / shard["path"]: shard["sha256"] for shard in listed}
        broken = [path.name for path, value in shards.items() if not path.is_file() or hash_file(path) != value]
        if broken:
            raise StoreError(
                f"{len(broken)} shards that {self._filepath} names are missing or changed ({broken[0]} ...); "
                f"{way_out(self.metadata, self._filepath)}."
            )
        return Shards(tuple(shards))

    def save(self, data: Shards) -> None:
        """Name the shards of a finished run, relative to the file."""
        shards = [
            {"path": os.path.relpath(shard.resolve(), self._home), "sha256": hash_file(shard)} for shard in data.paths
        ]
        text = json_text({"shards": shards})
        write_sealed(self._filepath, lambda staged: staged.write_text(text, encoding="utf-8"))

    @property
    def _home(self) -> Path:
        """The file's folder without symbolic links: a relative path through one would lead elsewhere."""
        return self._filepath.parent.resolve()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _exists(self) -> bool:
        return self._filepath.is_file()
