"""The card of a model that was made here: a README with the head that the Hugging Face hub reads."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aft.models.adapters import ADAPTER

CARD = "README.md"
HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")  # owner/name
# Named one by one: whatever else a manifest may come to say, a place or a secret among it, is not for a page that is
# made to be passed on.
_SECTIONS = {
    "objective": "Objective",
    "training": "Training",
    "chat": "Chat prompt",
    "corpus": "Corpus",
    "architecture": "Architecture",
}
_FACTS = {
    "recipe": "Recipe",
    "data": "Training questions",
    "prompt_style": "Prompt style",
    "base": "Base model",
    "base_fingerprint": "Fingerprint of the base model, as in the log",
    "start": "Fingerprint of the model that training started from",
    "examples": "Hash of the training examples",
    "probe": "Hash of the held-out examples that were watched",
    "seed": "Seed",
    "code": "Hash of the code that trained it",
}


def model_card(made_from: Mapping[str, Any], provenance: Mapping[str, Any] = {}) -> str:
    """The README of a model made from what its manifest names; the licence is not known and left out.

    `provenance` holds what stands on the card only: recipe, data, prompt_style, chat, base, base_fingerprint, and
    base_model, the base model's name on the hub; a name that is none, such as a folder's, is left out.
    """
    from huggingface_hub import ModelCardData

    base = str(provenance.get("base_model", ""))
    objective, training = made_from.get("objective") or {}, made_from.get("training") or {}
    lora = bool(training.get("lora"))
    tags = ["alignment-fine-tuning", *_tags(objective), *(["lora"] if lora else [])]
    head = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base if HUB_NAME.fullmatch(base) else None,
        tags=tags,
    )
    lines = ["---", head.to_yaml(), "---", ""]
    lines += [f"# {_title(made_from)}", "", _introduction(objective, lora), ""]
    known = {**made_from, **provenance}
    facts = [(title, known[name]) for name, title in _FACTS.items() if known.get(name) is not None]
    lines += ["## Made from", "", *_table(facts)]
    for name, title in _SECTIONS.items():
        if known.get(name):
            lines += [f"## {title}", "", *_table(_leaves(known[name]))]
    return "\n".join(lines).rstrip("\n") + "\n"


def with_results(card: str, name: str, dataset: str, figures: Mapping[str, float]) -> str:
    """A card whose head tells the hub what the model `name` reached on the test questions of `dataset`.

    `figures` are those of `aft.evaluation.predictions.measure`; shares are told in percent.
    """
    from huggingface_hub import EvalResult, ModelCard

    told = ModelCard(card, ignore_metadata_errors=True)
    told.data["model_name"] = name
    told.data["eval_results"] = [
        EvalResult(
            task_type="text-generation",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split="test",
            metric_type="accuracy" if figure == "accuracy" else title,
            metric_name=title,
            metric_value=round(100 * value, 2),
        )
        for figure, value in figures.items()
        if (title := _title_of_figure(figure)) and math.isfinite(value)
    ]
    return str(told)


def _title_of_figure(figure: str) -> str | None:
    """How a figure is called on a card; None if it does not stand there."""
    if figure == "accuracy":
        return "greedy accuracy (%)"
    at_k = re.fullmatch(r"(mean|maj|pass)_at_([0-9]+)", figure)
    return f"{at_k[1]}@{at_k[2]} (%)" if at_k else None


def _title(made_from: Mapping[str, Any]) -> str:
    kind = str(made_from.get("kind", "model"))
    return kind[:1].upper() + kind[1:]


def _tags(objective: Mapping[str, Any]) -> list[str]:
    """What the objective is called, its constraint included."""
    if not objective:
        return []
    if objective["term"] == "none":
        return ["rft" if objective["learn_positives"] else "vft"]
    return [objective["term"], *([objective["constraint"]] if objective["constraint"] != "none" else [])]


def _introduction(objective: Mapping[str, Any], lora: bool) -> str:
    text = "A causal language model, trained with AFT (Alignment Fine-Tuning)."
    if objective:
        text = (
            "A causal language model that learned to reason step by step, trained with AFT (Alignment Fine-Tuning): "
            f"{', '.join(_tags(objective))}."
        )
    if not lora:
        return text
    return f"{text} A low-rank adapter was trained: it is merged into the weights, and kept in `{ADAPTER}/`."


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names, dotted where nested, and values; in the order of a manifest, so that one made anew is the same."""
    for name, value in sorted(values.items()):
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"`{prefix}{name}`", value


def _table(rows: Iterable[tuple[str, Any]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | `{_shown(value)}` |" for name, value in rows), ""]


def _shown(value: Any) -> str:
    """As in YAML; a bar would end the cell, a tick the code."""
    return json.dumps(value, default=str).strip('"').replace("|", "/").replace("`", "'")
