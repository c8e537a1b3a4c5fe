"""A Kedro dataset for raw questions: which task family they come from, and with which settings."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from aft.files import json_text


class RawQuestionsDataset(AbstractDataset[None, dict[str, Any]]):
    """Which task family asks the questions under which settings, by default those of the parameters.

    Loading gives a handle on them, `{"family": ..., "settings": ...}`, or several such by name; `ingest` asks the
    family for the questions, which reads files of a folder, a data set of the hub, or nothing.
    """

    def __init__(self, *, asked: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        self._asked = asked
        self.metadata = metadata

    def load(self) -> dict[str, Any]:
        """The handle; what it names is read, and checked, by the family."""
        return deepcopy(self._asked)

    def save(self, data: None) -> None:
        """Raise `DatasetError`: questions are made elsewhere."""
        raise DatasetError("Raw questions are only read.")

    def preview(self) -> JSONPreview:
        """Family, settings and the files there are, for Kedro-Viz."""
        files = {str(folder): sorted(file.name for file in folder.iterdir()) for folder in _folders(self._asked)}
        return JSONPreview(json_text({"asked": self._asked, "files": files}))

    def _describe(self) -> dict[str, Any]:
        return self._asked


def _folders(settings: Mapping[str, Any]) -> Iterator[Path]:
    """The folders among nested settings that are there."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _folders(value)
        elif name == "path" and value is not None and Path(value).is_dir():
            yield Path(value)
