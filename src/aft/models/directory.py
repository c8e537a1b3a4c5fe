"""Model directories are opened: Hugging Face weights (safetensors) and tokenizer, with a manifest if made here."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from aft.directories import MANIFEST, read_manifest
from aft.errors import ModelError
from aft.files import hash_file
from aft.machine import keep_memory, use_threads, warn_of_slowness
from aft.models.environment import cleared, refuse_low_precision
from aft.models.tokens import end_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TEMPLATES = "additional_chat_templates"  # the one folder that transformers looks into
# What transformers reads of a folder for a causal language model and its tokenizer, of any architecture.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "config.*.json", "generation_config.json")
_TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model", "*tekken*.json"),
    *("bpe.codes", "byte_maps.json", "dict.txt", "emoji.json", "entity_vocab.json", "normalizer.json", "*.spm"),
    *("*.tokenizer", "target_vocab.json", "word_*.json"),
)
DECIDING = (*_WEIGHTS, *_TOKENIZER, "*.jinja", f"{_TEMPLATES}/*.jinja")
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")  # which transformers loads unasked


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
        """Load the weights (safetensors only, no remote code) in `dtype`, in evaluation mode, on the CPU.

        Raises `ModelError` for what cannot be loaded and, as all that is computed with a finished model begins here,
        `SettingsError` as `refuse_low_precision` does.
        """
        from transformers import AutoModelForCausalLM

        refuse_low_precision()
        hide_weight_bars()
        try:
            with cleared(launched=True):
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    self.path,
                    dtype=dtype,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    output_loading_info=True,
                )
            with TemporaryDirectory() as folder:  # a configuration that cannot be saved is found before any training
                loaded[0].config.save_pretrained(folder)
        except Exception as error:  # a damaged file raises nearly anything: SafetensorError, RuntimeError, OSError
            raise ModelError(f"The model in {self.path} cannot be loaded: {_reason(error)}.") from error
        model, loading = loaded
        if loading["missing_keys"]:  # transformers would go on with random weights in their place
            name = min(loading["missing_keys"])
            raise ModelError(f"The model in {self.path} lacks weights, {name} among them; save or fetch it again.")
        if open_model(self.path).fingerprint != self.fingerprint:  # its work must not pass for this model's
            raise ModelError(f"The model in {self.path} was replaced while this run was going; run it again.")
        return model.eval()

    def config(self) -> "PreTrainedConfig":
        """Load the configuration; `ModelError` if that cannot be."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.path, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # a damaged file raises nearly anything
            raise ModelError(
                f"The configuration of the model in {self.path} cannot be read: {_reason(error)}."
            ) from error

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

    def end_tokens(self) -> frozenset[int]:
        """The ids of all tokens with which the model may end a response."""
        from transformers import GenerationConfig

        try:
            generation = GenerationConfig.from_pretrained(self.path, local_files_only=True)
        except OSError:  # there is none: then the model's configuration tells
            generation = GenerationConfig.from_model_config(self.config())
        return end_tokens(self.tokenizer(), generation)


def open_model(path: Path) -> ModelDirectory:
    """Check that `path` holds a causal language model with its tokenizer, and fingerprint it: every byte is read.

    Raises `ModelError` if the directory, the configuration, the safetensors weights or the tokenizer are missing, if
    there is an adapter beside the weights, if the model asks to run code of its own or names weights elsewhere, or if a
    file has changed since the directory's manifest was written. Warns of a manifest that is damaged or not AFT's.
    """
    _refuse_incomplete(path)
    hashes = hashes_of(path)
    manifest = read_manifest(path)
    if manifest is None and (path / MANIFEST).is_file():
        logger.warning(
            "%s is damaged, names files that are gone, or is not AFT's: the model is taken for a given one, known by "
            "its bytes alone. If it was made here, run the pipeline that made it again.",
            path / MANIFEST,
        )
    recorded = manifest["files"] if manifest else {}
    changed = [name for name, value in hashes.items() if recorded.get(name, value) != value]
    if changed:
        raise ModelError(
            f"{path / changed[0]} has changed since the model was finished; run the pipeline that made it again."
        )
    return ModelDirectory(path, fingerprint_of(hashes))


