"""TRL's own losses give the same numbers, and the same gradient, on the same log-probabilities."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aft.alignment.losses import alignment_loss

trl = pytest.importorskip(
    "trl", reason="TRL is not installed: pip install 'aft[bench]' to compare the losses with its own"
)

LENGTHS = (3, 2, 4, 1)
SUMS = (-1.1, -3.2, -0.7, -2.6)
REFERENCES = (-1.4, -2.9, -1.5, -2.0)  # sums, too
RIGHT = (True, True, False, False)
PAIRS = [(chosen, rejected) for chosen in (0, 1) for rejected in (2, 3)]


def ours(term: str, **constants: float) -> tuple[float, list[float]]:
    """The loss of one question, and its gradient in each sum."""
    sums, lengths = torch.tensor([SUMS], dtype=torch.float64, requires_grad=True), torch.tensor([LENGTHS])
    loss, _ = alignment_loss(
        *(sums / lengths, torch.tensor([[int(not right) for right in RIGHT]]), torch.ones(1, 4, dtype=torch.bool)),
        term=term,
        constants=constants,
        lengths_Q_K=lengths,
        rewards_Q_K=torch.tensor([RIGHT]),
        reference_scores_Q_K=torch.tensor([REFERENCES], dtype=torch.float64) / lengths,
    )
    (gradient,) = torch.autograd.grad(loss, sums)
    return loss.item(), gradient[0].tolist()


def without_init(trainer: type, **attributes: Any) -> Any:
    """A trainer with what its loss reads, and without model and data."""
    from accelerate import Accelerator

    bare: Any = object.__new__(trainer)
    vars(bare).update(accelerator=Accelerator(cpu=True), **attributes)
    return bare


def trl_dpo(loss_type: str, beta: float) -> tuple[float, list[float]]:
    """The loss that TRL's DPO trainer has of all pairs, if a model gives each response its sum, spread over tokens."""
    trainer = without_init(
        trl.DPOTrainer,
        **{"loss_types": [loss_type], "loss_weights": [1.0], "beta": beta, "f_divergence_type": "reverse_kl"},
        **{"precompute_ref_logps": True, "ld_alpha": None, "use_weighting": False, "aux_loss_enabled": False},
        **{"_metrics": {"train": defaultdict(list)}, "_total_train_tokens": 0, "_tp_size": 1},
    )
    trainer.model = torch.nn.Identity()
    sums = torch.tensor(SUMS, dtype=torch.float64, requires_grad=True)
    order = torch.tensor([chosen for chosen, _ in PAIRS] + [rejected for _, rejected in PAIRS])
    mask = torch.arange(1 + max(LENGTHS))[None, :] - 1 < torch.tensor(LENGTHS)[order][:, None]
    mask[:, 0] = False  # a prompt of one token
    log_probs = mask[:, 1:] * (sums / torch.tensor(LENGTHS))[order][:, None]
    nothing = torch.zeros_like(log_probs)
    outputs = SimpleNamespace(log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
    references = torch.tensor(REFERENCES, dtype=torch.float64)[order]
    inputs = {"input_ids": mask.long(), "attention_mask": torch.ones_like(mask), "completion_mask": mask.long()}
    inputs |= dict(zip(("ref_chosen_logps", "ref_rejected_logps"), references.chunk(2), strict=True))
    loss = trainer.compute_loss(lambda **_: outputs, inputs)
    (gradient,) = torch.autograd.grad(loss, sums)
    return loss.item(), gradient.tolist()


def trl_simpo(beta: float, gamma: float) -> tuple[float, list[float]]:
    """The same of its CPO trainer, which compares means over tokens for SimPO."""
    trainer = pytest.importorskip("trl.experimental.cpo").CPOTrainer
    constants = {"beta": beta, "simpo_gamma": gamma, "alpha": 0.0, "label_smoothing": 0.0}
    trainer = without_init(trainer, loss_type="simpo", **constants)
    sums = torch.tensor(SUMS, dtype=torch.float64, requires_grad=True)
    scores = sums / torch.tensor(LENGTHS)
    chosen, rejected = (scores[torch.tensor(side)] for side in zip(*PAIRS, strict=True))
    loss = trainer.cpo_loss(chosen, rejected)[0].mean()
    (gradient,) = torch.autograd.grad(loss, sums)
    return loss.item(), gradient.tolist()


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize(("term", "loss_type"), [("dpo_pairs", "sigmoid"), ("ipo", "ipo")])
def test_losses_of_pairs(term, loss_type, beta):
    (loss, gradient), (expected, slopes) = ours(term, beta=beta), trl_dpo(loss_type, beta)
    assert loss == pytest.approx(expected, abs=1e-12)
    assert gradient == pytest.approx(slopes, abs=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_apo_zero_is_half_of_trls(beta):
    """A pair of TRL adds its two responses; here each counts, in a mean over as many right as wrong ones."""
    (loss, gradient), (expected, slopes) = ours("apo_zero", beta=beta), trl_dpo("apo_zero", beta)
    assert loss == pytest.approx(expected / 2, abs=1e-12)
    assert gradient == pytest.approx([slope / 2 for slope in slopes], abs=1e-12)


def test_simpo():
    (loss, gradient), (expected, slopes) = ours("simpo", beta=2.5, gamma=1.2), trl_simpo(2.5, 1.2)
    assert loss == pytest.approx(expected, abs=1e-12)
    assert gradient == pytest.approx(slopes, abs=1e-12)
