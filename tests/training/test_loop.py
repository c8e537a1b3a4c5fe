"""A step of the training loop against loops without padding or batches, and what it refuses."""

import copy
import gc
import math
import random
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from aft.errors import NumericalError
from aft.models.adapters import LoraSettings, add_adapter
from aft.scoring import head
from aft.training import loop, selection
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import CURVE_COLUMNS
from aft.training.settings import Objective, TrainingSettings

PLAIN = Objective()
TERMS = {"alignment_term", "constraint_term"}
SCORES = {"score_positive", "score_negative", "margin"}
PROBED = {"held_out_perplexity"}
EXAMINED = set(selection.COLUMNS)


def settings(**changes):
    usual = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 64, "max_grad_norm": 1e9, "warmup": 0.0}
    return TrainingSettings(**usual | changes)


def train(model, examples, objective, folder, probe=(), **changes):
    """The curve of a run."""
    job = Job(examples, settings(**changes), objective, 3, "test", list(probe))
    return loop.fit_weights(model, job, folder).curve


class Steps:
    """Of each optimiser step within: the optimiser, and the gradients that it is given, by name."""

    def __init__(self, model):
        self.model, self.gradients = model, []
        self.optimizer: Any = None

    def __enter__(self):
        self.hook = register_optimizer_step_pre_hook(self.before)
        return self

    def __exit__(self, *_):
        self.hook.remove()

    def before(self, optimizer, *_):
        self.optimizer = optimizer
        own = self.model.named_parameters()
        self.gradients.append({name: weights.grad.clone() for name, weights in own if weights.grad is not None})


# --- the reference: one response at a time ----------------------------------------------------------------------------


def log_probabilities(model, prompt, response):
    """Of each token of the response, from a forward pass over this one row."""
    logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].float()
    rows = [logits[len(prompt) + i - 1].log_softmax(0)[token] for i, token in enumerate(response)]
    return torch.stack(rows)


def vft_loss(model, examples):
    """Minus the mean log-probability over all tokens of all responses to imitate, each token counted once."""
    tokens = [log_probabilities(model, e.prompt, target) for e in examples for target in e.targets]
    return -torch.cat(tokens).mean()


def alignment_loss(model, examples, constraint, beta):
    """Equations 6, 7 and 8 for two ranks, question by question; a question with one kind only adds 0."""
    total = torch.tensor(0.0)
    for e in examples:
        scores = [log_probabilities(model, e.prompt, response).mean() for response in e.candidates]
        positives = [s for s, rank in zip(scores, e.ranks, strict=True) if rank == 0]
        negatives = [s for s, rank in zip(scores, e.ranks, strict=True) if rank == 1]
        inside = torch.tensor(1.0)
        for p in positives:
            for n in negatives:
                inside = inside + torch.exp((n.detach() if constraint == "detached" else n) - p)
                if constraint == "boundary":
                    turning = (2 * min(positives).detach() - 2 * beta - p).detach()
                    inside = inside + torch.exp(turning - n)
        total = total + torch.log(inside)
    return total / len(examples)


# --- the facts --------------------------------------------------------------------------------------------------------


def test_the_vft_loss_is_the_mean_over_all_response_tokens(small_llama, ragged_examples, tmp_path):
    """Of the whole batch: long responses weigh more than short ones, padding and prompts nothing."""
    model, examples = small_llama(), ragged_examples(9)
    expected = vft_loss(model, examples)
    means = [vft_loss(model, [example]) for example in examples]
    assert abs(torch.stack(means).mean() - expected) > 1e-3, "else this test could not tell the two means apart"
    (row,) = train(model, examples, PLAIN, tmp_path)
    assert row["loss"] == row["vft_term"] == pytest.approx(expected.item(), abs=1e-6)


