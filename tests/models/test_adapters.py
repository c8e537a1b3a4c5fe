"""An adapter changes nothing at first, is all that is trained, and merges into plain weights that say the same."""

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from aft.errors import ModelError, SettingsError
from aft.models.adapters import LoraSettings, add_adapter, merge_adapter, save_adapter
from aft.training.settings import TrainingSettings

peft = pytest.importorskip("peft")

IDS = torch.tensor([[5, 9, 33, 2, 60, 7]])
SMALL = LoraSettings(rank=2, alpha=6.0)


@pytest.fixture
def fresh(tiny_model: Callable[[str], Any]) -> Callable[..., Any]:
    """A copy of a tiny model, with head and embeddings apart or in one."""

    def make(kind: str = "llama", tied: bool = False) -> Any:
        model = copy.deepcopy(tiny_model(kind))
        if tied:
            model.config.tie_word_embeddings = True
            model.tie_weights()
        return model

    return make


def has_adapter(model: Any) -> bool:
    return hasattr(model, "peft_config")


@torch.no_grad()
def moved(model: Any) -> Any:
    """As if trained: all that can be trained is a little off."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for weights in model.parameters():
            if weights.requires_grad:
                weights.add_(torch.randn_like(weights), alpha=0.2)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rank": 0}, "lora.rank is 0"),
        ({"alpha": 0.0}, "lora.alpha is 0"),
        ({"alpha": float("nan")}, "lora.alpha is nan"),
        ({"dropout": 1.0}, "lora.dropout is 1"),
        ({"dropout": -0.1}, "lora.dropout is -0.1"),
        ({"target_modules": []}, "lora.target_modules"),
        ({"target_modules": [""]}, "lora.target_modules"),
        ({"target_modules": "q_proj"}, "lora.target_modules"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        LoraSettings(**changes)


def training(text: str) -> TrainingSettings:
    usual = {"epochs": 1, "learning_rate": 0.1, "batch_size": 2}
    return TrainingSettings(**usual | yaml.safe_load(text))


def test_parameters_hold_them_and_a_manifest_gives_them_back() -> None:
    """The evaluation compares the settings in force with those of a manifest, which has been JSON."""
    assert training("lora: null").lora is None
    for text in ("lora: {}", "lora: {rank: 2, alpha: 6, dropout: 0.1, target_modules: [q_proj, v_proj]}"):
        settings = training(text)
        assert json.loads(json.dumps(asdict(settings))) == asdict(settings)
    assert asdict(settings)["lora"] == asdict(LoraSettings(2, 6.0, 0.1, ["q_proj", "v_proj"]))


@pytest.mark.parametrize("text", ["lora: {rnk: 2}", "lora: {rank: 0}", "lora: {target_modules: q_proj}", "lora: true"])
def test_parameters_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="lora"):
        training(text)


# --- adding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_changes_nothing_and_is_all_that_can_be_trained(kind: str, fresh: Callable[..., Any]) -> None:
    model = fresh(kind)
    before = logits(model)
    adapted = add_adapter(model, SMALL, seed=0)
    assert torch.equal(logits(adapted), before)
    trainable = [name for name, weights in adapted.named_parameters() if weights.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    assert has_adapter(adapted) and not has_adapter(fresh(kind))


def test_all_linear_is_every_layer_but_the_head(fresh: Callable[..., Any]) -> None:
    """Two layers of q, k, v, o, gate, up and down, of which each has A [2, n] and B [m, 2]."""
    adapted = add_adapter(fresh(), SMALL, seed=0)
    trainable = [weights for weights in adapted.parameters() if weights.requires_grad]
    assert len(trainable) == 2 * 7 * 2
    assert {min(weights.shape) for weights in trainable} == {2}


def test_the_start_follows_from_the_seed_and_draws_from_nobody_else(fresh: Callable[..., Any]) -> None:
    def start(seed: int) -> torch.Tensor:
        adapted = add_adapter(fresh(), SMALL, seed)
        return torch.cat([weights.detach().flatten() for weights in adapted.parameters() if weights.requires_grad])

    state = torch.get_rng_state()
    first = start(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(start(0), first)
    assert not torch.equal(start(1), first)


@pytest.mark.parametrize("names", [["q"], ["q_proj", "x_proj"], ["norm"]])
def test_layers_that_cannot_have_one_are_named(names: list[str], fresh: Callable[..., Any]) -> None:
    """None of them, one of two (where peft alone would go on with the other), one that is not linear."""
    with pytest.raises(ModelError, match=rf"no layer {names[-1]} for .* q_proj, ") as caught:
        add_adapter(fresh(), LoraSettings(target_modules=names), seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_one_matrix_for_head_and_embeddings_stays_one(name: str, fresh: Callable[..., Any]) -> None:
    """Merged into the head, an update would change the embeddings, too, which never had it while training."""
    settings = LoraSettings(target_modules=["q_proj", name])
    assert has_adapter(add_adapter(fresh(), settings, seed=0))
    with pytest.raises(ModelError, match="one matrix"):
        add_adapter(fresh(tied=True), settings, seed=0)
    assert has_adapter(add_adapter(fresh(tied=True), SMALL, seed=0)), "all-linear leaves the head out"


def test_without_peft_one_sentence_names_the_extra(fresh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SettingsError, match=r"pip install 'aft\[lora\]'"):
        add_adapter(fresh(), SMALL, seed=0)


# --- merging and saving -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_merged_weights_say_the_same(kind: str, fresh: Callable[..., Any]) -> None:
    """In a plain model of the same names; what has no adapter is untouched to the last bit."""
    before = fresh(kind)
    adapted = moved(add_adapter(fresh(kind), SMALL, seed=0))
    expected = logits(adapted)
    assert (expected - logits(before)).abs().max() > 0.1, "else there would be nothing to merge"
    merged = merge_adapter(adapted)
    assert type(merged) is type(before) and not has_adapter(merged)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    ours, theirs = merged.state_dict(), before.state_dict()
    assert list(ours) == list(theirs)
    same = {name for name in ours if torch.equal(ours[name], theirs[name])}
    assert {name for name in ours if "embed" in name or "norm" in name or "ln_" in name or "bias" in name} <= same
    assert len(same) < len(ours)


def test_a_merged_weight_is_w_plus_alpha_over_rank_times_b_a(fresh: Callable[..., Any]) -> None:
    """alpha / rank = 6 / 2 = 3."""
    adapted: Any = moved(add_adapter(fresh(), SMALL, seed=0))
    layer = adapted.base_model.model.model.layers[1].mlp.down_proj
    a, b = (part["default"].weight.detach().clone() for part in (layer.lora_A, layer.lora_B))
    expected = fresh().model.layers[1].mlp.down_proj.weight + 3 * b @ a
    merged: Any = merge_adapter(adapted)
    torch.testing.assert_close(merged.model.layers[1].mlp.down_proj.weight, expected)


def test_peft_reads_what_is_saved_and_nothing_names_a_place(fresh: Callable[..., Any], tmp_path: Path) -> None:
    model = fresh()
    model.name_or_path = "/home/somebody/models/tiny"
    adapted = moved(add_adapter(model, SMALL, seed=0))
    save_adapter(adapted, tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert "somebody" not in (tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8")
    again = peft.PeftModel.from_pretrained(fresh(), str(tmp_path / "adapter"))
    assert torch.equal(logits(again), logits(adapted))
    assert any(weights.requires_grad for weights in adapted.parameters()), "and training may go on"
