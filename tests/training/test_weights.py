"""Weights in bfloat16 with float32 masters, in four bits under an adapter, and AdamW's moments in eight bits."""

import copy
import json
import sys
from collections import defaultdict
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import AutoModelForCausalLM

from aft.errors import SettingsError
from aft.models.adapters import LoraSettings, add_adapter
from aft.models.pocket import build_tokenizer
from aft.training import checkpoints, loop, weights
from aft.training.job import Job
from aft.training.optimizer import make_optimizer, make_schedule
from aft.training.parallel import collectives, replicated
from aft.training.run import train_once
from aft.training.settings import Objective, TrainingSettings

USUAL: dict[str, Any] = {"epochs": 9, "max_steps": 6, "learning_rate": 0.01, "batch_size": 4, "warmup": 0.0}
HALF: dict[str, Any] = {"precision": "bfloat16", "weights": "bfloat16"}
AFT = Objective(term="aft", constraint="boundary")


def settings(**changes):
    return TrainingSettings(**USUAL | changes)


def train(model, examples, folder, **changes):
    return loop.fit_weights(model, Job(examples, settings(**changes), AFT, 3, "test"), folder).curve


# --- masters ----------------------------------------------------------------------------------------------------------


def test_masters_go_as_float32_weights_under_the_same_gradients(small_llama, ragged_examples, tmp_path):
    """AdamW of float32 weights, step by step on the clipped gradients; the model has the masters' rounded values."""
    model, twin, rates = small_llama(), dict(small_llama().named_parameters()), []
    other = torch.optim.AdamW(twin.values())

    def follow(optimizer, *_):
        if optimizer is not other:
            for name, master in weights.trained(model).items():
                assert master.grad is not None and master.grad.dtype == torch.float32
                twin[name].grad = master.grad.clone()
            rates.append(optimizer.param_groups[0]["lr"])
            other.param_groups[0].update(lr=rates[-1], weight_decay=0.0)
            other.step()

    hook = register_optimizer_step_pre_hook(follow)
    train(model, ragged_examples(13), tmp_path, **HALF)
    hook.remove()
    masters, own = weights.trained(model), dict(model.named_parameters())
    assert len(rates) == 6 and masters.keys() == own.keys()
    for name, master in masters.items():
        torch.testing.assert_close(master, twin[name], rtol=0, atol=1e-6, msg=name)
        assert own[name].dtype == torch.bfloat16 and torch.equal(own[name], master.to(torch.bfloat16)), name
    assert any(not torch.equal(master, own[name].float()) for name, master in masters.items())


def test_small_steps_add_up(small_llama, ragged_examples, tmp_path):
    """At this rate no step moves a weight of a norm from 1, where bfloat16 has steps of 0.004; masters move."""
    model = small_llama()
    train(model, ragged_examples(13), tmp_path, **HALF, learning_rate=1e-5)
    norm = model.model.norm.weight
    assert torch.equal(norm, torch.ones_like(norm))
    assert (weights.trained(model)["model.norm.weight"] - 1).abs().max() > 2e-5


def test_gradients_of_passes_are_summed_in_float32(small_llama, ragged_examples, tmp_path, monkeypatch):
    """Several passes a step; sums in bfloat16 would be others."""
    parts, given, model, hand_over = defaultdict(list), {}, small_llama(), weights._hand_over

    def record(weight):
        parts[weight].append(weight.grad.clone())
        hand_over(weight)

    monkeypatch.setattr(weights, "_hand_over", record)
    masters: Any = weights.trained
    hook = register_optimizer_step_pre_hook(
        lambda *_: given.update({name: master.grad.clone() for name, master in masters(model).items()})
    )
    train(model, ragged_examples(4), tmp_path, **HALF, token_budget=30, max_steps=1, max_grad_norm=1e9)
    hook.remove()
    differs = False
    for name, weight in model.named_parameters():
        assert len(parts[weight]) > 2 and {part.dtype for part in parts[weight]} == {torch.bfloat16}
        first, *others = (part.float() for part in parts[weight])
        assert torch.equal(given[name], sum(others, start=first)), name
        rough, *others = parts[weight]
        differs |= not torch.equal(given[name], sum(others, start=rough).float())
    assert differs


def test_the_first_loss_is_that_of_float32_weights_up_to_rounding(small_llama, ragged_examples, tmp_path):
    exact = train(small_llama(), ragged_examples(13), tmp_path / "float32", precision="bfloat16")
    half = train(small_llama(), ragged_examples(13), tmp_path / "bfloat16", **HALF)
    assert [row["loss"] for row in half] == pytest.approx([row["loss"] for row in exact], rel=0.01)


