"""What decides a cell's results, as hashes: a finished cell whose mark has not changed is not run again."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aft.code import source_hash
from aft.files import digest, hash_file
from aft.models.directory import open_model
from aft.pipelines.recorded import leaves

Mark = dict[str, str]  # the hash of everything that decides, by its name

ROOMS = ("tasks", "models", "scoring", "alignment", "training", "sampling", "feedback", "evaluation", "pipelines")
"""Where the code is that decides results."""

_TRAINING = ("token_budget", "scoring", "checkpoint_every", "monitor_every", "gradient_checkpointing")
_SAMPLING = ("batch_rows", "block_size")
_CONNECTION = ("base_url", "api_key_env", "concurrency", "retries", "timeout_s")
_PRICES = ("price_per_million_prompt_tokens", "price_per_million_completion_tokens")
NOT_DECIDING = (
    *("label", "launch", "sampler.cluster", "model_cache", "sample_cache", "score_cache", "rating_cache"),
    *(f"{place}.{name}" for place in ("training", "base_model.pocket.training") for name in _TRAINING),
    *(f"{place}.{name}" for place in ("sampling", "evaluation.sampling") for name in _SAMPLING),
    *(f"{place}.{name}" for place in ("sampler.server", "labelling.openai") for name in _CONNECTION),
    *(f"labelling.openai.{name}" for name in _PRICES),
)
"""Settings, by dotted names, that say only how and where something is computed: the results are the same."""

_MODELS = ("sample_from", "base_model.source")  # the folder of a model, or what needs none: pocket, a name on the hub
_NAMES_A_PATH = re.compile(r"(.*[._])?(path|file|folder)")
Content = Callable[[str, bool], str | None]  # the hash of what a path holds, and whether it is to be a model


def mark_of(params: Mapping[str, Any], variant: str, seed: int, content: Content) -> Mark:
    """The mark of one variant of a cell with these parameters: its code, its settings by their first key, and what lies
    in the files and folders that they name.

    What is not there has no entry: the run will tell, unless all that was to be made of it is finished.
    """
    settings: dict[str, dict[str, Any]] = {name: {} for name in params}
    for key, value in leaves({**params, "align": params["align"][variant]}):
        if not any(key == name or key.startswith(f"{name}.") for name in NOT_DECIDING):
            settings[key.split(".", 1)[0]][key] = value
    held = {key: content(path, key in _MODELS) for key, path in _paths(params, seed)}
    return {
        "code": source_hash(*ROOMS),
        **{name: digest(own) for name, own in settings.items()},
        **{f"what {key} holds": value for key, value in held.items() if value is not None},
    }


def changed(mark: Mark, before: Any) -> list[str]:
    """What of a mark is not as it was in the mark `before`; everything if that is none."""
    known = before if isinstance(before, dict) else {}
    return [name for name, value in mark.items() if known.get(name) != value]


def content_hash(path: Path, is_model: bool) -> str | None:
    """The fingerprint of a model, or the hash of a file or of the files in a folder; None if there is nothing.

    Raises `ModelError` if a folder that is to be a model is no whole one.
    """
    if is_model:
        return open_model(path).fingerprint if path.is_dir() else None
    if path.is_dir():
        return digest({file.name: hash_file(file) for file in path.iterdir() if file.is_file()})
    return hash_file(path) if path.is_file() else None


def _paths(params: Mapping[str, Any], seed: int) -> Iterator[tuple[str, str]]:
    """Dotted key and path of every file and folder that the settings name."""
    asked = {name: params[name] for name in ("task", "test_sets", "labelling", "sample_from", "base_model")}
    for key, value in leaves(asked):
        if isinstance(value, str) and (_NAMES_A_PATH.fullmatch(key) or key in _MODELS):
            yield key, value.replace("{seed}", str(seed))
