"""Where a run begins: the catalog names the questions, as the parameters say or elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from aft.catalog.raw_questions import RawQuestionsDataset
from aft.config_loader import RecipeConfigLoader
from aft.errors import SettingsError
from aft.pipelines.ingest.nodes import load_questions
from aft.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[2] / "conf"
NO_SETS: dict[str, Any] = {}


def raw_questions(folder: Path, catalog: str, **params: Any) -> RawQuestionsDataset:
    """That of a recipe which has such a catalog beside what ships."""
    for name in ("base", "mine"):
        (folder / name).mkdir()
    for file in CONF.glob("base/*.yml"):
        (folder / "base" / file.name).symlink_to(file)
    (folder / "mine/globals.yml").write_text("recipe: mine", encoding="utf-8")
    (folder / "mine/catalog.yml").write_text(catalog, encoding="utf-8")
    entry = RecipeConfigLoader(str(folder), "mine", params, **CONFIG_LOADER_ARGS)["catalog"]["raw_questions"]
    return RawQuestionsDataset(asked=entry["asked"], metadata=entry["metadata"])


def publish(folder: Path) -> Path:
    folder.mkdir()
    for name, count in (("train", 3), ("test", 4)):
        rows = [json.dumps({"question": f"{name} {n}?", "answer": f"It is.\n#### {n}"}) for n in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_the_parameters_say_what_is_asked(tmp_path: Path) -> None:
    raw = raw_questions(tmp_path, "", task={"settings": {"train": 5, "validation": 2, "test": 3}})
    train, *_ = load_questions(raw.load(), NO_SETS)
    assert len(train) == 5 and set(train["dataset"]) == {"pocket"}
    assert raw._describe()["family"] == "pocket"


def test_the_catalog_may_point_at_other_files(tmp_path: Path) -> None:
    """It goes before the parameters, of which it keeps the rest; Kedro-Viz shows the files that are there."""
    data = publish(tmp_path / "data")
    task = {"family": "gsm8k", "settings": {"path": "nowhere", "validation_size": 1}}
    raw = raw_questions(tmp_path, f"raw_questions: {{asked: {{settings: {{path: {data}}}}}}}", task=task)
    train, validation, test, *_ = load_questions(raw.load(), NO_SETS)
    assert (len(train), len(validation), len(test)) == (3, 1, 3)
    assert json.loads(raw.preview())["files"] == {str(data): ["test.jsonl", "train.jsonl"]}


@pytest.mark.parametrize("asked", [{}, {"family": "pocket", "setting": {}}, {"family": "pocket", "settings": 5}])
def test_what_asks_no_questions_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"raw_questions\.(family|setting|settings)\b"):
        load_questions(RawQuestionsDataset(asked=asked).load(), NO_SETS)
    with pytest.raises(SettingsError, match=r"test_sets\.x\.(family|setting|settings)\b"):
        load_questions({"family": "pocket", "settings": {"train": 1, "validation": 1, "test": 1}}, {"x": asked})
