"""Checkpoints that are whole or absent, in safetensors and JSON only, and from which a run continues bit by bit.

    checkpoint-<step>/weights.safetensors      what the optimiser changes, by name: of LoRA the adapter's only, of
                                               bfloat16 weights their float32 masters
    checkpoint-<step>/optimizer.safetensors    the optimiser's moments, by "number of the weight/name"
    checkpoint-<step>/training_state.json      groups, schedule, random states of every process, the curve so far

They do not depend on how many processes train, nor on how weights are sharded, but for the random states, of which each
process has its own.
"""

import itertools
import json
import logging
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch  # noqa: TID253
from safetensors import safe_open
from safetensors.torch import save_file

from aft.directories import finish_directory, is_intact
from aft.files import writing
from aft.training.parallel import Parallel, collectives
from aft.training.selection import best_epoch
from aft.training.weights import round_masters, trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "training_state.json"
Tensors = dict[str, torch.Tensor]


def latest(directory: Path) -> Path | None:
    """The newest intact checkpoint in `directory` whose best epoch is intact, too; others are named and passed over."""
    for path in sorted(directory.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_intact(path):
            best = best_epoch(json.loads((path / STATE).read_text(encoding="utf-8"))["curve"])
            if best is None or is_intact(at(directory, best["step"])):
                return path
        logger.warning("%s is incomplete or damaged and is passed over.", path.name)
    return None


def at(directory: Path, step: float) -> Path:
    """The checkpoint after an optimiser step."""
    return directory / f"checkpoint-{step:.0f}"


def step_of(path: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(path.name.rsplit("-", 1)[1])


def save(
    directory: Path,
    model: "PreTrainedModel",
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    parallel: Parallel,
    curve: list[dict[str, float]],
) -> None:
    """Write a checkpoint after the last step of `curve`, and keep that of the best epoch so far, if there is one.

    Collective: call it on every rank; the first one writes.
    """
    final, best = at(directory, len(curve)), best_epoch(curve)
    staged = final.with_name(f".{final.name}.partial")
    weights = trained_weights(model, parallel)
    tensors, state = optimizer_state(optimizer, parallel)
    state |= {"schedule": schedule.state_dict(), "random": collectives.gathered(_random_states()), "curve": curve}
    if collectives.is_first():
        with writing(staged):
            staged.mkdir(parents=True, exist_ok=True)
            save_file(weights, staged / WEIGHTS)
            save_file(tensors, staged / OPTIMIZER)
            (staged / STATE).write_text(json.dumps(state), encoding="utf-8")
        finish(staged, final, () if best is None else (at(directory, best["step"]),))
    collectives.wait_for_all()


def finish(staged: Path, final: Path, kept: Sequence[Path] = ()) -> None:
    """Rename a written checkpoint to its final name and remove the older ones but those `kept`."""
    finish_directory(staged, final, {"kind": "checkpoint", "step": step_of(final)})
    for older in final.parent.glob("checkpoint-*"):
        if older not in (final, *kept):
            shutil.rmtree(older)


def trained_weights(model: "PreTrainedModel", parallel: Parallel) -> Tensors:
    """What the optimiser changes, whole, by name, on the first rank; others get none. Collective."""
    return _on_first_rank({name: weight.detach() for name, weight in trained(model).items()}, parallel)


def optimizer_state(optimizer: torch.optim.Optimizer, parallel: Parallel) -> tuple[Tensors, dict[str, Any]]:
    """The optimiser's tensors, whole, on the first rank, and what JSON can say of its state. Collective."""
    state = torch.optim.Optimizer.state_dict(optimizer)  # bitsandbytes' own puts tensors into dictionaries, for FSDP1
    values = {f"{i}/{name}": value for i, its in state["state"].items() for name, value in its.items()}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    numbers = {name: value for name, value in values.items() if name not in tensors}
    return _on_first_rank(tensors, parallel), {"param_groups": state["param_groups"], "numbers": numbers}


def _on_first_rank(tensors: Tensors, parallel: Parallel) -> Tensors:
    kept, places = {}, set()
    for name, tensor in tensors.items():
        full = parallel.full_tensor(tensor)  # the others drop it at once: they hold one whole tensor at a time
        if collectives.is_first():
            one = (full if full is tensor else full.cpu()).contiguous()
            # bitsandbytes has one table of its eight-bit values for all weights; safetensors wants each for itself.
            kept[name] = one.clone() if one.data_ptr() in places else one
            places.add(one.data_ptr())
    return kept


@torch.no_grad()
def load_weights(checkpoint: Path, model: "PreTrainedModel") -> None:
    """Give a model, whole as yet, the weights of a checkpoint."""
    take_weights(model, dict(_tensors_of(checkpoint / WEIGHTS)))


@torch.no_grad()
def take_weights(model: "PreTrainedModel", weights: Tensors) -> None:
    """Give a whole model the weights of these names, or their masters."""
    own = trained(model)
    for name, tensor in weights.items():
        own[name].copy_(tensor)
    round_masters(model)


def load_state(
    checkpoint: Path,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    parallel: Parallel,
) -> list[dict[str, float]]:
    """Restore optimiser, schedule and this process's random states; the curve so far.

    Of sharded weights a process holds one whole moment at a time, and keeps its part.
    """
    content = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in itertools.chain(_tensors_of(checkpoint / OPTIMIZER), content["numbers"].items()):
        index, name = key.split("/", 1)
        own = parallel.shard_like(value, weights[int(index)]) if isinstance(value, torch.Tensor) else value
        state.setdefault(int(index), {})[name] = own
    pairs = ("betas", "eps")  # which JSON makes lists
    groups = [
        {name: tuple(value) if name in pairs and isinstance(value, list) else value for name, value in group.items()}
        for group in content["param_groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    schedule.load_state_dict(content["schedule"])
    _restore_random_states(content["random"])
    return content["curve"]


def _tensors_of(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file by name, one at a time."""
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            yield name, file.get_tensor(name)


def _random_states() -> dict[str, Any]:
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else [],
    }


def _restore_random_states(of_all: list[dict[str, Any]]) -> None:
    """Set the random states of Python, numpy and torch to this process's among those of a checkpoint."""
    states = of_all[collectives.rank() % len(of_all)]
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(states["cuda"], dtype=torch.uint8))
