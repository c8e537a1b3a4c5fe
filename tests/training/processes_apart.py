"""Seven training steps of each scenario in two processes: a script for `torchrun`, and what it shares with tests.

Batches of five questions: one process reads three of them and the other two, of the last, smaller batch perhaps none.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import killed_runs
import torch
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from aft.models.adapters import LoraSettings, add_adapter
from aft.scoring import head
from aft.training import checkpoints, parallel
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.loop import fit_weights
from aft.training.parallel import collectives
from aft.training.settings import Objective, Sharding, TrainingSettings

USUAL: dict[str, Any] = {"epochs": 9, "max_steps": 7, "learning_rate": 0.01, "batch_size": 5}
USUAL |= {"checkpoint_every": 4, "monitor_every": 4}
PROBE = [Example("held out", [5, 9], [[7, 30, 1]]), Example("held out, too", [5], [[44, 8, 12, 1]])]
DETACHED = {"term": "aft", "constraint": "detached"}
SCENARIOS: dict[str, dict[str, Any]] = {
    "naive": {"settings": {"scoring": "naive"}, "objective": {"term": "aft", "constraint": "boundary"}},
    "shared": {"objective": DETACHED},
    "several passes": {"settings": {"token_budget": 60}, "objective": {"term": "rrhf"}},
    "two_pass": {"settings": {"scoring": "two_pass", "token_budget": 40}, "objective": DETACHED},
    "pairs": {"objective": {"term": "dpop", "constraint": "boundary", "imitate": "positives"}},
    "points": {"settings": {"token_budget": 60}, "objective": {"term": "gspo", "constraint": "detached"}},
    "lora": {"settings": {"lora": {"rank": 2}}, "objective": {"term": "aft", "constraint": "boundary"}},
    "maximum likelihood": {},
    "sharded": {"sharding": "full", "objective": DETACHED},
    "sharded, several passes": {"sharding": "full", "settings": {"token_budget": 30}, "objective": {"term": "aft"}},
    "sharded, logits in chunks": {"sharding": "full", "most_logits": 64 * 3, "objective": {"term": "aft"}},
    "sharded lora": {"sharding": "full", "settings": {"lora": {"rank": 2}}, "objective": {"term": "aft"}},
}
SCENARIOS["sharded, tied"] = {**SCENARIOS["sharded"], "tied": True, "settings": {"gradient_checkpointing": True}}


def is_tied(scenario: dict[str, Any]) -> bool:
    """Whether the model's head is its embedding."""
    return scenario.get("tied", "sharding" not in scenario)


def seven_steps(scenario: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train and give the curve and all weights, whole, in the first process."""
    settings = dict(scenario.get("settings", {}))
    lora = settings.pop("lora", None)
    chosen = TrainingSettings(**USUAL | settings, lora=LoraSettings(**lora) if lora else None)
    model: Any = killed_runs.small_llama(tied=is_tied(scenario))
    if chosen.lora:
        model = add_adapter(model, chosen.lora, 0)
    head._MOST_LOGITS = scenario.get("most_logits", 2**25)  # type: ignore[attr-defined]
    sharding: Sharding = scenario.get("sharding", "none") if collectives.count() > 1 else "none"
    objective = Objective(**scenario.get("objective", {}))
    job = Job(killed_runs.ragged_examples(13), chosen, objective, 3, "test", PROBE)
    optimizers: list[Any] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: optimizers.append(optimizer))
    curve = fit_weights(model, job, folder, sharding=sharding).curve
    hook.remove()
    ways = parallel.choose(sharding)
    weights, (moments, _) = checkpoints.trained_weights(model, ways), checkpoints.optimizer_state(optimizers[0], ways)
    kept = {"weights": weights, "moments": moments}
    return {
        **{"curve": curve, "model": model, "weights": weights},
        "kept": {what: sum(tensor.numel() for tensor in tensors.values()) for what, tensors in kept.items()},
    }


def hash_of(weights: dict[str, torch.Tensor]) -> str:
    """Of every bit."""
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in weights.values())).hexdigest()


def main() -> None:
    """Run every scenario, again from its or another's checkpoint, and write what the first process has to show."""
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    for name, scenario in SCENARIOS.items():
        folder = root / name
        shown = seven_steps(scenario, folder)
        again = seven_steps(scenario, folder)  # from the checkpoint after step 4
        if "sharding" not in scenario:
            own = {n: w.detach() for n, w in shown["model"].named_parameters()}
            assert len(set(collectives.gathered(hash_of(own)))) == 1, "the processes have gone apart"
        kept = collectives.gathered(shown["kept"])
        if collectives.is_first():
            (folder / "kept.json").write_text(json.dumps(kept), encoding="utf-8")
            for kind, run in {"at once": shown, "resumed": again}.items():
                (folder / f"{kind}.json").write_text(json.dumps(run["curve"]), encoding="utf-8")
                save_file(
                    {k: v.clone().contiguous() for k, v in run["weights"].items()}, folder / f"{kind}.safetensors"
                )
        collectives.wait_for_all()


if __name__ == "__main__":
    main()
