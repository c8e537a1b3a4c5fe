"""Models are written, derived from others and published: a directory takes over the files that decide what it says."""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft.code import source_hash
from aft.directories import build_once, finish_directory, is_intact, read_manifest
from aft.files import write_json, write_text, writing
from aft.locks import lock_of, locked
from aft.models.adapters import ADAPTER
from aft.models.card import CARD
from aft.models.chat import CHAT_KEY, STYLE_KEY, ChatSettings, PromptStyle, chat_settings, check_chat, prompt_style
from aft.models.directory import ModelDirectory, decides, deciding_files, fingerprint_of, hashes_of, open_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WARNINGS = "training_warnings.json"  # of degradation while the model was trained, see aft.training.monitor
_TOKENIZER_CONFIG = "tokenizer_config.json"
_ROOMS = ("models",)  # whose code decides what a directory is that is made from another
_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/[^/]+/?")  # where the hub's client keeps a fetched model


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
    fingerprint = fingerprint_of(hashes_of(directory))
    line = f"The fingerprint of weights, configuration and tokenizer is `{fingerprint}`."
    write_text(directory / CARD, f"{card}\n{line}\n")


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
    with writing(target), locked(lock_of(target)):
        if _is_published(source, target):  # by another process in between
            return published
        shutil.rmtree(staged, ignore_errors=True)  # what a killed run left
        staged.mkdir(parents=True)
        for path in handed_on(source.path):
            _take_over(source.path, path, staged)
        finish_directory(staged, target, _made_from(source))
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
    files = [Path(name) for name in manifest["files"]] if manifest else deciding_files(source.path)

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
    settings = {CHAT_KEY: chat.told} if chat is not None and chat.told else {}
    if (prompt_style(tokenizer), chat_settings(tokenizer)) == (style, chat or ChatSettings()):
        return source
    now = {"fingerprint": source.fingerprint, "prompt_style": style, **settings}
    made_from = {**_given(source), **source.made_from, **now}
    made_from["code"] = source_hash(*_ROOMS)  # in place of that of the source, which its fingerprint stands for

    files = [path for path in deciding_files(source.path) if path.name != _TOKENIZER_CONFIG]
    given = source.path / _TOKENIZER_CONFIG
    config = json.loads(given.read_text(encoding="utf-8")) if given.is_file() else {}
    kept = {name: value for name, value in config.items() if name != CHAT_KEY}
    text = json.dumps({**kept, STYLE_KEY: style, **settings}, indent=2) + "\n"

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

    Its card may be edited since: it is the user's, as the licence that it may name.
    It must say the same of what they were made from: two trainings may end with the same bytes.
    """
    manifest = read_manifest(target)
    if manifest is None or manifest["made_from"] != _made_from(source) or handed_on(source.path) != handed_on(target):
        return False
    hashes, made = manifest["files"], (read_manifest(source.path) or {}).get("files", {})
    deciding = {name: value for name, value in hashes.items() if decides(Path(name))}
    beside = all(made.get(name) == value for name, value in hashes.items() if name not in deciding)
    return beside and fingerprint_of(deciding) == source.fingerprint and is_intact(target, but=CARD)


def _made_from(source: ModelDirectory) -> dict[str, Any]:
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
    return [*deciding_files(directory), *(path.relative_to(directory) for path in ours)]


def _take_over(source: Path, name: Path, target: Path) -> None:
    """Let the directory `target` have the file `name` of the directory `source`.

    A file that was made here is linked, symbolically across disks. A given one is copied, and so is the card: people
    may edit them in place.
    """
    file = (source / name).resolve()
    (target / name).parent.mkdir(exist_ok=True)
    if read_manifest(source) is None or name.name == CARD:
        shutil.copyfile(file, target / name)
        return
    try:
        os.link(file, target / name)
    except OSError:  # another disk, or a file system or an owner that allows no hard links
        (target / name).symlink_to(file)
