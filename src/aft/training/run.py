"""One training run from start to finished model: reused if it was made before, resumed if it was interrupted."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft import __version__
from aft.errors import ModelError
from aft.files import Description, build_once, write_atomically, write_json
from aft.models.adapters import ADAPTER, add_adapter, check_installed, merge_adapter, save_adapter
from aft.models.card import CARD, model_card
from aft.models.directory import ModelDirectory, open_model, save_model
from aft.training.examples import Example
from aft.training.examples import fingerprint as fingerprint_of
from aft.training.settings import Objective, TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CURVE, WARNINGS = "training_curve.json", "training_warnings.json"
CURVE_COLUMNS = (
    *("step", "epoch", "loss", "vft_term", "alignment_term", "constraint_term", "score_positive"),
    *("score_negative", "margin", "held_out_perplexity", "grad_norm", "learning_rate", "padding", "tokens_per_s"),
)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A finished model and how its training went: one row per optimiser step, with `CURVE_COLUMNS`, and warnings."""

    directory: ModelDirectory
    curve: list[dict[str, float]]
    warnings: list[str]  # of degradation, see aft.training.monitor


def train(
    start: ModelDirectory,
    examples: Sequence[Example],
    settings: TrainingSettings,
    objective: Objective,
    seed: int,
    workspace: Path,
    label: str,
    *,
    probe: Sequence[Example] = (),
) -> TrainedModel:
    """Train from the weights of `start`; the same start, examples, settings and seed are trained once per workspace.

    `probe` holds right responses to questions that are not trained on; see `AlignmentTrainer`.
    """
    description = {
        "kind": f"model {label}",
        "start": start.fingerprint,
        "examples": fingerprint_of(examples),
        "training": asdict(settings),
        "objective": asdict(objective),
        "seed": seed,
    }
    return train_once(
        description,
        lambda: (start.model(), start.tokenizer()),
        lambda: examples,
        settings,
        objective,
        seed,
        workspace,
        label,
        probe=probe,
        base_model=start.made_from.get("name"),
    )


def train_once(
    description: Description,
    load: "Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]",
    read: Callable[[], Sequence[Example]],
    settings: TrainingSettings,
    objective: Objective,
    seed: int,
    workspace: Path,
    label: str,
    *,
    probe: Sequence[Example] = (),
    base_model: str | None = None,
) -> TrainedModel:
    """Train what `load` gives on what `read` gives, in a directory of `workspace` named by the hash of `description`.

    AFT's version is in the hash, too; neither is called where the model is there already.

    A probe decides the curve and the warnings beside the model, and enters the hash as well. `base_model`, the name on
    the hub of what is loaded, stands on the model's card only: the same model from a folder is no other one.
    """
    made_from = _made_from(description, probe)
    card = model_card({**made_from, "base_model": base_model})

    def build(directory: Path) -> None:
        _train_into(directory, load, read(), settings, objective, seed, label, probe, card)

    finished = build_once(workspace, made_from, build)
    curve = json.loads((finished / CURVE).read_text())
    return TrainedModel(open_model(finished), curve, kept_warnings(finished))


def kept_warnings(directory: Path) -> list[str]:
    """What the monitor warned of while the model in `directory` was trained; empty if there was no monitor."""
    path = directory / WARNINGS
    return json.loads(path.read_text()) if path.is_file() else []


def _made_from(description: Description, probe: Sequence[Example]) -> Description:
    """The whole description: the probe is in it only where there is one."""
    made_from = {**description, "aft": __version__}
    return {**made_from, "probe": fingerprint_of(probe)} if probe else made_from


def _train_into(
    directory: Path,
    load: "Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]",
    examples: Sequence[Example],
    settings: TrainingSettings,
    objective: Objective,
    seed: int,
    label: str,
    probe: Sequence[Example],
    card: str,
) -> None:
    import shutil

    from aft.training import checkpoints
    from aft.training.trainer import AlignmentTrainer

    work = directory / "checkpoints"
    if (directory / CURVE).exists():  # written last: only the directory's name was still missing
        shutil.rmtree(work, ignore_errors=True)
        return
    if settings.lora is not None:
        check_installed()  # before weights are loaded
    model, tokenizer = load()
    _check_lengths(model, [*examples, *probe])
    if settings.lora is not None:
        model = add_adapter(model, settings.lora, seed)
    trainer = AlignmentTrainer(model, examples, settings, objective, seed, work, label, probe)
    checkpoint = checkpoints.latest(work)
    if checkpoint is not None:
        logger.info("%s: continuing from step %d.", label, checkpoints.step_of(checkpoint))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if settings.lora is not None:
        save_adapter(model, directory / ADAPTER)
        model = merge_adapter(model)
    save_model(model, tokenizer, directory)
    write_atomically(directory / CARD, lambda staged: staged.write_text(card))
    write_json(directory / WARNINGS, trainer.warnings)
    write_json(directory / CURVE, _curve(trainer.state.log_history))
    shutil.rmtree(work, ignore_errors=True)


def _check_lengths(model: "PreTrainedModel", examples: Sequence[Example]) -> None:
    largest = max(max(e.prompt, default=0) for e in examples)
    largest = max(largest, *(max(r) for e in examples for r in (*e.targets, *e.candidates)))
    known = model.get_input_embeddings().num_embeddings
    if largest >= int(known):  # type: ignore[arg-type]
        raise ModelError(f"A row has the token {largest}, but the model knows {known} tokens: give its own tokenizer.")
    longest = max(len(e.prompt) + len(r) for e in examples for r in (*e.targets, *e.candidates))
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise ModelError(
            f"A row has {longest} tokens, but the model has {limit} positions: lower max_tokens to {limit}."
        )


def _curve(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [{name: row[name] for name in CURVE_COLUMNS if name in row} for row in history if "loss" in row]
