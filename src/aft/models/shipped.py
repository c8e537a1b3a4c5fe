"""The base model that ships with the package: pocket's, pretrained once, with what it was made from beside it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aft.directories import build_once
from aft.errors import ModelError
from aft.files import write_json
from aft.models.directory import ModelDirectory, decides, open_model

FOLDER = Path(__file__).with_name("pocket_base")
FACTS = "made_from.json"


def facts_of_shipped(folder: Path = FOLDER) -> dict[str, Any]:
    """What is known of the shipped model: `made_from`, its `fingerprint`, what was `measured`, its first `losses`."""
    return json.loads((folder / FACTS).read_text(encoding="utf-8"))


def shipped_model(workspace: Path, folder: Path = FOLDER) -> ModelDirectory:
    """A copy in `workspace` of the model in `folder`, as if it had been pretrained there.

    Raises `ModelError` if a file of the package is missing or was changed.
    """
    facts = facts_of_shipped(folder)
    described = {**facts["made_from"], "fingerprint": facts["fingerprint"]}

    def build(directory: Path) -> None:
        if open_model(folder).fingerprint != facts["fingerprint"]:
            raise ModelError("The pocket base model of this installation was changed; install AFT again.")
        for file in folder.iterdir():
            if decides(Path(file.name)):
                shutil.copyfile(file, directory / file.name)

    return ModelDirectory(build_once(workspace, described, build, brief=True), facts["fingerprint"])


def ship(model: ModelDirectory, facts: Mapping[str, Any], folder: Path) -> None:
    """Write the files of `model` into `folder`, which is made, as `shipped_model` reads them; `facts` go with it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in model.path.iterdir():
        if decides(Path(file.name)):
            shutil.copyfile(file, folder / file.name)
    made_from = {name: value for name, value in model.made_from.items() if name != "code"}
    write_json(folder / FACTS, {"made_from": made_from, "fingerprint": model.fingerprint, **facts})
