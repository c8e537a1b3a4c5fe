"""LoRA: low-rank updates of some layers are trained instead of all weights, and merged into them in the end."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aft.bounds import Positive, ShareBelowOne, counted
from aft.checked import checked
from aft.errors import ModelError, SettingsError
from aft.files import writing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "adapter"  # the folder of a model directory that holds what was merged into the weights beside it


@checked
class LoraSettings:
    """Which layers get a low-rank update B A of their weights, scaled by alpha / rank, and of which rank."""

    rank: Annotated[int, counted(most=65536)] = 16
    alpha: Positive = 32.0
    dropout: ShareBelowOne = 0.0  # of what A reads, while training
    target_modules: Literal["all-linear"] | list[str] = "all-linear"  # names of layers; all-linear leaves out the head

    def __post_init__(self) -> None:
        if not (self.target_modules and all(self.target_modules)):
            raise SettingsError("lora.target_modules must be all-linear or a list of names of layers.")


def check_installed() -> None:
    """Raise `SettingsError` if the package that adapters need is missing."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "LoRA needs the package peft; run pip install 'aft[lora]', or set training.lora to null."
        ) from error


def add_adapter(model: "PreTrainedModel", settings: LoraSettings, seed: int) -> "PreTrainedModel":
    """The model with an adapter that changes nothing yet and is all that can be trained; `model` itself is changed.

    Raises `ModelError` if a named layer does not exist, cannot have an adapter or shares its weights with another.
    """
    check_installed()
    import torch
    from peft import LoraConfig, get_peft_model

    wanted = settings.target_modules
    if wanted != "all-linear":
        _refuse_unknown(model, wanted)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a factor, whatever peft calls it
        lora_dropout=settings.dropout,
        target_modules=wanted,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # A begins at random
        try:
            adapted: Any = get_peft_model(model, config)
        except ValueError as error:  # of kinds of layers that peft has no adapter for
            reason = str(error).strip().split("\n", 1)[0].rstrip(".")
            raise ModelError(f"{type(model).__name__} cannot have an adapter: {reason}; name other layers.") from error
    if model.config.get_text_config().tie_word_embeddings and _is_adapted(model):
        raise ModelError(
            f"{type(model).__name__} has one matrix for its embeddings and its head, which an adapter of one of them "
            "would pull apart: leave both out of lora.target_modules."
        )
    return adapted


def _refuse_unknown(model: "PreTrainedModel", wanted: list[str]) -> None:
    """peft would pass over a name that no layer has, as long as another one has."""
    weights: list[Any] = [(name, getattr(layer, "weight", None)) for name, layer in model.named_modules()]
    layers = [f".{name}" for name, weight in weights if weight is not None and weight.dim() == 2]
    missing = [name for name in wanted if not any(layer.endswith(f".{name}") for layer in layers)]
    if missing:
        known = sorted({layer.rsplit(".", 1)[-1] for layer in layers})
        raise ModelError(
            f"{type(model).__name__} has no layer {missing[0]} for an adapter, as lora.target_modules says; its layers "
            f"are {', '.join(known)}, or set all-linear."
        )


def _is_adapted(model: "PreTrainedModel") -> bool:
    """Whether embeddings or head have an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return any(isinstance(layer, BaseTunerLayer) for layer in ends)


def save_adapter(model: "PreTrainedModel", directory: Path) -> None:
    """Write the adapter's weights and settings into `directory`, as peft reads them; nothing names a place or a time.

    peft's own way would also write a card with the folder that the model came from, and ask the hub about the model.
    """
    from peft import get_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from safetensors.torch import save_file

    config: Any = copy.copy(model.peft_config["default"])  # type: ignore[index]
    config.base_model_name_or_path = None
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # a set: its order would be another in every process
    adapter = get_peft_model_state_dict(model, save_embedding_layers=False)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in adapter.items()}
        save_file(tensors, directory / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        config.save_pretrained(str(directory))


def merge_adapter(model: "PreTrainedModel") -> "PreTrainedModel":
    """The plain model that says the same: the updates are added to its weights."""
    return model.merge_and_unload()  # type: ignore[operator]
