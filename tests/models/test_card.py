"""The card says what a model was made from, and nothing that it was not told to say."""

import json
from typing import Any

import pytest
import yaml

from aft.models.card import model_card, with_results

MADE_FROM: dict[str, Any] = {
    "kind": "model train aft+boundary",
    "start": "0011223344556677",
    "examples": "8899aabbccddeeff",
    "training": {"epochs": 3.0, "learning_rate": 2e-05, "max_steps": None, "lora": None},
    "objective": {"term": "aft", "constraint": "boundary", "beta": 0.15, "learn_positives": False},
    "seed": 7,
    "code": "fedcba9876543210",
}
LORA = {**MADE_FROM["training"], "lora": {"rank": 4, "target_modules": ["q_proj", "v_proj"]}}


def head(card: str) -> dict[str, Any]:
    opening, text, _ = card.split("---\n", 2)
    assert opening == "", "the head is the first thing of the file"
    return yaml.safe_load(text)


def test_the_head_is_what_the_hub_reads() -> None:
    assert head(model_card(MADE_FROM)) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["alignment-fine-tuning", "aft", "boundary"],
    }


@pytest.mark.parametrize(
    ("objective", "tags"),
    [
        ({"term": "none", "constraint": "none", "learn_positives": False}, ["vft"]),
        ({"term": "none", "constraint": "none", "learn_positives": True}, ["rft"]),
        ({"term": "pro", "constraint": "none", "learn_positives": False}, ["pro"]),
    ],
)
def test_tags_name_the_method(objective: dict[str, Any], tags: list[str]) -> None:
    assert head(model_card(MADE_FROM | {"objective": objective}))["tags"] == ["alignment-fine-tuning", *tags]


def test_the_body_tells_settings_hashes_and_seed() -> None:
    card = model_card(MADE_FROM)
    for told in (
        *("# Model train aft+boundary", "`0011223344556677`", "`8899aabbccddeeff`", "| Seed | `7` |"),
        *(
            "| Hash of the code that trained it | `fedcba9876543210` |",
            "| `learning_rate` | `2e-05` |",
            "| `max_steps` | `null` |",
        ),
        *("| `term` | `aft` |", "| `beta` | `0.15` |"),
    ):
        assert told in card, told
    again = json.loads(json.dumps(MADE_FROM | {"training": LORA}, sort_keys=True))
    assert model_card(again) == model_card(MADE_FROM | {"training": LORA}), "from the manifest as at first"


def test_an_adapter_is_told_of() -> None:
    card = model_card(MADE_FROM | {"training": LORA})
    assert "lora" in head(card)["tags"] and "`adapter/`" in card
    assert "| `lora.rank` | `4` |" in card and '`["q_proj", "v_proj"]`' in card
    assert "adapter" not in model_card(MADE_FROM)


@pytest.mark.parametrize("name", ["owner/name", "Qwen/Qwen2.5-0.5B", "a/1e5"])
def test_a_name_on_the_hub_is_the_base_model(name: str) -> None:
    assert head(model_card(MADE_FROM, {"base_model": name}))["base_model"] == name


@pytest.mark.parametrize("name", [None, "", "/home/somebody/model", "./model", "models", "a/b/c", "a/b\nlicense: mit"])
def test_anything_else_is_not(name: str | None) -> None:
    card = model_card(MADE_FROM, {"base_model": name})
    assert "base_model" not in head(card) and "license" not in head(card)
    assert "somebody" not in card


def test_what_is_in_no_manifest_is_told_from_the_provenance() -> None:
    card = model_card(MADE_FROM, {"recipe": "gsm8k", "data": "gsm8k (7473)", "prompt_style": "chat", "path": "/home"})
    for told in ("| Recipe | `gsm8k` |", "| Training questions | `gsm8k (7473)` |", "| Prompt style | `chat` |"):
        assert told in card, told
    assert "/home" not in card


def test_what_it_does_not_know_it_does_not_tell() -> None:
    """A place or a key that a manifest may come to hold."""
    more = {"path": "/home/somebody/model", "api_key": "sk-123", "start_model": {"folder": "/x"}}
    assert model_card(MADE_FROM | more) == model_card(MADE_FROM)


def test_a_model_from_random_weights_has_a_card() -> None:
    """The pocket base model: no start and no objective, but a corpus and an architecture."""
    made_from = {"kind": "pocket base model", "corpus": {"texts": 9}, "architecture": {"layers": 3}, "training": LORA}
    card = model_card(made_from)
    assert head(card)["tags"] == ["alignment-fine-tuning", "lora"]
    assert "# Pocket base model" in card and "| `texts` | `9` |" in card and "| `layers` | `3` |" in card


def test_no_value_breaks_its_table() -> None:
    card = model_card(MADE_FROM | {"seed": "a|b`c\nd"})
    assert r"| Seed | `a/b'c\nd` |" in card


def test_the_head_tells_the_hub_what_was_reached() -> None:
    figures = {"accuracy": 0.5, "accuracy_low": 0.4, "mean_at_8": 1 / 3, "mean_at_8_low": 0.2, "maj_at_4": 0.6}
    card = with_results(model_card(MADE_FROM), "owner/name", "gsm8k", figures | {"pass_at_4": 0.75, "auroc": 0.5})
    told = head(card)
    (results,) = [entry["results"] for entry in told["model-index"] if entry["name"] == "owner/name"]
    metrics = {metric["name"]: metric["value"] for one in results for metric in one["metrics"]}
    assert metrics == {"greedy accuracy (%)": 50.0, "mean@8 (%)": 33.33, "maj@4 (%)": 60.0, "pass@4 (%)": 75.0}
    assert {one["dataset"]["type"] for one in results} == {"gsm8k"}
    assert told["tags"] == head(model_card(MADE_FROM))["tags"] and "# Model train aft+boundary" in card
