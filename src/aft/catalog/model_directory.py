"""A Kedro dataset for model directories: it saves and loads handles, never weights."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import JSONPreview

from aft.catalog.stages import way_out
from aft.directories import MANIFEST, read_manifest
from aft.errors import ModelError
from aft.models.directory import ModelDirectory, open_model
from aft.models.publish import publish


class ModelDirectoryDataset(AbstractDataset[ModelDirectory, ModelDirectory]):
    """Saving makes `filepath` a directory with the model's files (see `publish`); loading gives a handle on it."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> ModelDirectory:
        """The handle; raises `ModelError` if the model was not made yet."""
        if not self._exists():
            raise ModelError(
                f"There is no finished model in {self._filepath}; {way_out(self.metadata, self._filepath)}."
            )
        return open_model(self._filepath)

    def save(self, data: ModelDirectory) -> None:
        """Publish the model at `filepath`, replacing an earlier one only when the new one is complete."""
        publish(data, self._filepath)

    def preview(self) -> JSONPreview:
        """What the model was made from, for Kedro-Viz."""
        path = self._filepath / MANIFEST
        return JSONPreview(path.read_text(encoding="utf-8") if path.is_file() else "{}")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _exists(self) -> bool:
        return read_manifest(self._filepath) is not None
