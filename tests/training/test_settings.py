"""Every setting that cannot be meant is refused with a sentence that names it."""

import math

import pytest

from aft.errors import SettingsError
from aft.training.settings import Objective, TrainingSettings

USUAL = {"epochs": 3, "learning_rate": 2e-5, "batch_size": 8}


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
        ({"constraint": "detached"}, "constraint needs an alignment term"),
        ({"constraint": "boundary", "learn_positives": True}, "constraint needs an alignment term"),
        ({"term": "aft", "weight": -1.0}, "weight"),
        ({"term": "aft", "weight": math.nan}, "weight"),
        ({"term": "aft", "constraint": "boundary", "beta": math.inf}, "beta"),
        ({"term": "aft", "learn_positives": True}, "learn_positives"),  # its examples have no groups to rank
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
