"""What decides a cell's results, as hashes: a finished cell whose mark has not changed is not run again."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aft.code import deciding, source_hash
from aft.files import digest
from aft.nested import leaves
from aft.pipelines.content import MODELS, paths_of
from aft.pipelines.evaluate.nodes import ROOMS
from aft.tasks import marking_code

Mark = dict[str, str]  # the hash of everything that decides, by its name
CODE_OF = "code of "  # a task family: what its name begins with

_BESIDE = (
    *("label", "launch", "model_cache", "sample_cache", "score_cache", "rating_cache"),
    *("comparisons", "compare", "parallel", "threads"),
)
"""Settings, by their first key, that change no variant's results: where they are made and kept, what is compared."""

Content = Callable[[str, bool], str | None]  # the hash of what a path holds, and whether it is to be a model


def mark_of(params: Mapping[str, Any], variant: str, seed: int, content: Content) -> Mark:
    """The mark of one variant of a cell with these parameters: its code, its settings by their first key, and what lies
    in the files and folders that they name.

    What is not there has no entry: the run will tell, unless all that was to be made of it is finished.
    """
    settings = {**params, "align": params["align"][variant]["objective"]}
    held = {key: content(path, key in MODELS) for key, path in _paths(params, seed)}
    named = leaves({name: params[name] for name in ("task", "test_sets")})
    families = [value for key, value in named if key.rpartition(".")[2] == "family"]
    own = {f"{CODE_OF}{name}": digest(code) for name in sorted(set(families)) if (code := marking_code([name]))}
    return {
        "code": source_hash(*ROOMS),
        **own,
        **{name: digest(deciding(value)) for name, value in settings.items() if name not in _BESIDE},
        **{f"what {key} holds": value for key, value in held.items() if value is not None},
    }


def changed(mark: Mark, before: Any) -> list[str]:
    """What of a mark is not as it was in the mark `before`; everything if that is none."""
    known = before if isinstance(before, dict) else {}
    return [name for name, value in mark.items() if known.get(name) != value]


def _paths(params: Mapping[str, Any], seed: int) -> Iterator[tuple[str, str]]:
    """Dotted key and path of every file and folder that the settings name."""
    names = ("task", "test_sets", "labelling", "sample_from", "candidates_from", "base_model")
    asked = {name: params[name] for name in names}
    for key, value in paths_of(asked):
        yield key, value.replace("{seed}", str(seed))
