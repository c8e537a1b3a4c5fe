"""The paths among the settings, and hashes of what lies there or was read: it may change while the setting does not."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import CatalogProtocol

from aft.errors import SettingsError
from aft.files import digest, hash_file
from aft.models.directory import open_model
from aft.nested import leaves
from aft.shards import Shards, encode

MODELS = ("sample_from", "base_model.source")  # the folder of a model, or what needs none: pocket, a name on the hub
_NAMES_A_PATH = re.compile(r"(.*[._])?(filepath|path|file|folder|cache|candidates_from)")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def paths_of(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Dotted key and path of every file and folder that nested settings name."""
    for key, value in leaves(settings):
        if isinstance(value, str) and (_NAMES_A_PATH.fullmatch(key) or key in MODELS):
            yield key, value


def refuse_address(path: str, name: str) -> None:
    """Raise `SettingsError` if the path that `name` gives is an address, as s3://bucket: it would become a folder."""
    if _ADDRESS.match(path):
        raise SettingsError(
            f"{name} is {path!r:.80}, but must be a path: AFT reads and writes file systems only; mount what lies "
            "there, or copy it."
        )


def config_of(catalog: CatalogProtocol, name: str) -> dict[str, Any]:
    """How the catalog is configured for a dataset, its paths absolute."""
    return catalog.config_resolver.resolve_pattern(name)  # type: ignore[attr-defined]


def asked_of(catalog: CatalogProtocol) -> dict[str, Any]:
    """Where the questions are from, in the form of the parameters `task` and `test_sets`, as the catalog has it."""
    datasets = {"task": "raw_questions", "test_sets": "raw_test_sets"}
    found = {key: config_of(catalog, name).get("asked") for key, name in datasets.items()}
    return {key: asked for key, asked in found.items() if asked is not None}


def content_hash(path: Path, is_model: bool) -> str | None:
    """The fingerprint of a model, or the hash of a file or of the files in a folder; None if there is nothing.

    Raises `ModelError` if a folder that is to be a model is no whole one.
    """
    if is_model:
        return open_model(path).fingerprint if path.is_dir() else None
    if path.is_dir():
        return digest({file.name: hash_file(file) for file in path.iterdir() if file.is_file()})
    return hash_file(path) if path.is_file() else None


def told(value: Any) -> Any:
    """What a value says, as a key has it: tables and shards by their hashes, the items of mappings in their order."""
    if isinstance(value, pd.DataFrame):
        return hashlib.sha256(encode(value)).hexdigest()
    if isinstance(value, Shards):
        return [hash_file(path) for path in value.paths]
    if isinstance(value, Mapping):
        return [[name, told(one)] for name, one in value.items()]
    return [told(one) for one in value] if isinstance(value, list | tuple) else value
