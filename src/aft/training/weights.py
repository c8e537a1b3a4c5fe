"""How weights are kept while a model is trained (`training.weights`), and what the optimiser changes of them.

- `float32`: the model's weights are what the optimiser changes; under autocast each is cast to bfloat16 once a step.
- `bfloat16`: the model computes with bfloat16 weights, and each has a *master*, a float32 copy. Gradients of passes are
  summed into the master's in float32; clipping, the optimiser and checkpoints see masters alone; after a step each is
  rounded into its weight, which is what is answered with and saved. Bytes per weight with AdamW: 2 + 4 + 4 + 8, against
  4 + 4 + 8 and the casts of 2 in `float32`. Under LoRA frozen weights take 2 bytes in place of 4, without a master.
- `nf4`, for LoRA only: layers under the adapter take 4.13 bits per weight (NF4 of QLoRA, arXiv 2305.14314, with
  its double quantisation), all else 16.

An adapter itself is float32 always, and is merged into the base's own float32 weights in the end.
"""

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253

from aft.errors import SettingsError
from aft.training.settings import Sharding, TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check(settings: TrainingSettings, sharding: Sharding) -> None:
    """Raise `SettingsError` if weights or optimiser's state cannot be kept as the settings say."""
    if sharding == "full" and settings.optimizer in ("adafactor", "adamw_8bit"):
        raise SettingsError(f"The optimizer {settings.optimizer} does not know sharded weights: set adamw or sgd.")
    if sharding == "full" and settings.weights != "float32":
        raise SettingsError(f"Sharded weights are not kept in {settings.weights}: set training.weights to float32.")
    if settings.weights == "nf4" or settings.optimizer == "adamw_8bit":
        try:
            import bitsandbytes  # noqa: F401
        except ImportError as error:
            raise SettingsError(
                "weights: nf4 and optimizer: adamw_8bit need the package bitsandbytes; run "
                "pip install 'aft[quantized]', or set training.weights and training.optimizer to others."
            ) from error


def keep_frozen(model: "PreTrainedModel", settings: TrainingSettings) -> None:
    """Keep what an adapter leaves as it is in `settings.weights`; called on the CPU, so that a card needs no more."""
    if settings.lora is None or settings.weights == "float32":
        return
    for weight in model.parameters():
        if not weight.requires_grad:
            weight.data = weight.to(torch.bfloat16)
    if settings.weights == "nf4":
        _quantise(model)


def _quantise(model: "PreTrainedModel") -> None:
    """Put four-bit layers in the place of all frozen linear ones but the head; moving them quantises them."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer) is torch.nn.Linear and layer is not head and not layer.weight.requires_grad:
            small = Linear4bit(layer.in_features, layer.out_features, compute_dtype=torch.bfloat16, device="meta")
            given: dict[str, Any] = {"requires_grad": False, "quant_type": "nf4", "module": small}
            small.weight = Params4bit(layer.weight.data, **given)
            small.bias = layer.bias
            model.set_submodule(name, small)


def keep_masters(model: "PreTrainedModel", settings: TrainingSettings) -> None:
    """Under `weights: bfloat16` make the present weights masters, and the model's own their rounded values."""
    if settings.weights == "bfloat16" and settings.lora is None:
        for weight in model.parameters():
            master = torch.nn.Parameter(weight.detach())
            weight.data = master.to(torch.bfloat16)
            weight.master = master  # type: ignore[attr-defined]
            weight.register_post_accumulate_grad_hook(_hand_over)


def _hand_over(weight: Any) -> None:
    """Add the gradient of one pass to the master's, in float32."""
    gradient, weight.grad = weight.grad.float(), None
    weight.master.grad = gradient if weight.master.grad is None else weight.master.grad.add_(gradient)


def trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """What the optimiser changes, by the weight's name: its master, or itself if it has none."""
    return {name: getattr(one, "master", one) for name, one in model.named_parameters() if one.requires_grad}


@torch.no_grad()
def round_masters(model: torch.nn.Module) -> None:
    """Give every weight that has a master its rounded value."""
    for weight in model.parameters():
        master = getattr(weight, "master", None)
        if master is not None:
            weight.copy_(master)
