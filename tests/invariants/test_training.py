"""A run of ten steps does not depend on how its responses are scored, nor on how its batches are split."""

import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from aft.training import loop
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.settings import Objective, TrainingSettings

STEPS = 10
BOUNDARY = Objective(term="aft", constraint="boundary")
OBJECTIVES = [BOUNDARY, Objective(term="aft", constraint="detached"), Objective(term="dpo")]
AT_ONCE: dict[str, Any] = {"scoring": "naive", "token_budget": 8192}
WAYS: list[dict[str, Any]] = [
    {"scoring": "naive", "token_budget": 1},  # question by question: batch 1 x accumulation 8
    {"scoring": "shared", "token_budget": 8192},
    {"scoring": "shared", "token_budget": 1},  # every question in two passes
    {"scoring": "shared", "token_budget": 100},  # several passes a step, and questions of more than that in two
    {"scoring": "two_pass", "token_budget": 8192},
]


class Run(NamedTuple):
    curve: list[dict[str, float]]
    start: torch.Tensor
    weights: torch.Tensor
    passes: int


@pytest.fixture(scope="module")
def questions() -> list[Example]:
    """Twenty questions with two to six candidates, some without any, some without two kinds; 23 tokens at the most."""
    rng = random.Random(1)

    def tokens() -> list[int]:
        return [rng.randrange(2, 64) for _ in range(rng.randint(1, 14))]

    examples = []
    for i in range(20):
        candidates = [] if i % 7 == 6 else [tokens() for _ in range(rng.randint(2, 6))]
        ranks = [0 if i % 5 == 4 else min(j, 2) for j in range(len(candidates))]
        reference = [rng.uniform(-6, -3) for _ in candidates]
        examples.append(Example(f"q{i:02d}", tokens()[:9], [tokens()], candidates, ranks, reference))
    return examples


def train(model: Any, examples: list[Example], objective: Objective, folder: Path, **how: Any) -> Run:
    usual = {"epochs": 9, "max_steps": STEPS, "learning_rate": 1e-3, "batch_size": 8, "warmup": 0.2}
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    passes, original = [], loop._one_pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_one_pass", lambda *given: passes.append(None) or original(*given))
        job = Job(examples, TrainingSettings(**usual, **how), objective, 3, "test")
        curve = loop.fit_weights(model, job, folder).curve
    weights = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    return Run(curve, start, weights, len(passes))


def assert_same(found: Run, expected: Run, rel: float) -> None:
    """Loss and gradient norm of every step; weights relative to the way that they went."""
    assert len(found.curve) == len(expected.curve) == STEPS
    names = {"loss", "grad_norm", "vft_term", "alignment_term", "constraint_term"}
    names |= {"score_positive", "score_negative", "margin"}
    for row, other in zip(found.curve, expected.curve, strict=True):
        for name in sorted(names):
            assert row[name] == pytest.approx(other[name], rel=rel, abs=rel), (row["step"], name)
    went = (expected.weights - expected.start).norm()
    assert float((found.weights - expected.weights).norm() / went) < 10 * rel


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.label)
def test_ten_steps_in_float32(objective, make_model, questions, tmp_path):
    """Gradients agree to about 2e-6 of their largest entry; ten steps of AdamW, which divides by the gradient's size,
    may add that up to 1e-5 in the losses, and to 1e-4 of the way of the weights.
    """
    expected = train(make_model("llama"), questions, objective, tmp_path / "naive", **AT_ONCE)
    assert expected.curve[-1]["loss"] < expected.curve[0]["loss"] - 0.1, "nothing was learnt"
    assert expected.passes == STEPS
    for way in WAYS if objective is BOUNDARY else [WAYS[0], WAYS[3]]:
        found = train(make_model("llama"), questions, objective, tmp_path / "way", **way)
        assert_same(found, expected, 1e-5)
        if way["token_budget"] == 1:  # epochs of 8, 8 and 4 questions: ten steps are 8 + 8 + 4, three times, and 8
            assert found.passes == 3 * 20 + 8


def test_ten_steps_in_float64(make_model, questions, tmp_path):
    """Nothing but rounding keeps the paths apart: with nine digits more, the runs agree in five more at the least."""
    expected = train(make_model("llama", exact=True), questions, BOUNDARY, tmp_path / "naive", **AT_ONCE)
    for way in WAYS[2:4]:
        found = train(make_model("llama", exact=True), questions, BOUNDARY, tmp_path / "way", **way)
        assert_same(found, expected, 1e-10)
