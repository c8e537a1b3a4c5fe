"""A Kedro dataset for matplotlib figures that imports matplotlib only when a figure is there to be saved."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview

from aft.catalog.stages import way_out
from aft.sealed import check_seal, write_sealed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FigureDataset(AbstractDataset["Figure | bytes", bytes]):
    """Saves a figure as PNG, with `save_args` for matplotlib's `savefig`, or a picture; Kedro-Viz shows it."""

    def __init__(
        self, *, filepath: str, save_args: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._filepath = Path(filepath)
        self._save_args = save_args or {}
        self.metadata = metadata

    def load(self) -> bytes:
        """The picture as PNG; raises `StoreError` if it is missing or not as it was drawn."""
        check_seal(self._filepath, way_out(self.metadata, self._filepath))
        return self._filepath.read_bytes()

    def save(self, data: "Figure | bytes") -> None:
        """Write the figure, or the picture as it is; raises `StoreError` if the disk is full."""

        def write(staged: Path) -> None:
            if isinstance(data, bytes):
                staged.write_bytes(data)
            else:
                data.savefig(staged, **{"format": "png", **self._save_args})

        write_sealed(self._filepath, write)

    def preview(self) -> ImagePreview:
        """The picture for Kedro-Viz."""
        return ImagePreview(base64.b64encode(self.load()).decode())

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _exists(self) -> bool:
        return self._filepath.is_file()