def hashes_of(directory: Path) -> dict[str, str]:
    """Of the deciding files, by name."""
    return {file.as_posix(): hash_file(directory / file) for file in deciding_files(directory)}


def fingerprint_of(hashes: Mapping[str, str]) -> str:
    """Of the deciding files' hashes by name."""
    lines = [f"{name} {value}" for name, value in sorted(hashes.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _refuse_incomplete(path: Path) -> None:
    if not path.is_dir():
        raise ModelError(f"There is no model directory {path}; give a folder in Hugging Face format.")
    adapter = next((name for name in ADAPTERS if (path / name).is_file()), None)
    if adapter is not None:
        raise ModelError(
            f"{path} has an adapter ({adapter}), which would not stay with the weights: merge it first, with peft's "
            "merge_and_unload, save the merged model and its tokenizer with save_pretrained, and give that folder."
        )
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json; give a folder in Hugging Face format.")
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{path} has no *.safetensors weights; other formats are never loaded: save it again with "
            "save_pretrained, which writes safetensors."
        )
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{path} has no tokenizer; save the model's tokenizer into it with save_pretrained.")
    config = _read_json(path / "config.json")
    if "auto_map" in config:
        raise ModelError(f"The model in {path} wants to run code of its own (auto_map); AFT never does that.")
    if "transformers_weights" in config:
        raise ModelError(
            f"{path / 'config.json'} names weights of its own (transformers_weights), which others may not read; save "
            "the model again with save_pretrained."
        )
    if not (path / _SINGLE).is_file():
        _refuse_missing_shards(path)


def _refuse_missing_shards(path: Path) -> None:
    if not (path / _INDEX).is_file():
        raise ModelError(f"{path} has neither {_SINGLE} nor {_INDEX}; save the model again with save_pretrained.")
    try:
        shards = {str(name) for name in _read_json(path / _INDEX)["weight_map"].values()}
    except (TypeError, KeyError, AttributeError):  # another shape
        shards = set()
    missing = sorted(name for name in shards if not decides(Path(name)) or not (path / name).is_file())
    if missing or not shards:
        raise ModelError(
            f"{path / _INDEX} names {missing[0] if missing else 'no weights'}, and every file of weights must lie in "
            "that folder; save or fetch the model again."
        )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}.") from error


def hide_weight_bars() -> None:
    """Loading and writing of weights would draw a bar for every model, among those that tell of work."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def on_device(model: "PreTrainedModel") -> "PreTrainedModel":
    """The model on the device that one process computes on: the first accelerator if there is one."""
    import torch

    use_threads(model.num_parameters())
    keep_memory(model.num_parameters())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    warn_of_slowness(device, half=model.dtype == torch.bfloat16)
    return model.to(torch.device(device))  # type: ignore[arg-type]


def deciding_files(directory: Path) -> list[Path]:
    """The files that decide what the model says, relative to the directory: weights, configuration, tokenizer."""
    files = [path for path in (*directory.glob("*"), *directory.glob(f"{_TEMPLATES}/*")) if path.is_file()]
    return sorted(path for path in (file.relative_to(directory) for file in files) if decides(path))


def decides(path: Path) -> bool:
    """Whether a file that lies at `path` in a model directory decides what the model says."""
    return any(path.match(pattern) and len(path.parts) == len(Path(pattern).parts) for pattern in DECIDING)


def _reason(error: Exception) -> str:
    """The first line of an error, and the next if the first but announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    announced = len(lines) > 1 and lines[0].endswith(":")
    return " ".join(lines[: 1 + announced]).rstrip(".:") or type(error).__name__
