"""What lies at a path that the settings name, as a hash: it may change while the setting does not."""

from pathlib import Path

from aft.files import digest, hash_file
from aft.models.directory import open_model


def content_hash(path: Path, is_model: bool) -> str | None:
    """The fingerprint of a model, or the hash of a file or of the files in a folder; None if there is nothing.

    Raises `ModelError` if a folder that is to be a model is no whole one.
    """
    if is_model:
        return open_model(path).fingerprint if path.is_dir() else None
    if path.is_dir():
        return digest({file.name: hash_file(file) for file in path.iterdir() if file.is_file()})
    return hash_file(path) if path.is_file() else None
