"""The schedule of the learning rate, and that the usual optimiser costs no import of what it does not need."""

import math
import sys

import pytest
import torch

from aft.training.optimizer import make_optimizer, make_schedule
from aft.training.settings import TrainingSettings


def rates(steps: int, warmup: float) -> list[float]:
    model = torch.nn.Linear(2, 2)
    settings = TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0, warmup=warmup)
    optimizer = make_optimizer(model, settings)  # type: ignore[arg-type]
    schedule, found = make_schedule(optimizer, settings, steps), []
    for _ in range(steps + 1):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (0.25, [0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]),  # 2 of 8 steps up, 6 down
        (0.3, [0, 1 / 3, 2 / 3, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5, 0]),  # 2.4 steps are 3
        (0.0, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]),
    ],
)
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(warmup: float, expected: list[float]) -> None:
    assert rates(8, warmup) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("warmup", [0.03, 0.99])
def test_a_training_of_one_step_learns(warmup: float) -> None:
    """Its only step is no warm-up, whose rate would be 0."""
    assert rates(1, warmup) == [1, 0]


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_it_is_the_schedule_of_transformers(steps: int, warmup: float) -> None:
    from transformers import get_linear_schedule_with_warmup

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    schedule, found = get_linear_schedule_with_warmup(optimizer, min(math.ceil(warmup * steps), steps - 1), steps), []
    for _ in range(steps + 1):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates(steps, warmup) == found


def test_adamw_needs_no_module_that_imports_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of transformers' optimisers does, where peft is installed, and peft imports bitsandbytes: seconds each."""
    monkeypatch.setitem(sys.modules, "transformers.optimization", None)
    assert len(rates(2, 0.0)) == 3
