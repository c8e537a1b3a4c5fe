"""Attacks on what lies between two stages: each ends in one sentence that names the stage to run, and none in silence.

A flipped byte in the data of a Parquet file is still a Parquet file, with other questions.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import AbstractDataset, DataCatalog, DatasetError
from matplotlib.figure import Figure

from aft.alignment.variants import BASELINE
from aft.catalog.atomic import AtomicCSVDataset, AtomicJSONDataset, AtomicParquetDataset, AtomicTextDataset
from aft.catalog.figure import FigureDataset
from aft.catalog.sample_store import SampleStoreDataset
from aft.catalog.stages import STAGES, way_out
from aft.catalog.table_partitions import TablePartitionsDataset
from aft.config_loader import RecipeConfigLoader
from aft.pipeline_registry import STAGES as PIPELINES
from aft.pipeline_registry import register_pipelines
from aft.pipelines.comparisons import dataset
from aft.settings import CONFIG_LOADER_ARGS
from aft.shards import Shards
from aft.user_errors import one_sentence

ROOT = Path(__file__).parents[2]
TABLE = pd.DataFrame({"question_id": [f"q{i}" for i in range(40)], "answer": range(40)})
SHARD = TABLE.to_parquet()
KINDS: dict[str, tuple[Callable[[str], AbstractDataset[Any, Any]], Any]] = {
    "table.parquet": (lambda path: AtomicParquetDataset(filepath=path, metadata=LAYER), TABLE),
    "table.csv": (lambda path: AtomicCSVDataset(filepath=path, metadata=LAYER), TABLE),
    "hashes.json": (lambda path: AtomicJSONDataset(filepath=path, metadata=LAYER), ["0123", "4567"]),
    "page.html": (lambda path: AtomicTextDataset(filepath=path, metadata=LAYER), "<p>a page"),
    "figure.png": (lambda path: FigureDataset(filepath=path, metadata=LAYER), Figure(figsize=(1, 1))),
    "candidates.json": (lambda path: SampleStoreDataset(filepath=path, metadata=LAYER), "shards"),
    "seed_0.parquet": (lambda path: TablePartitionsDataset(path=str(Path(path).parent), metadata=LAYER), "partition"),
}
LAYER = {"kedro-viz": {"layer": "prepared"}}
WAYS_OUT = {"seed_0.parquet": "; run ingest with --params=seed=0, which makes it."}


def flipped(place: float) -> Callable[[Path], object]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        path.write_bytes(content)

    return flip


def seal_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


ATTACKS: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
    "junk": lambda path: path.write_bytes(bytes(range(256))),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    **{f"a byte at {place}": flipped(place) for place in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)},
    "no seal": lambda path: seal_of(path).unlink(),
    "an empty seal": lambda path: seal_of(path).write_bytes(b""),
    "a junk seal": lambda path: seal_of(path).write_bytes(b"\xff\xfe"),
    "a byte of the seal": lambda path: flipped(0.0)(seal_of(path)),
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], tuple[Callable[[], Any], Path]]:
    """What loads a dataset of some kind, and its file, when something was saved."""

    def write(name: str) -> tuple[Callable[[], Any], Path]:
        path = tmp_path / "data" / name
        kind, content = KINDS[name]
        if name == "candidates.json":
            (tmp_path / "shard.parquet").write_bytes(SHARD)
            content = Shards([tmp_path / "shard.parquet"])
        dataset = kind(str(path))
        if name == "seed_0.parquet":
            dataset.save({"seed_0": TABLE})
            return lambda: {key: load() for key, load in kind(str(path)).load().items()}["seed_0"], path
        dataset.save(content)
        return lambda: kind(str(path)).load(), path

    return write


@pytest.mark.parametrize("name", KINDS)
def test_what_is_saved_is_loaded(name: str, written: Callable[[str], tuple[Callable[[], Any], Path]]) -> None:
    load, path = written(name)
    loaded = load()
    loaded = loaded.table() if isinstance(loaded, Shards) else loaded
    if isinstance(loaded, pd.DataFrame):
        pd.testing.assert_frame_equal(loaded, TABLE)
    else:
        assert loaded in (KINDS[name][1], path.read_bytes())
    assert not list(path.parent.glob("*.partial"))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", KINDS)
def test_what_is_damaged_is_named_with_the_stage_that_makes_it(
    name: str, attack: str, written: Callable[[str], tuple[Callable[[], Any], Path]]
) -> None:
    load, path = written(name)
    ATTACKS[attack](path)
    with pytest.raises(DatasetError) as caught:
        load()
    told = one_sentence(caught.value)
    assert told is not None and "\n" not in told
    assert str(path.parent) in told and told.endswith(WAYS_OUT.get(name, "; run ingest, which makes it."))


def test_every_dataset_names_the_stage_that_makes_it() -> None:
    """The layer of each dataset that a stage writes, as the catalog says it, leads to that stage."""
    conf = RecipeConfigLoader(str(ROOT / "conf"), env="smoke", **CONFIG_LOADER_ARGS)
    catalog = DataCatalog.from_config(conf["catalog"])
    pipelines = register_pipelines()
    for stage in PIPELINES:
        for name in pipelines[stage].all_outputs():
            metadata = getattr(catalog.get(name), "metadata", None)
            assert way_out(metadata, Path("any.json")) == f"run {stage}, which makes it", name
    assert set(STAGES.values()) == set(PIPELINES)
    assert dataset(BASELINE, "training_curve") in pipelines["vft_train"].all_outputs(), "a layer of its own"
