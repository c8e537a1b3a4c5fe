"""Model directories: Hugging Face weights (safetensors), tokenizer, and a manifest of what they were made from."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft.errors import ModelError
from aft.files import (
    build_once,
    finish_directory,
    hash_file,
    is_intact,
    locked,
    read_manifest,
    write_atomically,
    writing,
)
from aft.models.adapters import ADAPTER
from aft.models.card import CARD
from aft.models.tokens import STYLE_KEY, PromptStyle, check_chat, prompt_style

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")
_DECIDING = (*_WEIGHTS, *_TOKENIZER, "tekken.json", "*.jinja")
_TOKENIZER_CONFIG = "tokenizer_config.json"
_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/[^/]+/?")  # where the hub's client keeps a fetched model


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A handle on a model: where it is and the hash of everything that decides what it says. Loading is explicit."""

    path: Path
    fingerprint: str

    @property
    def made_from(self) -> dict[str, Any]:
        """What the model was made from, as its manifest says; nothing for a model that was not made here."""
        return (read_manifest(self.path) or {}).get("made_from", {})

    def model(self, dtype: str = "float32") -> "PreTrainedModel":
        """Load the weights (safetensors only, no remote code) in `dtype`, in evaluation mode, on the CPU."""
        from transformers import AutoModelForCausalLM

        hide_weight_bars()
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                self.path,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # a damaged file raises nearly anything: SafetensorError, RuntimeError, OSError
            raise ModelError(f"The model in {self.path} cannot be loaded: {_reason(error)}.") from error
        model, told = loaded
        if told["missing_keys"]:  # transformers would go on with random weights in their place
            name = min(told["missing_keys"])
            raise ModelError(f"The model in {self.path} lacks weights, {name} among them; save or fetch it again.")
        if open_model(self.path).fingerprint != self.fingerprint:  # its work must not pass for this model's
            raise ModelError(f"The model in {self.path} was replaced while this run was going; run it again.")
        return model.eval()

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Load the tokenizer; it must know an end-of-sequence token."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.path, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # a damaged file raises nearly anything, a bare Exception included
            raise ModelError(f"The tokenizer in {self.path} cannot be loaded: {_reason(error)}.") from error
        if tokenizer.eos_token_id is None:
            raise ModelError(f"The tokenizer in {self.path} has no end-of-sequence token; set eos_token in its config.")
        return tokenizer


def open_model(path: Path) -> ModelDirectory:
    """Check that `path` holds a causal language model with its tokenizer, and fingerprint it: every byte is read.

    Raises `ModelError` if the directory, the configuration, the safetensors weights or the tokenizer are missing, if
    the model asks to run code of its own, or if a file has changed since the directory's manifest was written.
    """
    _refuse_incomplete(path)
    hashes = {file.name: hash_file(file) for file in _deciding(path)}
    manifest = read_manifest(path)
    recorded = manifest["files"] if manifest else {}
    changed = [name for name, value in hashes.items() if recorded.get(name, value) != value]
    if changed:
        raise ModelError(
            f"{path / changed[0]} has changed since the model was finished; run the pipeline that made it again."
        )
    lines = [f"{name} {value}" for name, value in sorted(hashes.items())]
    return ModelDirectory(path, fingerprint=hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16])


def _refuse_incomplete(path: Path) -> None:
    if not path.is_dir():
        raise ModelError(f"There is no model directory {path}; give a folder in Hugging Face format.")
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json; give a folder in Hugging Face format.")
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{path} has no *.safetensors weights; other formats are never loaded: save it again with "
            "save_pretrained, which writes safetensors."
        )
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{path} has no tokenizer; save the model's tokenizer into it with save_pretrained.")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path / 'config.json'} is not JSON: {error}.") from error
    if "auto_map" in config:
        raise ModelError(f"The model in {path} wants to run code of its own (auto_map); AFT never does that.")