def test_the_last_token_of_a_response_counts(small_llama, tmp_path):
    """-log P of one token, the end: the only one of the response."""
    model = small_llama()
    expected = -model(input_ids=torch.tensor([[5, 6, 1]])).logits[0, 1].log_softmax(0)[1].item()
    (row,) = train(model, [Example("q", [5, 6], [[1]])], PLAIN, tmp_path)
    assert row["loss"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "how", [{}, {"token_budget": 60}, {"token_budget": 1}, {"scoring": "naive"}, {"scoring": "two_pass"}]
)
@pytest.mark.parametrize("constraint", ["none", "detached", "boundary"])
def test_a_step_has_the_gradient_of_vft_plus_weighted_alignment(
    constraint, how, small_llama, ragged_examples, tmp_path
):
    """Nine questions, of which two have no candidates and one has one kind only, at once or in passes of few tokens."""
    model, examples = small_llama(tied=False), ragged_examples(9)
    kinds = [set(e.ranks) for e in examples]
    assert kinds.count(set()) == 2 and kinds.count({0}) == 1
    reference = copy.deepcopy(model)
    alignment = alignment_loss(reference, examples, constraint, 0.15)
    expected = vft_loss(reference, examples) + 0.7 * alignment
    expected.backward()

    objective = Objective(term="aft", constraint=constraint, weight=0.7)
    with Steps(model) as seen:
        (row,) = train(model, examples, objective, tmp_path, **how)
    assert row["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert row["alignment_term"] + row["constraint_term"] == pytest.approx(alignment.item(), abs=1e-5)
    (gradients,) = seen.gradients
    for name, weights in reference.named_parameters():
        torch.testing.assert_close(gradients[name], weights.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", [PLAIN, Objective(term="aft", constraint="boundary"), Objective(term="rrhf")])
def test_accumulation_changes_nothing(objective, small_llama, ragged_examples, tmp_path):
    """Batches of 8, 8 and 3 at once, or question by question, in one pass or in two."""
    examples = ragged_examples(19)
    models = [small_llama() for _ in range(2)]
    curves = [
        train(model, examples, objective, tmp_path / str(budget), batch_size=8, token_budget=budget)
        for model, budget in zip(models, (8192, 1), strict=True)
    ]
    assert [len(rows) for rows in curves] == [3, 3]
    for whole, accumulated in zip(*curves, strict=True):
        for name in {"step", "loss", "vft_term", "grad_norm", "learning_rate"} | (TERMS & whole.keys()):
            assert accumulated[name] == pytest.approx(whole[name], abs=2e-6), name
    for (name, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6, msg=name)
        assert not torch.equal(one, dict(small_llama().named_parameters())[name]), "nothing was trained"


def test_the_columns_of_the_curve(small_llama, ragged_examples, tmp_path):
    """VFT has no alignment columns; a step without a comparable pair has no scores; `margin` is of means."""
    plain, *_ = train(small_llama(), ragged_examples(4), PLAIN, tmp_path / "plain")
    assert set(CURVE_COLUMNS) - plain.keys() == TERMS | SCORES | PROBED | EXAMINED

    boundary = Objective(term="aft", constraint="boundary", weight=2.0)
    paired = [e for e in ragged_examples(12) if len(set(e.ranks)) == 2]
    (full,) = train(small_llama(), paired, boundary, tmp_path / "full")
    assert set(CURVE_COLUMNS) - full.keys() == PROBED | EXAMINED
    together = full["vft_term"] + 2 * (full["alignment_term"] + full["constraint_term"])
    assert full["loss"] == pytest.approx(together, abs=1e-5)
    model = small_llama()
    for name, rank in (("score_positive", 0), ("score_negative", 1)):
        responses = [(e.prompt, r) for e in paired for r, its in zip(e.candidates, e.ranks, strict=True) if its == rank]
        scores = [log_probabilities(model, prompt, response).mean().item() for prompt, response in responses]
        assert full[name] == pytest.approx(sum(scores) / len(scores), abs=1e-5)

    alike = [e for e in ragged_examples(12) if len(set(e.ranks)) < 2]
    (empty,) = train(small_llama(), alike, boundary, tmp_path / "empty")
    assert set(CURVE_COLUMNS) - empty.keys() == SCORES | PROBED | EXAMINED
    assert empty["alignment_term"] == empty["constraint_term"] == 0
    assert empty["loss"] == empty["vft_term"]


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_zero(small_llama, ragged_examples, tmp_path):
    """Ten steps, a share of .3: 0, 1/3, 2/3 of the peak, then (10 - step) / 7 of it; the next would have 0."""
    model = small_llama()
    with Steps(model) as seen:
        rows = train(model, ragged_examples(10), PLAIN, tmp_path, batch_size=1, learning_rate=0.01, warmup=0.3)
    expected = [0, 0.01 / 3, 0.02 / 3, *(0.01 * (10 - step) / 7 for step in range(3, 10))]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected)
    assert {group["lr"] for group in seen.optimizer.param_groups} == {0.0}


def test_the_gradient_is_scaled_down_to_the_norm(small_llama, ragged_examples, tmp_path):
    """The curve tells the norm before; the optimiser is given .01, and in the same direction."""
    models = [small_llama() for _ in range(2)]
    with Steps(models[0]) as free:
        train(models[0], ragged_examples(8), PLAIN, tmp_path / "free")
    with Steps(models[1]) as clipped:
        (row,) = train(models[1], ragged_examples(8), PLAIN, tmp_path / "clipped", max_grad_norm=0.01)

    def norm(gradients):
        return torch.cat([gradient.flatten() for gradient in gradients.values()]).norm().item()

    assert row["grad_norm"] == pytest.approx(norm(free.gradients[0]), rel=1e-5)
    assert norm(clipped.gradients[0]) == pytest.approx(0.01, rel=1e-3)


# --- optimisers and adapters ------------------------------------------------------------------------------------------


def first_step(model, examples, folder, **changes):
    """The optimiser after one step at a learning rate of .01, the weights before it and the gradients, by name."""
    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    with Steps(model) as seen:
        train(model, examples, PLAIN, folder, learning_rate=0.01, **changes)
    return seen.optimizer, before, seen.gradients[0]


def test_the_default_optimiser_is_fused_adamw(small_llama, ragged_examples, tmp_path):
    """Every weight whose gradient is well above AdamW's 1e-8 goes lr x sign(gradient) in the first step."""
    model = small_llama()
    optimizer, before, gradients = first_step(model, ragged_examples(8), tmp_path)
    assert type(optimizer) is torch.optim.AdamW and optimizer.param_groups[0]["fused"] is True
    for name, weights in model.named_parameters():
        clear = gradients[name].abs() > 1e-4
        moved = (weights.detach() - before[name])[clear]
        torch.testing.assert_close(moved, -0.01 * gradients[name][clear].sign(), rtol=0, atol=1e-5, msg=name)


def test_sgd_follows_the_gradient(small_llama, ragged_examples, tmp_path):
    model = small_llama()
    _, before, gradients = first_step(model, ragged_examples(8), tmp_path, optimizer="sgd")
    for name, weights in model.named_parameters():
        assert torch.equal(weights.detach(), before[name].add(gradients[name], alpha=-0.01)), name


def test_adafactor_keeps_rows_and_columns(small_llama, ragged_examples, tmp_path):
    """It keeps n + m numbers of an n x m matrix; in the first step a vector goes lr x sign(gradient), as with AdamW."""
    model = small_llama()
    optimizer, before, gradients = first_step(model, ragged_examples(8), tmp_path, optimizer="adafactor")
    for name, weights in model.named_parameters():
        kept = {key: value.numel() for key, value in optimizer.state[weights].items() if key.startswith("exp_avg")}
        if weights.dim() == 2:
            n, m = weights.shape
            assert kept == {"exp_avg_sq_row": n, "exp_avg_sq_col": m}, name
        else:
            moved = weights.detach() - before[name]
            torch.testing.assert_close(moved, -0.01 * gradients[name].sign(), rtol=0, atol=1e-5, msg=name)


@pytest.fixture
def adapted(small_llama):
    """The small model with an adapter of rank 2 at all linear layers."""
    pytest.importorskip("peft")
    return lambda **changes: add_adapter(small_llama(), LoraSettings(rank=2, **changes), seed=0)


@pytest.mark.parametrize("how", [{}, {"scoring": "naive"}, {"token_budget": 1}, {"gradient_checkpointing": True}])
def test_training_an_adapter_moves_the_adapter_only(how, adapted, small_llama, ragged_examples, tmp_path):
    """The optimiser knows nothing but the adapter; the loss of the first step is that of the model without one."""
    model, plain = adapted(), small_llama()
    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    objective = Objective(term="aft", constraint="boundary")
    with Steps(model) as seen:
        rows = train(model, ragged_examples(8), objective, tmp_path / "lora", batch_size=4, learning_rate=0.01, **how)
    held = {id(weights) for group in seen.optimizer.param_groups for weights in group["params"]}
    assert held == {id(weights) for name, weights in model.named_parameters() if "lora_" in name}
    moved = {name for name, weights in model.named_parameters() if not torch.equal(weights, before[name])}
    assert moved == {name for name in before if "lora_" in name}
    expected = train(plain, ragged_examples(8), objective, tmp_path / "plain", batch_size=4, **how)
    assert rows[0]["loss"] == pytest.approx(expected[0]["loss"], abs=1e-6)


def test_gradient_checkpointing_reaches_an_adapter(adapted, ragged_examples, tmp_path):
    """The embeddings that go in need no gradient; the layers are computed again all the same, to the same gradients."""
    steps = []
    for checkpointing in (False, True):
        model = adapted(dropout=0.3)
        torch.manual_seed(0)
        changes = {"gradient_checkpointing": checkpointing}
        with Steps(model) as seen:
            train(model, ragged_examples(8), PLAIN, tmp_path / str(checkpointing), **changes)
        steps.append(seen.gradients[0])
    for name, gradient in steps[0].items():
        torch.testing.assert_close(steps[1][name], gradient, msg=name)
    assert any(gradient.abs().max() > 1e-3 for gradient in steps[0].values())


def test_each_epoch_has_an_order_of_its_own(small_llama, ragged_examples, tmp_path, monkeypatch):
    """Every question once an epoch, and not in the same order: the order is of the epoch."""
    seen = []
    original = loop.add_gradient

    def remember(model, batch, *args):
        seen.extend(example.question_id for example in batch)
        return original(model, batch, *args)

    monkeypatch.setattr(loop, "add_gradient", remember)
    train(small_llama(), ragged_examples(12), PLAIN, tmp_path, batch_size=2, epochs=2)
    first, second = seen[:12], seen[12:]
    assert sorted(first) == sorted(second) == [f"q{i:02d}" for i in range(12)]
    assert first != second


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "how", [{}, {"token_budget": 60}, {"token_budget": 1}, {"scoring": "naive"}, {"scoring": "two_pass"}]
)
def test_every_weight_has_a_gradient_in_the_first_step(
    how, precision, small_llama, ragged_examples, tmp_path, monkeypatch
):
    """The head's logits in chunks, which only a model with a plain head allows: it is tried out before the first step.

    Under autocast a trial, which has no graph, would leave casts of the weights without one to the step (torch 2.6).
    """
    tried = []
    original = head._try_head
    model = small_llama(tied=False)

    def remember(model):
        tried.append((len(seen.gradients), torch.is_autocast_enabled("cpu")))
        return original(model)

    monkeypatch.setattr(head, "_try_head", remember)
    monkeypatch.setattr(head, "_MOST_LOGITS", 9 * 64)  # more than the trials of the path need
    objective = Objective(term="aft", constraint="detached")
    with Steps(model) as seen:
        train(model, ragged_examples(8), objective, tmp_path, HELD_OUT, precision=precision, monitor_every=1, **how)
    assert all(gradient.any() for gradient in seen.gradients[0].values())
    assert tried == ([] if how.get("scoring") == "naive" else [(0, False)])


