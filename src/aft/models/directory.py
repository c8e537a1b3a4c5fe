"""Model directories: Hugging Face weights (safetensors), tokenizer, and a manifest of what they were made from."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from aft.code import source_hash
from aft.errors import ModelError
from aft.files import (
    MANIFEST,
    build_once,
    finish_directory,
    hash_file,
    is_intact,
    locked,
    read_manifest,
    write_json,
    write_text,
    writing,
)
from aft.machine import use_threads, warn_of_slowness
from aft.models.adapters import ADAPTER
from aft.models.card import CARD
from aft.models.chat import CHAT_KEY, STYLE_KEY, ChatSettings, PromptStyle, chat_settings, check_chat, prompt_style
from aft.models.environment import cleared, refuse_low_precision
from aft.models.tokens import end_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

WARNINGS = "training_warnings.json"  # of degradation while the model was trained, see aft.training.monitor
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
_TOKENIZER_CONFIG = "tokenizer_config.json"
_ROOMS = ("models",)  # whose code decides what a directory is that is made from another
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
        model, told = loaded
        if told["missing_keys"]:  # transformers would go on with random weights in their place
            name = min(told["missing_keys"])
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
    hashes = _hashes(path)
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
    return ModelDirectory(path, _fingerprint(hashes))


def _hashes(directory: Path) -> dict[str, str]:
    """Of the deciding files, by name."""
    return {file.as_posix(): hash_file(directory / file) for file in _deciding(directory)}


def _fingerprint(hashes: Mapping[str, str]) -> str:
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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    warn_of_slowness(device, half=model.dtype == torch.bfloat16)
    return model.to(torch.device(device))  # type: ignore[arg-type]


def save_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", directory: Path) -> None:
    """Write weights and tokenizer into `directory`, in the format that plain `transformers` loads.

    Of the settings of generation only the ids of tokens are kept: a penalty or a temperature was meant for another
    model, and would change what this one says. The tokenizer's end-of-sequence token, which a response was trained to
    end with, ends generation wherever the model is loaded: it joins those that `model` names.
    """
    from transformers import GenerationConfig

    given: Any = model.generation_config
    pad = given.pad_token_id
    ends = given.eos_token_id if isinstance(given.eos_token_id, list) else [given.eos_token_id]
    ends = list(dict.fromkeys(token for token in (*ends, tokenizer.eos_token_id) if token is not None))
    model.generation_config = GenerationConfig(
        bos_token_id=given.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends or None,
        pad_token_id=pad if pad is not None and pad >= 0 else None,  # -1 is how some models say that there is none
    )
    with writing(directory):
        model.save_pretrained(directory, safe_serialization=True)
        tokenizer.save_pretrained(directory)


def write_card(directory: Path, card: str) -> None:
    """Write a model's card beside it, with the fingerprint of what is saved there: the card decides nothing."""
    fingerprint = _fingerprint(_hashes(directory))
    told = f"\nThe fingerprint of weights, configuration and tokenizer is `{fingerprint}`.\n"
    write_text(directory / CARD, card + told)


def publish(source: ModelDirectory, target: Path) -> ModelDirectory:
    """Make `target` a directory with the files of `source`: links to what was made here, copies of what was given.

    An earlier `target` is replaced as a whole, unless it holds the same already. Only files that decide what the model
    says are taken over and, of a model that was made here, its card, its adapter and the warnings of its training.
    Another process that publishes there at the same time is waited for.
    """
    published = ModelDirectory(target, source.fingerprint)
    if _is_published(source, target):
        return published
    staged = target.with_name(f".{target.name}.partial")
    with writing(target), locked(target.with_name(f".{target.name}.lock")):
        if _is_published(source, target):  # by another process in between
            return published
        shutil.rmtree(staged, ignore_errors=True)  # what a killed run left
        staged.mkdir(parents=True)
        for path in handed_on(source.path):
            _take_over(source.path, path, staged)
        finish_directory(staged, target, _told_of(source))
    return published


def standing_for(
    source: ModelDirectory,
    objective: Mapping[str, Any],
    cache: Path,
    *,
    under: Mapping[str, Any] = {},
    warnings: Sequence[str] = (),
) -> ModelDirectory:
    """A directory in `cache` with all files of `source`: the same model, as what `objective` comes to.

    Its manifest says so under `stands_for`, beside what the model was made from and, of a base model that was not
    trained, `under` which settings it would have been. `warnings` are kept beside it, as those of a training.
    """
    stands_for = {"fingerprint": source.fingerprint, "stands_for": dict(objective)}
    made_from = {**_given(source), **source.made_from, **under, **stands_for}
    manifest = read_manifest(source.path)
    files = [Path(name) for name in manifest["files"]] if manifest else _deciding(source.path)

    def write_warnings(directory: Path) -> None:
        if warnings:
            write_json(directory / WARNINGS, list(warnings))

    return ModelDirectory(_derived(source, files, made_from, cache, write_warnings), source.fingerprint)


