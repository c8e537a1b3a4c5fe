"""What the configuration may say of a number: not `true`, which pydantic takes for 1, and only what is bounded."""

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from aft.pipelines import parameters

TRAINING = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 4}
POCKET = {"corpus": {}, "architecture": {}, "training": TRAINING}


def read(kind: str, given: dict[str, Any]) -> Any:
    return TypeAdapter(getattr(parameters, kind)).validate_python(given)


@pytest.mark.parametrize(
    ("kind", "given", "named"),
    [
        ("Training", {**TRAINING, "learning_rate": True}, "learning_rate"),
        ("Training", {**TRAINING, "batch_size": True}, "batch_size"),
        ("Training", {**TRAINING, "max_steps": True}, "max_steps"),
        ("Training", {**TRAINING, "lora": {"rank": True}}, "lora.rank"),
        ("Variant", {"beta": False}, "beta"),
        ("Launching", {"processes": True}, "processes"),
        ("PocketBase", {**POCKET, "corpus": {"texts": True}}, "corpus.texts"),
        ("PocketBase", {**POCKET, "architecture": {"layers": True}}, "architecture.layers"),
        ("PocketBase", {**POCKET, "training": {**TRAINING, "epochs": True}}, "training.epochs"),
        ("Sampling", {"samples": True}, "samples"),
        ("Evaluation", {"sampling": {"samples": 1, "greedy": True}, "ks": [True]}, "ks"),
        ("Evaluation", {"sampling": {"samples": 1, "greedy": True}, "ks": [1], "resamples": True}, "resamples"),
    ],
)
def test_a_truth_value_is_no_number(kind: str, given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match="is a truth value, which does not belong here") as caught:
        read(kind, given)
    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == named


def test_whole_numbers_text_and_truth_values_stand_where_they_may() -> None:
    """`1` for a share, `2e-5`, which YAML takes for text, and `true` for what is true or false."""
    found = read("Training", {**TRAINING, "weight_decay": 1, "learning_rate": "2e-5", "gradient_checkpointing": True})
    assert (found.epochs, found.weight_decay, found.learning_rate, found.gradient_checkpointing) == (1, 1, 2e-5, True)


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 1.0e308},
        {"epochs": 0.0001},
        {"batch_size": 99999999999999999999},
        {"learning_rate": float("nan")},
        {"lora": {"alpha": float("inf")}},
    ],
    ids=str,
)
def test_a_number_beyond_its_bounds_is_named_with_them(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"is .*: it must be a .*number (from|above) .* up to"):
        read("Training", {**TRAINING, **given})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"resamples": 10**12}, "resamples is 1000000000000: it must be a whole number from 1 up to 1000000."),
        ({"resamples": 0}, "resamples is 0: it must be a whole number from 1 up to 1000000."),
        ({"level": 0.0}, "level is 0.0: it must be a number above 0 and below 1."),
        ({"level": 1.0}, "level is 1.0: it must be a number above 0 and below 1."),
    ],
)
def test_intervals_are_refused_that_would_not_fit_in_memory_or_have_no_ends(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(f"evaluation.{told}")):
        read("Evaluation", {"sampling": {"samples": 1, "greedy": True}, "ks": [1], **given})


@pytest.mark.parametrize(
    ("value", "shown"),
    [(10**4000, "above 1e+30"), (-(16**5000), "below -1e+30"), ("9" * 4000, "above 1e+30")],
    ids=["in digits", "more digits than Python writes", "text"],
)
def test_a_number_too_long_to_be_shown_is_told_in_one_line(value: Any, shown: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read("Training", {**TRAINING, "batch_size": value})
    said = str(caught.value.errors()[0]["ctx"]["error"])  # pyright: ignore[reportTypedDictNotRequiredAccess]
    assert said == f"batch_size is {shown}: it must be a whole number from 1 up to 1000000000."