# --- the probe --------------------------------------------------------------------------------------------------------

HELD_OUT = [Example("h0", [5, 6, 7], [[8, 9, 1], [9, 1]]), Example("h1", [6], [[10, 11, 12, 13, 1]])]


@pytest.mark.parametrize("how", [{}, {"token_budget": 1}, {"scoring": "naive"}, {"scoring": "two_pass"}])
def test_the_held_out_perplexity_is_that_of_the_weights_after_the_step(how, small_llama, ragged_examples, tmp_path):
    """The mean over responses of exp(-mean log-probability), after steps 2 and 4 of 5; the other rows have none."""

    model, expected = small_llama(), []

    @torch.no_grad()
    def after_step(*_):
        scores = [log_probabilities(model, e.prompt, r).mean().item() for e in HELD_OUT for r in e.targets]
        expected.append(sum(math.exp(-score) for score in scores) / 3)

    hook = register_optimizer_step_post_hook(after_step)
    changes = {"batch_size": 2, "learning_rate": 0.01, "monitor_every": 2, **how}
    rows = train(model, ragged_examples(10), Objective(term="aft"), tmp_path, HELD_OUT, **changes)
    hook.remove()
    found = {row["step"]: row["held_out_perplexity"] for row in rows if "held_out_perplexity" in row}
    assert found == {step: pytest.approx(expected[step - 1], rel=1e-5) for step in (2, 4)}
    assert abs(found[2] - expected[0]) > 1e-3, "else this test could not tell the steps apart"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("how", [{}, {"token_budget": 1}, {"scoring": "naive"}])
