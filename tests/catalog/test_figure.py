"""Figures are written whole, shown by Kedro-Viz, and cost nothing before there is one."""

import base64
import subprocess
import sys

import pytest
from kedro.io import DatasetError
from matplotlib.figure import Figure

from aft.catalog.figure import FigureDataset

PNG = b"\x89PNG"


def test_a_figure_is_saved_and_shown(tmp_path):
    """Two by one inches at 50 dots: 100 x 50 pixels, as the file's header says."""
    dataset = FigureDataset(filepath=str(tmp_path / "new/accuracy.png"), save_args={"dpi": 50})
    assert not dataset.exists()
    dataset.save(Figure(figsize=(2, 1)))
    content = (tmp_path / "new/accuracy.png").read_bytes()
    assert content.startswith(PNG)
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (100, 50)
    assert base64.b64decode(dataset.preview()) == content
    assert dataset.exists() and [path.name for path in (tmp_path / "new").glob("[!.]*")] == ["accuracy.png"]


def test_a_figure_is_loaded_as_a_picture(tmp_path):
    dataset = FigureDataset(filepath=str(tmp_path / "accuracy.png"))
    with pytest.raises(DatasetError, match=r"accuracy\.png is missing; run the stage that makes it"):
        dataset.load()
    dataset.save(Figure(figsize=(2, 1)))
    assert dataset.load() == (tmp_path / "accuracy.png").read_bytes()


def test_a_picture_is_saved_as_it_is(tmp_path):
    dataset = FigureDataset(filepath=str(tmp_path / "accuracy.png"), save_args={"dpi": 50})
    dataset.save(PNG)
    assert dataset.load() == (tmp_path / "accuracy.png").read_bytes() == PNG


def test_matplotlib_waits_for_a_figure():
    code = (
        "import sys; from aft.catalog.figure import FigureDataset; FigureDataset(filepath='x.png');"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "False"
