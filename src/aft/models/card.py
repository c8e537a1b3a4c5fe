"""The card of a model that was made here: a README with the head that the Hugging Face hub reads."""

import json
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
    """The README of a model made from what its manifest names; metrics and licence are not known here and left out.

    `provenance` holds what stands on the card only: recipe, data, prompt_style, chat, base, base_fingerprint, and
    base_model, the base model's name on the hub; a name that is none, such as a folder's, is left out.
    """
    base = str(provenance.get("base_model", ""))
    objective, training = made_from.get("objective") or {}, made_from.get("training") or {}
    lora = bool(training.get("lora"))
    tags = ["alignment-fine-tuning", *_tags(objective), *(["lora"] if lora else [])]
    head = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": base} if HUB_NAME.fullmatch(base) else {}),
        "tags": tags,
    }
    lines = ["---", *(f"{name}: {json.dumps(value)}" for name, value in head.items()), "---", ""]
    lines += [f"# {_title(made_from)}", "", _introduction(objective, lora), ""]
    known = {**made_from, **provenance}
    facts = [(title, known[name]) for name, title in _FACTS.items() if known.get(name) is not None]
    lines += ["## Made from", "", *_table(facts)]
    for name, title in _SECTIONS.items():
        if known.get(name):
            lines += [f"## {title}", "", *_table(_leaves(known[name]))]
    return "\n".join(lines).rstrip("\n") + "\n"


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