def test_a_probe_changes_nothing_of_the_training(how, precision, small_llama, ragged_examples, tmp_path):
    """Bit by bit, though dropout draws random numbers in every step: weights, curve, modes and random states."""

    def run(folder, probe):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        model = small_llama(dropout=0.3, tied=False)
        changes = {"batch_size": 2, "monitor_every": 1, "precision": precision, **how}
        curve = train(model, ragged_examples(8), Objective(term="aft"), tmp_path / folder, probe=probe, **changes)
        rows = [{name: row[name] for name in row.keys() - PROBED - {"tokens_per_s"}} for row in curve]
        states = (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()))
        probed = sum("held_out_perplexity" in row for row in curve)
        return model, rows, states, [module.training for module in model.modules()], probed

    (plain, *its, none), (watched, *others, four) = run("plain", ()), run("watched", HELD_OUT)
    assert (none, four) == (0, 4)
    assert its == others
    for (name, one), other in zip(plain.named_parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_probe_is_scored_without_dropout(small_llama, ragged_examples, tmp_path):
    """With a learning rate of 0 in the first of two steps, the model that is probed is the one from before."""
    model = small_llama(dropout=0.5, tied=False).eval()
    with torch.no_grad():
        scores = [log_probabilities(model, e.prompt, r).mean().item() for e in HELD_OUT for r in e.targets]
    changes = {"batch_size": 2, "warmup": 0.5, "monitor_every": 1}
    first, _ = train(model, ragged_examples(4), PLAIN, tmp_path, probe=HELD_OUT, **changes)
    assert first["learning_rate"] == 0
    assert first["held_out_perplexity"] == pytest.approx(sum(math.exp(-score) for score in scores) / 3, rel=1e-5)


def test_nothing_is_probed_on_request(small_llama, ragged_examples, tmp_path):
    rows = train(small_llama(), ragged_examples(4), PLAIN, tmp_path, probe=HELD_OUT, monitor_every=None)
    assert not PROBED & rows[0].keys()


# --- numbers that are not finite --------------------------------------------------------------------------------------


def test_nan_weights_stop_the_run_and_name_the_questions(small_llama, tmp_path):
    model = small_llama()
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    examples = [Example(f"pocket/train/{i}", [5, 6], [[7, 1]]) for i in range(3)]
    with pytest.raises(
        NumericalError, match=r"step 1 is not finite; its questions are pocket/train/\d, .*pocket/train/\d;"
    ):
        train(model, examples, PLAIN, tmp_path, checkpoint_every=1)
    assert not list(tmp_path.glob("*")), "no checkpoint of broken weights"


@pytest.mark.parametrize("constraint", ["none", "detached"])
def test_a_negative_that_is_impossible_stops_the_run(constraint, small_llama, tmp_path):
    """Its score of minus infinity leaves the loss finite: e^(-inf) = 0. Only the question that has it is at fault."""
    model = small_llama(tied=False)
    forbidden = torch.zeros(64).index_fill(0, torch.tensor([50]), -math.inf)
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + forbidden)
    fine = Example("fine", [5, 6], [[7, 1]], [[7, 1], [8, 1]], [0, 1])
    impossible = Example("impossible", [5, 6], [[7, 1]], [[7, 1], [50, 1]], [0, 1])
    objective = Objective(term="aft", constraint=constraint)
    train(small_llama(), [fine], objective, tmp_path / "fine")
    with pytest.raises(NumericalError, match="its questions are impossible;"):
        train(model, [fine, impossible], objective, tmp_path, batch_size=1)


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_kept(small_llama, ragged_examples, tmp_path):
    """Loss and scores are finite in the last step of the run: without a check its model would be NaN."""
    model = small_llama()
    model.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NumericalError, match=r"The gradient of step 1 is not finite; its questions are q0\d, "):
        train(model, ragged_examples(3), PLAIN, tmp_path, batch_size=4, checkpoint_every=1, max_grad_norm=1.0)
    assert not list(tmp_path.glob("*"))


