"""Every setting that cannot be meant is refused with a sentence that names it."""

import math
import re
from typing import Any

import pytest

from aft.errors import SettingsError
from aft.models.adapters import LoraSettings
from aft.models.pocket import Architecture
from aft.tasks.pocket import Corpus
from aft.training.settings import Launch, Objective, TrainingSettings

COUNTS = ("batch_size", "token_budget", "max_tokens", "max_steps", "checkpoint_every", "monitor_every")
NUMBERS = (*COUNTS, "epochs", "learning_rate", "warmup", "weight_decay", "max_grad_norm")
USUAL: dict[str, Any] = {"epochs": 3, "learning_rate": 2e-5, "batch_size": 8}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": -4}, "batch_size"),
        ({"token_budget": 0}, "token_budget"),
        ({"token_budget": -2}, "token_budget"),
        *(({name: 0}, name) for name in ("epochs", "learning_rate", "max_grad_norm", "max_tokens", "max_steps")),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"epochs": -1}, "epochs"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"max_steps": -1}, "max_steps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"warmup": -0.1}, "warmup"),
        ({"warmup": 1.0}, "warmup"),  # as a number of steps, as transformers would read it, it is not meant
        ({"warmup": 100}, "warmup"),
        ({"epochs": 1.0e308}, "epochs"),
        ({"epochs": 0.0001}, "epochs"),  # not one step of a thousand
        ({"epochs": "3"}, "epochs"),
        ({"weights": "bfloat16"}, "set precision to bfloat16"),
        ({"weights": "nf4", "precision": "bfloat16"}, "set lora, too"),
        *(({name: True}, name) for name in NUMBERS),
        *(({name: value}, name) for name in NUMBERS for value in (math.nan, math.inf, -math.inf, 10**40)),
        *(({name: 2.5}, name) for name in COUNTS),
        *(({name: 99999999999999999999}, name) for name in COUNTS),
    ],
)
def test_training_settings_are_refused(changes, named):
    with pytest.raises(SettingsError, match=named):
        TrainingSettings(**USUAL | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0.5},
        {"token_budget": 1},
        {"warmup": 0.0},
        {"weight_decay": 0.0},
        {"max_steps": 1},
        {"epochs": 0.001, "learning_rate": 1e30, "batch_size": 10**9, "monitor_every": None},
        {"epochs": 1_000_000, "learning_rate": 1},
    ],
)
def test_training_settings_at_their_limits(changes):
    settings = TrainingSettings(**USUAL | changes)
    assert {name: getattr(settings, name) for name in changes} == changes


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"term": "dpo", "dpo_beta": 0.0}, "dpo_beta"),
        ({"term": "dpo", "dpo_beta": math.nan}, "dpo_beta"),
        ({"term": "dpo", "reference_as_positive": True}, "leave out reference_as_positive"),
        ({"term": "topr", "reference_as_positive": True}, "leave out reference_as_positive.* other than topr"),
        ({"term": "simpo", "score_reduction": "sum"}, "leave out score_reduction"),
        ({"imitate": "positives"}, "imitate: positives needs the groups of an alignment term; RFT is learn_positives"),
        ({"constants": {"beta": 1.0}}, "'none' has no constant 'beta'"),
        ({"term": "dpo", "constants": {"beta": 1.0}}, "'dpo' has no constant 'beta'"),
        ({"term": "simpo", "constants": {"alpha": 1.0}}, "'simpo' has no constant 'alpha', only beta, gamma"),
        *(({"term": "simpo", "constants": {"gamma": value}}, "constants.gamma is") for value in (True, -1, math.nan)),
        *(({"term": "topr", "constants": {"baseline": value}}, "constants.baseline is") for value in (-1, 1)),
        *(({"term": "gspo", "constants": {"epsilon": value}}, "constants.epsilon is") for value in (0, 1)),
        ({"constraint": "detached"}, "constraint needs an alignment term"),
        ({"constraint": "boundary", "learn_positives": True}, "constraint needs an alignment term"),
        ({"term": "aft", "weight": -1.0}, "weight"),
        ({"term": "aft", "weight": math.nan}, "weight"),
        ({"term": "aft", "constraint": "boundary", "beta": math.inf}, "beta"),
        ({"term": "aft", "learn_positives": True}, "learn_positives"),  # its examples have no groups to rank
        ({"learn_positives": True, "vft_weight": 0.0}, "nothing to learn"),
        ({"term": "aft", "weight": 0.0, "vft_weight": 0.0}, "nothing to learn"),
        ({"learn_positives": True, "vft_reduction": "pro"}, "vft_reduction"),
        *(
            ({"term": "aft", name: value}, rf"^objective\.{name} is [\w+]+: it must be a number")
            for name in ("weight", "vft_weight", "beta", "dpo_beta")
            for value in (True, math.nan, math.inf, 1e31)
        ),
    ],
)
def test_objectives_are_refused(changes, named):
    with pytest.raises(SettingsError, match=named):
        Objective(**changes)


@pytest.mark.parametrize(
    ("objective", "label"),
    [
        (Objective(), "vft"),
        (Objective(learn_positives=True), "rft"),
        (Objective(term="aft"), "aft"),
        (Objective(term="aft", constraint="detached_lowest"), "aft+detached_lowest"),
        (Objective(term="rrhf", constraint="boundary"), "rrhf+boundary"),
    ],
)
def test_labels(objective, label):
    assert objective.label == label


@pytest.mark.parametrize(
    ("settings", "changes", "named"),
    [
        *((LoraSettings, {"rank": value}, "lora.rank") for value in (0, True, 1.5, 10**20)),
        *((LoraSettings, {"alpha": value}, "lora.alpha") for value in (0, True, math.nan, math.inf, 1e31)),
        *((LoraSettings, {"dropout": value}, "lora.dropout") for value in (-0.1, True, math.nan, 1.0)),
        *((Launch, {"processes": value}, "launch.processes") for value in (0, True, 1.5, 99999)),
        *((Launch, {"machines": value}, "launch.machines") for value in (0, True, math.inf)),
        *((Architecture, {"layers": value}, "architecture.layers") for value in (0, True, 1.5, 10**20)),
        *((Architecture, {"seed": value}, "architecture.seed") for value in (-1, True, 2**32)),
        *((Corpus, {"texts": value}, "corpus.texts") for value in (0, True, 2.5, 10**20)),
        *((Corpus, {"misconception": value}, "corpus.misconception") for value in (1.1, True, math.nan)),
        *((Corpus, {"slip": value}, "corpus.slip") for value in (-0.1, True, math.inf)),
        *((Corpus, {"seed": value}, "corpus.seed") for value in (-1, 0.5, 2**32)),
    ],
    ids=str,
)
def test_numbers_beyond_their_bounds_are_refused(settings, changes, named):
    (value,) = changes.values()
    with pytest.raises(SettingsError, match=f"^{re.escape(named)} is {re.escape(str(value))}: it must be a "):
        settings(**changes)


def test_the_bounds_are_said():
    with pytest.raises(
        SettingsError, match=r"^training\.epochs is 0\.0: it must be a number from 0\.001 up to 10{6}\.$"
    ):
        TrainingSettings(**dict(USUAL, epochs=0.0))
    with pytest.raises(SettingsError, match=r"^training\.warmup is 1: it must be a number from 0 and below 1\.$"):
        TrainingSettings(**dict(USUAL, warmup=1))
    with pytest.raises(
        SettingsError, match=r"^training\.batch_size is 0: it must be a whole number from 1 up to 10{9}\.$"
    ):
        TrainingSettings(**dict(USUAL, batch_size=0))
