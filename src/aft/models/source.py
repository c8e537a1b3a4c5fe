"""Where a base model comes from: a folder, or a pinned revision on the Hugging Face hub."""

import logging
from pathlib import Path

from aft.errors import ModelError
from aft.hub import message_of
from aft.models.directory import DECIDING, ModelDirectory, open_model

logger = logging.getLogger(__name__)


def find_model(source: str, revision: str | None, fingerprint: str | None) -> ModelDirectory:
    """The model in the folder `source`, or fetched from the hub at `revision` if there is no such folder.

    Raises `ModelError` if it cannot be found, is incomplete, or has another fingerprint than the one pinned.
    """
    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        raise ModelError(f"{path} is a GGUF file; make a folder of it first: aft models from-gguf {path} FOLDER.")
    model = open_model(path if path.is_dir() else _fetch(source, revision))
    check_pinned(model, source, fingerprint)
    logger.info("Base model %s has the fingerprint %s.", source, model.fingerprint)
    return model


def check_pinned(model: ModelDirectory, source: str, fingerprint: str | None) -> None:
    """Raise `ModelError` if a fingerprint is pinned and `model`, which is from `source`, has another one."""
    if fingerprint is not None and model.fingerprint != fingerprint:
        raise ModelError(
            f"The model {source} has the fingerprint {model.fingerprint}, but {fingerprint} is pinned; "
            "give the pinned model, or change base_model.fingerprint."
        )


def _fetch(name: str, revision: str | None) -> Path:
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"There is no model directory {name}; give a folder, or a name on the hub (owner/name).")
    if revision is None:
        raise ModelError(
            f"There is no folder {name}; if it is a model on the hub, set base_model.revision to a commit of its "
            "repository."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*DECIDING, "adapter_config.json"]))
    except Exception as error:  # of the hub, its client, the network
        raise ModelError(
            f"The model {name} at {revision} cannot be fetched: {message_of(error)}; check name and network, or give a "
            "folder."
        ) from error