def hide_weight_bars() -> None:
    """Loading and writing of weights would draw a bar for every model, among those that tell of work."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def on_device(model: "PreTrainedModel") -> "PreTrainedModel":
    """The model on the device that one process computes on: the first accelerator if there is one."""
    import torch

    return model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]


def save_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", directory: Path) -> None:
    """Write weights and tokenizer into `directory`, in the format that plain `transformers` loads.

    The tokenizer's end-of-sequence token, which a response was trained to end with, ends generation wherever the model
    is loaded: it joins those that `model` names.
    """
    named = model.generation_config.eos_token_id  # type: ignore[union-attr]
    ends = named if isinstance(named, list) else [] if named is None else [named]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
        model.generation_config.eos_token_id = [*ends, tokenizer.eos_token_id]  # type: ignore[union-attr]
    with writing(directory):
        model.save_pretrained(directory, safe_serialization=True)
        tokenizer.save_pretrained(directory)


def publish(source: ModelDirectory, target: Path) -> ModelDirectory:
    """Make `target` a directory with the files of `source`, without copying: hard links, or symbolic ones across disks.

    An earlier `target` is replaced as a whole, unless it holds these very files already. Only files that decide what
    the model says are taken over and, of a model that was made here, its card and its adapter. Raises `StoreError` if
    another process publishes there at the same time.
    """
    if _is_published(source, target):
        return ModelDirectory(target, source.fingerprint)
    manifest = read_manifest(source.path)
    made_from = manifest["made_from"] if manifest else _given(source)
    staged = target.with_name(f".{target.name}.partial")
    with writing(target), locked(target.with_name(f".{target.name}.lock")):
        shutil.rmtree(staged, ignore_errors=True)  # what a killed run left
        staged.mkdir(parents=True)
        for path in handed_on(source.path):
            (staged / path).parent.mkdir(exist_ok=True)
            _link((source.path / path).resolve(), staged / path)
        finish_directory(staged, target, made_from)
    return ModelDirectory(target, source.fingerprint)


def in_prompt_style(source: ModelDirectory, style: PromptStyle, cache: Path) -> ModelDirectory:
    """`source` if it wants its prompts in this style already, else a directory in `cache` with its files that does.

    The tokenizer's configuration is written anew there and all else linked: `source` stays as it is. Raises
    `ModelError` if the style is "chat" and the model's chat template cannot be used, see `check_chat`.
    """
    tokenizer = source.tokenizer()
    if style == "chat":
        check_chat(tokenizer, str(source.path))
    if prompt_style(tokenizer) == style:
        return source
    made_from = {**_given(source), **source.made_from, "fingerprint": source.fingerprint, "prompt_style": style}

    def build(directory: Path) -> None:
        shutil.rmtree(directory)  # what a killed run left
        directory.mkdir()
        for path in _deciding(source.path):
            if path.name != _TOKENIZER_CONFIG:
                _link(path.resolve(), directory / path.name)
        given = source.path / _TOKENIZER_CONFIG
        config = json.loads(given.read_text(encoding="utf-8")) if given.is_file() else {}
        text = json.dumps({**config, STYLE_KEY: style}, indent=2) + "\n"
        write_atomically(directory / _TOKENIZER_CONFIG, lambda staged: staged.write_text(text, encoding="utf-8"))

    return open_model(build_once(cache, made_from, build))


def _is_published(source: ModelDirectory, target: Path) -> bool:
    """Whether `target` is finished and holds the files of `source`: the same ones, not just ones of the same name."""
    if read_manifest(target) is None:
        return False
    ours, theirs = handed_on(source.path), handed_on(target)
    same = ours == theirs and all((source.path / path).samefile(target / path) for path in ours)
    return same and is_intact(target)


def _given(source: ModelDirectory) -> dict[str, Any]:
    """What is known of a model that was not made here: its name on the hub, if it lies where the hub's client put it.

    The folder itself is never noted: a manifest is passed on with its model.
    """
    made_from = {"kind": "given model", "fingerprint": source.fingerprint}
    found = _SNAPSHOT.search(source.path.as_posix())
    return {**made_from, "name": f"{found[1]}/{found[2]}"} if found else made_from


def handed_on(directory: Path) -> list[Path]:
    """The files that a model is passed on with, relative to the directory; of a given model, none but what decides."""
    named = (read_manifest(directory) or {}).get("files", {})  # asked only: a foreign one may name any path
    beside = [directory / CARD, *(directory / ADAPTER).glob("*")]
    ours = sorted(path for path in beside if path.is_file() and str(path.relative_to(directory)) in named)
    return [path.relative_to(directory) for path in (*_deciding(directory), *ours)]


def _deciding(directory: Path) -> list[Path]:
    """The files of a model directory that decide what the model says: weights, configuration, tokenizer."""
    return sorted(path for path in directory.iterdir() if path.is_file() and decides(path))


def decides(path: Path) -> bool:
    """Whether a file of this name, in a model directory, decides what the model says."""
    return any(path.match(pattern) for pattern in _DECIDING)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system or an owner that allows no hard links
        target.symlink_to(source)


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".:") or type(error).__name__