def in_prompt_style(
    source: ModelDirectory, style: PromptStyle, cache: Path, chat: ChatSettings | None = None
) -> ModelDirectory:
    """`source` if it wants its prompts in this style already, else a directory in `cache` with its files that does.

    `chat` has the settings of the style "chat" (None: the defaults), which count as a part of it. The tokenizer's
    configuration is written anew there and all else taken over as by `publish`: `source` stays as it is. Raises
    `ModelError` if the style is "chat" and the model's chat template cannot be used, see `check_chat`.
    """
    tokenizer = source.tokenizer()
    if style == "chat":
        check_chat(tokenizer, str(source.path), chat)
    told = {CHAT_KEY: chat.told} if chat is not None and chat.told else {}
    if (prompt_style(tokenizer), chat_settings(tokenizer)) == (style, chat or ChatSettings()):
        return source
    made_from = {**_given(source), **source.made_from, "fingerprint": source.fingerprint, "prompt_style": style, **told}
    made_from["code"] = source_hash(*_ROOMS)  # in place of that of the source, which its fingerprint stands for

    files = [path for path in _deciding(source.path) if path.name != _TOKENIZER_CONFIG]
    given = source.path / _TOKENIZER_CONFIG
    config = json.loads(given.read_text(encoding="utf-8")) if given.is_file() else {}
    kept = {name: value for name, value in config.items() if name != CHAT_KEY}
    text = json.dumps({**kept, STYLE_KEY: style, **told}, indent=2) + "\n"

    def write_config(directory: Path) -> None:
        write_text(directory / _TOKENIZER_CONFIG, text)

    return open_model(_derived(source, files, made_from, cache, write_config))


def _derived(
    source: ModelDirectory,
    files: Sequence[Path],
    made_from: Mapping[str, Any],
    cache: Path,
    add: Callable[[Path], object] = lambda directory: None,
) -> Path:
    """A directory in `cache` with some files of `source`, and what `add` writes there."""

    def build(directory: Path) -> None:
        shutil.rmtree(directory)  # what a killed run left
        directory.mkdir()
        for path in files:
            _take_over(source.path, path, directory)
        add(directory)

    return build_once(cache, made_from, build, *_ROOMS)


def _is_published(source: ModelDirectory, target: Path) -> bool:
    """Whether `target` is finished, intact, and holds the very bytes of `source`, by the hashes that are known.

    It must say the same of what they were made from: two trainings may end with the same bytes.
    """
    manifest = read_manifest(target)
    if manifest is None or manifest["made_from"] != _told_of(source) or handed_on(source.path) != handed_on(target):
        return False
    hashes, made = manifest["files"], (read_manifest(source.path) or {}).get("files", {})
    deciding = {name: value for name, value in hashes.items() if decides(Path(name))}
    beside = all(made.get(name) == value for name, value in hashes.items() if name not in deciding)
    return beside and _fingerprint(deciding) == source.fingerprint and is_intact(target)


def _told_of(source: ModelDirectory) -> dict[str, Any]:
    """What a published model was made from: what its own manifest says, if it was made here."""
    manifest = read_manifest(source.path)
    return manifest["made_from"] if manifest else _given(source)


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
    beside = [directory / CARD, directory / WARNINGS, *(directory / ADAPTER).glob("*")]
    ours = sorted(path for path in beside if path.is_file() and str(path.relative_to(directory)) in named)
    return [*_deciding(directory), *(path.relative_to(directory) for path in ours)]


def _deciding(directory: Path) -> list[Path]:
    """The files that decide what the model says, relative to the directory: weights, configuration, tokenizer."""
    files = [path for path in (*directory.glob("*"), *directory.glob(f"{_TEMPLATES}/*")) if path.is_file()]
    return sorted(path for path in (file.relative_to(directory) for file in files) if decides(path))


def decides(path: Path) -> bool:
    """Whether a file that lies at `path` in a model directory decides what the model says."""
    return any(path.match(pattern) and len(path.parts) == len(Path(pattern).parts) for pattern in DECIDING)


def _take_over(source: Path, name: Path, target: Path) -> None:
    """Let the directory `target` have the file `name` of the directory `source`.

    A file that was made here is linked, symbolically across disks. A given one is copied: whoever gave it may edit it
    in place.
    """
    file = (source / name).resolve()
    (target / name).parent.mkdir(exist_ok=True)
    if read_manifest(source) is None:
        shutil.copyfile(file, target / name)
        return
    try:
        os.link(file, target / name)
    except OSError:  # another disk, or a file system or an owner that allows no hard links
        (target / name).symlink_to(file)


def _reason(error: Exception) -> str:
    """The first line of an error, and the next if the first but announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    announced = len(lines) > 1 and lines[0].endswith(":")
    return " ".join(lines[: 1 + announced]).rstrip(".:") or type(error).__name__
