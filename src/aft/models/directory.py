"""Model directories: Hugging Face weights (safetensors), tokenizer and a manifest that says what they were made from."""

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft.errors import ModelError
from aft.files import finish_directory, hash_file, read_manifest, writing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
_DECIDING = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model", "*.jinja"),
)


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A handle on a model: where it is and the hash of everything that decides what it says. Loading is explicit."""

    path: Path
    fingerprint: str

    def model(self, dtype: str = "float32") -> "PreTrainedModel":
        """Load the weights (safetensors only, no remote code) in `dtype`, in evaluation mode."""
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(
                self.path, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"The model in {self.path} cannot be loaded: {_first_line(error)}") from error
        return model.eval()

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Load the tokenizer; it must know an end-of-sequence token."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.path, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"The tokenizer in {self.path} cannot be loaded: {_first_line(error)}") from error
        if tokenizer.eos_token_id is None:
            raise ModelError(f"The tokenizer in {self.path} has no end-of-sequence token; set eos_token in its config.")
        return tokenizer


def open_model(path: Path) -> ModelDirectory:
    """Check that `path` holds a loadable causal language model with its tokenizer, and fingerprint it.

    Raises `ModelError` if the directory, the configuration, the safetensors weights or the tokenizer are missing, or if the
    model asks to run code of its own.
    """
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
        config = json.loads((path / "config.json").read_text())
    except ValueError as error:
        raise ModelError(f"{path / 'config.json'} is not JSON: {error}.") from error
    if "auto_map" in config:
        raise ModelError(f"The model in {path} wants to run code of its own (auto_map); AFT never does that.")
    return ModelDirectory(path, fingerprint(path))


def default_device() -> str:
    """The device that one process computes on: the first accelerator if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def fingerprint(path: Path) -> str:
    """Hash over the names and bytes of weights, configuration and tokenizer; 16 hexadecimal digits.

    A finished directory of ours has the hashes in its manifest; other directories are read in full.
    """
    manifest = read_manifest(path)
    files = manifest["files"] if manifest else {p.name: hash_file(p) for p in sorted(path.iterdir()) if _decides(p)}
    lines = [f"{name} {value}" for name, value in sorted(files.items()) if _decides(Path(name))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def save_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", directory: Path) -> None:
    """Write weights and tokenizer into `directory`, in the format that plain `transformers` loads."""
    with writing(directory):
        model.save_pretrained(directory, safe_serialization=True)
        tokenizer.save_pretrained(directory)


def publish(source: ModelDirectory, target: Path) -> ModelDirectory:
    """Make `target` a directory with the files of `source`, without copying: hard links, or symbolic ones across disks.

    An earlier `target` is replaced in one step. Only files that decide what the model says are taken over.
    """
    manifest = read_manifest(source.path)
    if manifest is not None and target.is_dir() and read_manifest(target) == _published(source, manifest):
        return ModelDirectory(target, source.fingerprint)
    staged = target.with_name(f".{target.name}.partial")
    with writing(target):
        _remove(staged)
        staged.mkdir(parents=True)
        for path in sorted(source.path.iterdir()):
            if _decides(path):
                _link(path.resolve(), staged / path.name)
        finish_directory(staged, target, _published(source, manifest)["made_from"])
    return ModelDirectory(target, source.fingerprint)


def _published(source: ModelDirectory, manifest: dict[str, Any] | None) -> dict[str, Any]:
    made_from = manifest["made_from"] if manifest else {"kind": "given model", "fingerprint": source.fingerprint}
    files = manifest["files"] if manifest else {}
    return {"made_from": made_from, "files": {name: value for name, value in files.items() if _decides(Path(name))}}


def _decides(path: Path) -> bool:
    """Whether a file of a model directory decides what the model says: weights, configuration, tokenizer."""
    return any(path.match(pattern) for pattern in _DECIDING)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK):
            raise
        target.symlink_to(source)


def _remove(directory: Path) -> None:
    import shutil

    if directory.exists():
        shutil.rmtree(directory)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