def test_only_the_first_process_looks_for_a_checkpoint(small_llama, ragged_examples, tmp_path, monkeypatch):
    """It reads every byte of it, and tells the others."""
    looked = []
    monkeypatch.setattr(loop.checkpoints, "latest", looked.append)
    for first in (False, True):
        monkeypatch.setattr(loop.collectives, "is_first", lambda first=first: first)
        train(small_llama(), ragged_examples(2), PLAIN, tmp_path, max_steps=1)
        assert looked == [tmp_path] * first


@pytest.mark.parametrize("scoring", ["naive", "shared", "two_pass"])
@pytest.mark.parametrize("recomputes", [False, True])
def test_training_leaves_no_tensor_in_a_cycle(scoring, recomputes, small_llama, ragged_examples, tmp_path):
    """Else activations, or a model, would stay until Python looks for garbage, which it does seldom (`aft.machine`)."""
    model, examples = small_llama(), ragged_examples(6)
    gone = weakref.ref(model)
    objective = Objective(term="aft", constraint="boundary")
    changes = {"scoring": scoring, "gradient_checkpointing": recomputes, "batch_size": 3, "epochs": 2}
    train(model, examples, objective, tmp_path, **changes)  # what is made once may stay
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        train(model, examples, objective, tmp_path, **changes)
        gc.collect()
        left = [kind for kind in map(type, gc.garbage) if issubclass(kind, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not left
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()
