"""A Kedro dataset for matplotlib figures that imports matplotlib only when a figure is there to be saved."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import ImagePreview

from aft.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FigureDataset(AbstractDataset["Figure", Any]):
    """Saves a figure as PNG, with `save_args` for matplotlib's `savefig`; Kedro-Viz shows it. It is never loaded."""

    def __init__(
        self, *, filepath: str, save_args: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._filepath = Path(filepath)
        self._save_args = save_args or {}
        self.metadata = metadata

    def load(self) -> Any:
        """Always raises `DatasetError`: a picture is made for people."""
        raise DatasetError(f"The figure {self._filepath} is for looking at; load the table that it was drawn from.")

    def save(self, data: "Figure") -> None:
        """Write the figure; raises `StoreError` if the disk is full."""
        write_atomically(self._filepath, lambda staged: data.savefig(staged, **{"format": "png", **self._save_args}))

    def preview(self) -> ImagePreview:
        """The picture for Kedro-Viz."""
        return ImagePreview(base64.b64encode(self._filepath.read_bytes()).decode())

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _exists(self) -> bool:
        return self._filepath.is_file()