def test_the_model_is_saved_as_it_was_trained(small_llama, ragged_examples, tmp_path):
    """In bfloat16, which transformers reads from the configuration: what the masters were rounded to."""
    job = Job((), settings(**HALF), AFT, 7, "half")
    model = small_llama()
    made = train_once({"kind": "half"}, lambda: (model, build_tokenizer()), lambda: ragged_examples(13), job, tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(made.directory.path, local_files_only=True)
    assert saved.dtype == torch.bfloat16
    for name, master in weights.trained(model).items():
        assert torch.equal(saved.get_parameter(name), master.to(torch.bfloat16)), name
    assert all(one.dtype == torch.float32 for one in made.directory.model().parameters()), "AFT says the type itself"


def test_processes_add_up_the_gradients_of_masters(small_llama, monkeypatch):
    """In float32, zeros where a process read nothing; the model's own bfloat16 weights keep no gradient."""
    model, summed = small_llama(), []
    weights.keep_masters(model, settings(**HALF))
    model(input_ids=torch.tensor([[5, 6]])).logits.sum().backward()
    monkeypatch.setattr(collectives, "_together", lambda: True)
    monkeypatch.setattr(collectives.distributed, "all_reduce", summed.append)
    masters: Any = weights.trained(model)
    masters["model.norm.weight"].grad = None
    replicated.add_up(model)
    assert [id(one) for one in summed] == [id(master.grad) for master in masters.values()]
    assert {one.dtype for one in summed} == {torch.float32}
    assert not summed[list(masters).index("model.norm.weight")].any()
    assert all(weight.grad is None for weight in model.parameters())


# --- under an adapter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bfloat16", "nf4"])
def test_an_adapter_is_learnt_on_smaller_weights_and_merged_into_the_bases_own(
    kind, small_llama, ragged_examples, tmp_path, monkeypatch
):
    """Frozen weights are small while it trains, the adapter float32; the finished model is the base + the adapter."""
    pytest.importorskip("peft")
    if kind == "nf4":
        pytest.importorskip("bitsandbytes")
    seen, choose = {}, loop.paths.choose_path

    def looked_at(model, wanted):
        seen.update({name: weight.dtype for name, weight in model.named_parameters()})
        return choose(model, wanted)

    monkeypatch.setattr(loop.paths, "choose_path", looked_at)
    lora = LoraSettings(rank=2)
    job = Job((), settings(precision="bfloat16", weights=kind, lora=lora), AFT, 7, "adapter")
    made = train_once(
        {"kind": kind}, lambda: (small_llama(), build_tokenizer()), lambda: ragged_examples(13), job, tmp_path
    )
    linear = torch.uint8 if kind == "nf4" else torch.bfloat16
    for name, dtype in seen.items():
        own = linear if name.endswith("proj.base_layer.weight") else torch.bfloat16
        assert dtype == (torch.float32 if "lora_" in name else own), name
    assert made.curve[-1]["loss"] < made.curve[0]["loss"]

    expected: Any = add_adapter(small_llama(), lora, 7)
    adapter = load_file(made.directory.path / "adapter/adapter_model.safetensors")
    for name, weight in adapter.items():
        expected.get_parameter(name.replace(".weight", ".default.weight")).data = weight
    expected = expected.merge_and_unload()
    saved = load_file(made.directory.path / "model.safetensors")
    assert any(bool(weight.any()) for name, weight in adapter.items() if "lora_B" in name)
    for name, weight in saved.items():
        assert torch.equal(weight, expected.get_parameter(name)), name


# --- moments in eight bits --------------------------------------------------------------------------------------------


def eight_bits(folder, steps):
    """A model of two large and two small weights, and its optimiser, after steps from the newest checkpoint on."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(128, 128), torch.nn.Linear(128, 64))
    chosen = settings(optimizer="adamw_8bit", weight_decay=0.1)
    optimizer = make_optimizer(model, chosen)  # type: ignore[arg-type]
    schedule, curve, found = make_schedule(optimizer, chosen, 9), [], checkpoints.latest(folder)
    if found:
        checkpoints.load_weights(found, model)  # type: ignore[arg-type]
        curve = checkpoints.load_state(found, optimizer, schedule, replicated)
    for step in range(len(curve) + 1, steps + 1):
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        schedule.step()
        curve = [*curve, {"step": float(step)}]
    return model, optimizer, schedule, curve


def test_moments_in_eight_bits_come_back_bit_by_bit(tmp_path):
    """One byte each in the checkpoint, but for weights of fewer than 4,096 numbers; what goes on from it is equal."""
    pytest.importorskip("bitsandbytes")
    whole, optimizer, *_ = eight_bits(tmp_path / "nowhere", 6)
    checkpoints.save(tmp_path, *eight_bits(tmp_path, 3)[:3], replicated, [{"step": float(n)} for n in (1, 2, 3)])  # type: ignore[arg-type]
    moments = load_file(tmp_path / "checkpoint-3" / checkpoints.OPTIMIZER)
    for number in range(4):  # matrices come first
        for name in (f"{number}/state1", f"{number}/state2"):
            assert moments[name].dtype == (torch.uint8 if number < 2 else torch.float32), name
    state = json.loads((tmp_path / "checkpoint-3" / checkpoints.STATE).read_text(encoding="utf-8"))
    assert state["numbers"] == {f"{number}/step": 3 for number in range(4)}
    resumed, its, *_ = eight_bits(tmp_path, 6)
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, resumed.get_parameter(name)), name
    for ours, theirs in zip(optimizer.state.values(), its.state.values(), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[name])) for name, value in ours.items())


def test_steps_with_moments_in_eight_bits_are_about_those_of_adamw():
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    model = torch.nn.Linear(128, 128)
    twin, start = copy.deepcopy(model), model.weight.detach().clone()
    pairs = [(model, settings(optimizer="adamw_8bit")), (twin, settings())]
    optimizers = [make_optimizer(one, chosen) for one, chosen in pairs]  # type: ignore[arg-type]
    for _ in range(20):
        model.weight.grad = torch.randn_like(model.weight) + start.sign()
        twin.weight.grad = model.weight.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    gap, way = (model.weight - twin.weight).norm(), (twin.weight - start).norm()
    assert 0 < gap < 0.05 * way


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adamw_8bit"}, {"lora": LoraSettings(), "weights": "nf4", "precision": "bfloat16"}],
)
def test_without_bitsandbytes_nothing_is_loaded(changes, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)

    def refuse_to_load():
        raise AssertionError("weights are loaded")

    with pytest.raises(SettingsError, match=r"pip install 'aft\[quantized\]'"):
        train_once({"kind": "x"}, refuse_to_load, lambda: [], Job((), settings(**changes), AFT, 0, "x"), tmp_path)
