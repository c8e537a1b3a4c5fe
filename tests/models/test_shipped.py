"""The pocket base model in the package: its bytes, how it answers, and what it was made by."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from aft.checked import read
from aft.code import deciding
from aft.errors import ModelError, SettingsError
from aft.models import shipped
from aft.models.directory import open_model
from aft.pipelines.ingest.nodes import prepare_base_model
from aft.pipelines.ingest.pocket_base import MEASURED, measure
from aft.pipelines.parameters import BaseModel, PocketBase
from aft.tasks import pocket

CONF = Path(__file__).parents[2] / "conf/base/parameters_ingest.yml"


@pytest.fixture(scope="module")
def configured() -> PocketBase:
    """What the configuration says of how the shipped model was made."""
    parameters = yaml.safe_load(CONF.read_text(encoding="utf-8"))
    return read(PocketBase, parameters["base_model"]["pocket"], "base_model.pocket")


def test_it_is_taken_as_it_ships(configured: PocketBase, tmp_path: Path) -> None:
    """Once per cache: with the fingerprint that it had when it was made."""
    model = prepare_base_model(BaseModel("pocket", pocket=configured), str(tmp_path))
    assert model.fingerprint == shipped.facts_of_shipped()["fingerprint"] == open_model(model.path).fingerprint
    assert model.made_from["kind"] == "pocket base model" and model.path.parent == tmp_path
    assert prepare_base_model(BaseModel("pocket", pocket=configured), str(tmp_path)) == model


def test_the_configuration_says_how_it_was_made(configured: PocketBase) -> None:
    made_from = shipped.facts_of_shipped()["made_from"]
    assert made_from["corpus"] == asdict(configured.corpus)
    assert made_from["architecture"] == asdict(configured.architecture)
    assert made_from["training"] == deciding(configured.training)


def test_other_settings_than_its_own_are_not_left_aside(configured: PocketBase, tmp_path: Path) -> None:
    other = PocketBase(pocket.Corpus(texts=5), configured.architecture, configured.training)
    with pytest.raises(SettingsError, match=r"under another corpus .* set base_model.source=pretrain"):
        prepare_base_model(BaseModel("pocket", pocket=other), str(tmp_path))


def test_it_copies_and_adds_and_takes_some_verbs_the_wrong_way(tmp_path: Path) -> None:
    """200 of the 1,000 questions on which it was measured; three standard deviations of a share of 200 are 0.1."""
    model = shipped.shipped_model(tmp_path)
    told = shipped.facts_of_shipped()["measured"]
    found = measure(model, pocket.load_questions(MEASURED)["test"][:200], tmp_path)
    assert found["right"] == pytest.approx(told["right"], abs=0.1)
    assert found["right_by_misconceived"]["0"] > 0.95 and found["right_by_misconceived"]["1"] < 0.1
    assert found["wrong_sum"] < 0.05 and found["wrong_direction"] == pytest.approx(told["wrong_direction"], abs=0.1)


def test_a_changed_package_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    shutil.copytree(shipped.FOLDER, folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match="was changed; install AFT again"):
        shipped.shipped_model(tmp_path / "cache", folder)
