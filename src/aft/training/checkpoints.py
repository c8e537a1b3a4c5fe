"""Checkpoints that are whole or absent, in safetensors and JSON only, and from which a run continues bit by bit."""

import json
import logging
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch  # noqa: TID253
from safetensors import safe_open
from safetensors.torch import save_file

from aft.files import finish_directory, is_intact
from aft.models.adapters import has_adapter, save_adapter
from aft.training.processes import gathered, rank
from aft.training.sharding import like, whole_for_first
from aft.training.zero3 import Zero3

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

OPTIMIZER, STATE = "optimizer.safetensors", "training_state.json"


def latest(directory: Path) -> Path | None:
    """The newest intact checkpoint in `directory`; broken ones are named and passed over."""
    for path in sorted(directory.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_intact(path):
            return path
        logger.warning("%s is incomplete or damaged and is passed over.", path.name)
    return None


def step_of(path: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(path.name.rsplit("-", 1)[1])


def finish(staged: Path, final: Path) -> None:
    """Rename a written checkpoint to its final name and remove the older ones: one is enough to continue."""
    finish_directory(staged, final, {"kind": "checkpoint", "step": step_of(final)})
    for older in final.parent.glob("checkpoint-*"):
        if older != final:
            shutil.rmtree(older)


def save_weights(directory: Path, model: "PreTrainedModel", weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write the weights that training changes: those of the adapter if there is one, else all.

    `weights` holds them if the model has but a part of them.
    """
    if has_adapter(model):
        save_adapter(model, directory, weights)
    else:
        model.save_pretrained(directory, state_dict=weights)


Tensors = dict[str, torch.Tensor]


def optimizer_state(optimizer: "torch.optim.Optimizer | Zero3", scheduler: Any) -> tuple[Tensors, dict[str, Any]]:
    """States of optimiser and schedule and all random states: tensors, and what JSON can say. Every process must ask.

    They do not depend on how many processes train, but for the random states, of which each has its own. The first
    process, which writes them, gets the tensors, on the CPU if they were sharded; the others add their parts to each
    and get none, so that the whole state stands in memory once and not once per process.
    """
    if isinstance(optimizer, Zero3):
        values, groups = optimizer.whole_state()
    else:
        state = optimizer.state_dict()
        values = {f"{i}/{name}": value for i, its in state["state"].items() for name, value in its.items()}
        groups = state["param_groups"]
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    kept = {name: value.contiguous() for name, value in whole_for_first(tensors).items()}
    return kept, {
        "param_groups": groups,
        "numbers": {name: value for name, value in values.items() if name not in tensors},
        "scheduler": scheduler.state_dict(),
        "random": gathered(_random_states()),
    }


def save_optimizer(directory: Path, tensors: Tensors, content: dict[str, Any]) -> None:
    """Write what `optimizer_state` gives."""
    save_file(tensors, directory / OPTIMIZER)
    (directory / STATE).write_text(json.dumps(content), encoding="utf-8")


def load_optimizer(directory: Path, optimizer: "torch.optim.Optimizer | Zero3", scheduler: Any) -> None:
    """Restore what `save_optimizer` wrote, but for the random states.

    Of weights that FSDP2 shards a process holds one whole tensor at a time, and keeps its part.
    """
    content = json.loads((directory / STATE).read_text(encoding="utf-8"))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}

    def put(key: str, value: Any) -> None:
        index, name = key.split("/", 1)
        if isinstance(value, torch.Tensor) and not isinstance(optimizer, Zero3):
            value = like(value, parameters[int(index)])  # AdamW's moments are sharded as the weights are
        state.setdefault(int(index), {})[name] = value

    with safe_open(directory / OPTIMIZER, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            put(key, file.get_tensor(key))
    for key, value in content["numbers"].items():
        put(key, value)
    pairs = ("betas", "eps")  # which JSON makes lists
    groups = [
        {name: tuple(value) if name in pairs and isinstance(value, list) else value for name, value in group.items()}
        for group in content["param_groups"]
    ]
    if isinstance(optimizer, Zero3):
        optimizer.take_parts(state, groups)
    else:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict(content["scheduler"])


def _random_states() -> dict[str, Any]:
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else [],
    }


def restore_random_states(directory: Path) -> None:
    """Set the random states of Python, numpy and torch to those of a checkpoint, and of this process in it."""
    of_all = json.loads((directory / STATE).read_text(encoding="utf-8"))["random"]
    states = of_all[rank() % len(of_all)]
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(states["cuda"], dtype=torch.uint8))
