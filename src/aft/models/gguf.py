"""GGUF files, as llama.cpp reads them, made folders in Hugging Face format: weights in float32, tokenizer, template."""

import shutil
from pathlib import Path
from typing import Any

from aft.errors import ModelError, SettingsError
from aft.files import writing
from aft.locks import lock_of, locked
from aft.models.directory import ModelDirectory, hide_weight_bars, open_model
from aft.models.publish import save_model


def convert(file: Path, folder: Path) -> ModelDirectory:
    """Write the model in the GGUF file `file` into the new `folder`, quantised weights as the numbers they stand for.

    Raises `SettingsError` if the package that reads GGUF is missing, `ModelError` if there is no such file, if `folder`
    exists, or if transformers cannot read the file (it knows some of the architectures of llama.cpp), and `StoreError`
    if another process is writing the folder.
    """
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise SettingsError("A GGUF file needs the package gguf; run pip install 'aft[gguf]'.") from error
    if not file.is_file():
        raise ModelError(f"There is no file {file}.")
    with writing(folder), locked(lock_of(folder), patience=0):
        if folder.exists():
            raise ModelError(f"{folder} exists; name a new folder.")
        hide_weight_bars()
        model, tokenizer = _read(file)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
        partial.mkdir(parents=True)
        save_model(model, tokenizer, partial)
        open_model(partial)  # whatever is amiss is found before the folder is there
        partial.rename(folder)
    return open_model(folder)


def _read(file: Path) -> tuple[Any, Any]:
    """The model and tokenizer in a GGUF file.

    A model that was loaded from one counts as quantised and refuses to be saved: its weights go into a fresh one.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        loaded = AutoModelForCausalLM.from_pretrained(file.parent, dtype="float32", **source)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
        given = {name: value for name, value in loaded.config.to_dict().items() if name != "quantization_config"}
        model = AutoModelForCausalLM.from_config(type(loaded.config)(**given), dtype="float32")
        model.load_state_dict(loaded.state_dict())
    except Exception as error:  # of gguf, transformers, tokenizers: they raise what they like
        reason = str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__
        raise ModelError(f"{file} cannot be read by transformers: {reason}.") from error
    return model, tokenizer
