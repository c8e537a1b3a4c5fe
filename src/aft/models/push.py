"""Push a finished model to the Hugging Face hub: only when asked, and only weights, tokenizer, card and adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aft.errors import ModelError
from aft.hub import message_of
from aft.models.adapters import ADAPTER
from aft.models.card import CARD, HUB_NAME, with_results
from aft.models.directory import ADAPTERS, WARNINGS, ModelDirectory, decides, handed_on

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True, slots=True)
class Results:
    """What a model reached: the data set of the test questions, and figures by their names."""

    dataset: str
    figures: Mapping[str, float]


def push(model: ModelDirectory, name: str, *, private: bool = False, results: Results | None = None) -> str:
    """Upload weights, tokenizer, card and adapter to the hub's repository `name` (owner/name); its address.

    The repository is made if there is none. It gets all files in one commit, in which the weights, tokenizer and
    adapter of an earlier model go, so that it holds one whole model at any time; files of other kinds stay. With
    `results` the card's head tells them, for the hub to show; the card in the model's folder stays as it is. The token
    is that of `hf auth login` or HF_TOKEN.

    Raises `ModelError` if there is no token, if the hub cannot be reached or refuses, or if `private` is asked of a
    repository that is public.
    """
    from huggingface_hub import HfApi, get_token

    if not HUB_NAME.fullmatch(name):
        raise ModelError(f"'{name}' is no name on the hub: give owner/name.")
    token = get_token()
    if token is None:
        raise ModelError("There is no token for the hub; run hf auth login, or set HF_TOKEN to one that may write.")
    try:
        return _upload(HfApi(token=token), model.path, name, private, results)
    except ModelError:
        raise
    except Exception as error:  # of the hub, its client, the network
        raise ModelError(
            f"The model {model.path} cannot be pushed to {name}: {message_of(error)}; check network, name and the "
            "token's rights."
        ) from error


def _upload(api: "HfApi", folder: Path, name: str, private: bool, results: Results | None) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repository = api.create_repo(name, private=private or None, exist_ok=True)
    if private and not api.model_info(name).private:  # it was there before, and stays what it is
        raise ModelError(f"{name} is there already, and public; make it private on the hub, or choose another name.")
    ours = [path.as_posix() for path in handed_on(folder) if path.name != WARNINGS]
    content: dict[str, Path | bytes] = {path: folder / path for path in ours}
    if results is not None and CARD in content:
        card = (folder / CARD).read_text(encoding="utf-8")
        content[CARD] = with_results(card, name, results.dataset, results.figures).encode()
    added = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=one) for path, one in content.items()]
    there = [Path(path) for path in api.list_repo_files(name)]
    parts = [path for path in there if path.parent == Path(ADAPTER) or decides(path) or str(path) in ADAPTERS]
    stale = [CommitOperationDelete(path.as_posix()) for path in parts if path.as_posix() not in ours]
    api.create_commit(name, [*added, *stale], commit_message="Push a model made with AFT")
    return str(repository)
