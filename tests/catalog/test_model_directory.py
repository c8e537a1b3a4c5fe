"""The catalog's model directories: handles go in and out, what is not finished is told."""

import json
from pathlib import Path

import pytest
from kedro.io import DatasetError

from aft.catalog.model_directory import ModelDirectoryDataset
from aft.directories import MANIFEST
from aft.models.directory import ModelDirectory


@pytest.fixture
def dataset(tmp_path: Path) -> ModelDirectoryDataset:
    metadata = {"kedro-viz": {"layer": "vft"}}
    return ModelDirectoryDataset(filepath=str(tmp_path / "06_models" / "vft"), metadata=metadata)


def test_what_is_saved_is_loaded(dataset: ModelDirectoryDataset, pocket_directory: ModelDirectory) -> None:
    assert not dataset.exists()
    dataset.save(pocket_directory)
    assert dataset.exists()
    loaded = dataset.load()
    assert loaded.fingerprint == pocket_directory.fingerprint
    assert loaded.path.name == "vft" and loaded.path != pocket_directory.path


def test_a_model_that_was_not_made_is_told(dataset: ModelDirectoryDataset) -> None:
    with pytest.raises(DatasetError, match="run vft_train, which makes it"):
        dataset.load()


@pytest.mark.parametrize("damage", ["removed", "changed", "no manifest", "another manifest"])
def test_a_model_that_is_not_whole_is_refused(
    dataset: ModelDirectoryDataset, pocket_directory: ModelDirectory, damage: str
) -> None:
    dataset.save(pocket_directory)
    folder = dataset.load().path
    name = MANIFEST if "manifest" in damage else "model.safetensors"
    content = (folder / name).read_bytes()
    (folder / name).unlink()  # not through the link: the source stays whole
    if damage == "changed":
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "another manifest":
        (folder / name).write_bytes(content.replace(b'"given model"', b'"given_model"'))
    with pytest.raises(
        DatasetError, match="run the pipeline that made it again" if damage == "changed" else "finished"
    ):
        dataset.load()
    dataset.save(pocket_directory)  # made again
    assert dataset.load().fingerprint == pocket_directory.fingerprint


def test_the_preview_says_what_the_model_was_made_from(
    dataset: ModelDirectoryDataset, pocket_directory: ModelDirectory
) -> None:
    assert json.loads(str(dataset.preview())) == {}
    dataset.save(pocket_directory)
    assert json.loads(str(dataset.preview()))["made_from"]["fingerprint"] == pocket_directory.fingerprint
