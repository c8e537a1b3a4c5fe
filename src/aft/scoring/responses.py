"""Scores that a model gives to responses, made once and kept under a hash of what they follow from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft.directories import build_once, read_manifest
from aft.errors import DataError, NumericalError, StoreError
from aft.files import digest
from aft.models.directory import ModelDirectory, on_device
from aft.models.tokens import encode_question, unscored_tokens
from aft.progress import bar
from aft.scoring.groups import Group
from aft.tasks import Question, get_task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FILE = "scores.parquet"
_ROOMS = ("models", "scoring")  # whose code decides a score


def score_responses(
    source: ModelDirectory,
    responses: "pd.DataFrame",
    questions: Mapping[str, Question],
    precision: str,
    cache: Path,
    *,
    token_budget: int,
    weights: str | None = None,
    load: "Callable[[], PreTrainedModel] | None" = None,
) -> "np.ndarray":
    """The scores [N] (Eq. 2) that `source`, loaded in `precision`, gives N responses, in the order of their rows.

    With `weights` these are loaded in that precision, and `precision` is that of the forward pass (autocast), as in
    training. Where several calls share the model, `load` gives it; it is called only if scores are missing.

    `responses` holds `question_id`, `sample_index` and `token_ids`. The scores are kept in a directory of `cache` whose
    name and manifest say what they follow from: model, prompts, responses, precision and code. `token_budget`, the
    tokens that are scored side by side, bounds memory and decides nothing.

    Raises `DataError` for a response to an unknown question, `ModelError` if the model is not causal, `NumericalError`
    if a score is not finite, and `StoreError` if kept scores are not those of these responses.
    """
    import numpy as np

    unknown = sorted(set(responses["question_id"]) - set(questions))
    if unknown:
        raise DataError(f"Responses to {len(unknown)} unknown questions ({', '.join(unknown[:3])}); label again.")
    prompts = {i: get_task(questions[i].dataset).prompt(questions[i]) for i in responses["question_id"].unique()}
    keys = responses[["question_id", "sample_index"]].reset_index(drop=True)
    names = _names(keys)
    tokens = [np.asarray(ids, dtype=int).tolist() for ids in responses["token_ids"]]
    half, loaded = weights is not None and precision == "bfloat16", weights or precision
    description = {
        "kind": "scores",
        "model": source.fingerprint,
        "precision": f"{precision} over {loaded}" if half or loaded != precision else precision,
        "prompts": digest(prompts),
        "responses": digest([names, tokens]),
    }

    def build(directory: Path) -> None:
        import torch

        model = on_device(source.model(loaded)) if load is None else load()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
            ids = keys["question_id"].tolist()
            scores = _score(model, source.tokenizer(), ids, tokens, questions, token_budget)
        broken = keys["question_id"][~np.isfinite(scores)].unique()
        if len(broken):
            raise NumericalError(
                f"The model in {source.path} gives scores that are not finite, {broken[0]} among them."
            )
        keys.assign(score=scores).to_parquet(directory / _FILE, index=False)

    return _kept(build_once(cache, description, build, *_ROOMS), description, names)


def _kept(finished: Path, description: Mapping[str, Any], names: list[list[str]]) -> "np.ndarray":
    """The scores in a finished directory, which must be those of what is described and of the rows of these names."""
    import pandas as pd

    kept = pd.read_parquet(finished / _FILE)
    made_from = (read_manifest(finished) or {}).get("made_from", {})
    if not description.items() <= made_from.items() or _names(kept) != names:
        raise StoreError(f"The scores in {finished} belong to other responses or another model; delete that folder.")
    return kept["score"].to_numpy()


def _names(responses: "pd.DataFrame") -> list[list[str]]:
    """Question and sample of each row, the same whatever type of text or integer they come in."""
    return responses[["question_id", "sample_index"]].astype(str).to_numpy().tolist()


def _score(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    question_ids: list[str],
    tokens: list[list[int]],
    questions: Mapping[str, Question],
    token_budget: int,
) -> "np.ndarray":
    import numpy as np

    from aft.scoring.paths import choose_path, plan, score

    rows: dict[str, list[int]] = {}
    for row, question_id in enumerate(question_ids):
        rows.setdefault(question_id, []).append(row)
    unscored = [unscored_tokens(tokenizer, ids) for ids in tokens]
    groups = [
        Group(encode_question(tokenizer, questions[i]), [tokens[row] for row in own], [unscored[row] for row in own])
        for i, own in rows.items()
    ]
    numbers = list(rows.values())
    path = choose_path(model, "auto")
    # Prompts of like length side by side, the longest first: if they fit into memory, all do.
    order = sorted(range(len(groups)), key=lambda g: -groups[g].cost)
    scores = np.empty(len(tokens))
    with bar("score responses", len(tokens), "response") as shown:
        for _, places in plan([groups[g] for g in order], path, token_budget):
            some = [order[place] for place in places]
            chosen = [row for g in some for row in numbers[g]]
            scores[chosen] = score(model, path, [groups[g] for g in some], token_budget).double().cpu().numpy()
            shown.update(len(chosen))
    return scores
