"""What the configuration may say of a number: not `true`, which pydantic takes for 1, and only what is bounded."""

import re
from typing import Any

import pytest

from aft.errors import SettingsError
from aft.pipelines.parameters import Evaluation, PocketBase
from aft.sampling.settings import SamplingSettings
from aft.training.settings import Launch, Objective, TrainingSettings

TRAINING: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 4}
POCKET = {"corpus": {}, "architecture": {}, "training": TRAINING}


@pytest.mark.parametrize(
    ("kind", "given", "named"),
    [
        (TrainingSettings, {**TRAINING, "learning_rate": True}, "learning_rate"),
        (TrainingSettings, {**TRAINING, "batch_size": True}, "batch_size"),
        (TrainingSettings, {**TRAINING, "max_steps": True}, "max_steps"),
        (TrainingSettings, {**TRAINING, "lora": {"rank": True}}, "lora.rank"),
        (Objective, {"beta": False}, "beta"),
        (Launch, {"processes": True}, "processes"),
        (PocketBase, {**POCKET, "corpus": {"texts": True}}, "corpus.texts"),
        (PocketBase, {**POCKET, "architecture": {"layers": True}}, "architecture.layers"),
        (PocketBase, {**POCKET, "training": {**TRAINING, "epochs": True}}, "training.epochs"),
        (SamplingSettings, {"samples": True}, "samples"),
        (Evaluation, {"sampling": {"samples": 1, "greedy": True}, "ks": [True]}, "ks.0"),
        (Evaluation, {"sampling": {"samples": 1, "greedy": True}, "ks": [1], "resamples": True}, "resamples"),
    ],
)
def test_a_truth_value_is_no_number(kind: type, given: dict[str, Any], named: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"^\w+\.{re.escape(named)} is (True|False): it must be a (whole )?number "
    ):
        kind(**given)


def test_whole_numbers_text_and_truth_values_stand_where_they_may() -> None:
    """`1` for a share, `2e-5`, which YAML takes for text, and `true` for what is true or false."""
    found = TrainingSettings(**{**TRAINING, "weight_decay": 1, "learning_rate": "2e-5", "gradient_checkpointing": True})
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
    with pytest.raises(SettingsError, match=r"is .*: it must be a .*number (from|above) .* up to"):
        TrainingSettings(**{**TRAINING, **given})


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
    with pytest.raises(SettingsError, match=re.escape(f"evaluation.{told}")):
        Evaluation(**{"sampling": SamplingSettings(1, greedy=True), "ks": [1], **given})


@pytest.mark.parametrize(
    ("value", "shown"),
    [(10**4000, "above 1e+30"), (-(16**5000), "below -1e+30"), ("9" * 4000, f"'{'9' * 55} ...")],
    ids=["in digits", "more digits than Python writes", "text"],
)
def test_a_number_too_long_to_be_shown_is_told_in_one_line(value: Any, shown: str) -> None:
    with pytest.raises(SettingsError) as caught:
        TrainingSettings(**{**TRAINING, "batch_size": value})
    assert str(caught.value) == f"training.batch_size is {shown}: it must be a whole number from 1 up to 1000000000."
