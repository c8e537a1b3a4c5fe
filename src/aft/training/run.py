"""One training run from start to finished model: reused if it was made before, resumed if it was interrupted."""

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft.code import deciding, source_hash
from aft.directories import Description, build_once
from aft.errors import ModelError, SettingsError
from aft.files import write_json
from aft.machine import keep_memory, use_threads
from aft.models.adapters import ADAPTER, add_adapter, check_installed, merge_adapter, save_adapter
from aft.models.card import model_card
from aft.models.directory import ModelDirectory, open_model
from aft.models.environment import cleared
from aft.models.publish import WARNINGS, save_model, write_card
from aft.training import selection
from aft.training.examples import Example, Overview
from aft.training.job import Job, rooms_of
from aft.training.launch import JOB, fit_together
from aft.training.settings import Launch, Sharding, TrainingSettings
from aft.training.stored import Sizes, sizes_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Load = Callable[[], "tuple[PreTrainedModel, PreTrainedTokenizerBase]"]
ALONE = Launch()
CURVE = "training_curve.json"
CURVE_COLUMNS = (
    *("step", "epoch", "loss", "vft_term", "alignment_term", "constraint_term", "score_positive"),
    *("score_negative", "margin", "held_out_perplexity", "grad_norm", "learning_rate", "padding"),
    *("tokens", "tokens_per_s", *selection.COLUMNS),
)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A finished model and how its training went: one row per optimiser step, with `CURVE_COLUMNS`, and warnings."""

    directory: ModelDirectory
    curve: list[dict[str, float]]
    warnings: list[str]  # of degradation, see aft.training.monitor


def train(
    start: ModelDirectory,
    job: Job,
    workspace: Path,
    *,
    launch: Launch = ALONE,
    provenance: Mapping[str, Any] = {},
    overview: Overview | None = None,
) -> TrainedModel:
    """Do a job from the weights of `start`; the same start and job are trained once per workspace.

    Where and how it is trained does not count: a run that one process began, several can end, or one under a smaller
    token budget. `provenance` stands on the model's card, see `model_card`. `overview` is that of the examples, where
    it is known.
    """
    description = {
        "kind": f"model {job.label}",
        "start": start.fingerprint,
        "examples": (overview or Overview(job.examples)).fingerprint,
        "training": deciding(job.settings),
        "objective": asdict(job.objective),
        "seed": job.seed,
    }
    return train_once(
        description,
        lambda: (start.model(), start.tokenizer()),
        lambda: job.examples,
        job,
        workspace,
        provenance={"base_model": start.made_from.get("name"), **provenance},
        together=None if launch.alone else lambda carded, directory: fit_together(carded, start, directory, launch),
    )


def train_once(
    description: Description,
    load: Load,
    read: Callable[[], Sequence[Example]],
    job: Job,
    workspace: Path,
    *,
    provenance: Mapping[str, Any] = {},
    together: Callable[[Job, Path], None] | None = None,
) -> TrainedModel:
    """Train what `load` gives on what `read` gives, in a directory of `workspace` named by the hash of `description`.

    The job's own examples are not looked at. AFT's code is in the hash, too; neither is called where the model is there
    already. A probe decides the curve and the warnings beside the model, and enters the hash as well, as an exam does,
    which decides the model. `provenance` stands on the model's card only: the same model from a folder is no other one.
    `together` fits the job in several processes in place of this one. Raises `SettingsError` if the settings ask for an
    exam and there is none.
    """
    exam = job.exam if job.settings.select == "validation" else None
    if job.settings.select == "validation" and (exam is None or not exam.questions):
        raise SettingsError(
            f"{job.label}: select is validation, but there are no validation questions; set it to last."
        )
    watched = {"probe": Overview(job.probe).fingerprint} if job.probe else {}
    examined = {} if exam is None else {"validation": exam.decides}
    rooms = rooms_of(exam)
    made_from = {**description, "code": source_hash(*rooms), **watched, **examined}
    card = model_card(made_from, provenance)

    def build(directory: Path) -> None:
        carded = replace(job, examples=read(), exam=exam, card=card)
        if together is None:
            with cleared():
                fit(carded, load, directory)
        else:
            together(carded, directory)
        shutil.rmtree(directory / JOB, ignore_errors=True)  # also that of a run that several processes began

    finished = build_once(workspace, made_from, build, *rooms)
    return TrainedModel(open_model(finished), read_curve(finished), kept_warnings(finished))


def read_curve(directory: Path) -> list[dict[str, float]]:
    """How the training of the model in `directory` went, as in `TrainedModel`."""
    return json.loads((directory / CURVE).read_text(encoding="utf-8"))


def kept_warnings(directory: Path) -> list[str]:
    """What the monitor warned of while the model in `directory` was trained; empty if there was no monitor."""
    path = directory / WARNINGS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def fit(job: Job, load: Load, directory: Path, *, sharding: Sharding = "none") -> None:
    """Train, and write model, card, warnings and curve into `directory`; go on from its newest checkpoint, if any.

    Each of several processes calls this; the first one writes, and is the one that answers the validation questions.
    """
    from aft.training import checkpoints, parallel, weights
    from aft.training.loop import fit_weights
    from aft.training.parallel import collectives

    work = directory / "checkpoints"
    if (directory / CURVE).exists():  # written last: only the directory's name was still missing
        shutil.rmtree(work, ignore_errors=True)
        return
    lora = job.settings.lora
    if lora is not None:
        check_installed()  # before weights are loaded
    weights.check(job.settings, sharding)
    _check_steps(len(job.examples), job.settings)
    model, tokenizer = load()
    use_threads(model.num_parameters())
    keep_memory(model.num_parameters())
    _check_sizes(model, sizes_of(job.examples), sizes_of(job.probe))

    def adapted(plain: "PreTrainedModel") -> "PreTrainedModel":
        return plain if lora is None else add_adapter(plain, lora, job.seed)

    def whole() -> "PreTrainedModel":
        """The model with all its weights, under an adapter the base's own, on the first rank. Collective."""
        if sharding == "none" and (lora is None or job.settings.weights == "float32"):
            return model
        learned = checkpoints.trained_weights(model, parallel.choose(sharding))
        one = adapted(load()[0]) if collectives.is_first() else model
        checkpoints.take_weights(one, learned)
        return one

    def examine(exam: selection.Exam) -> dict[str, float]:
        one = whole()
        found = selection.examine(one.to(model.device), tokenizer, exam) if collectives.is_first() else {}  # type: ignore[arg-type]
        return collectives.gathered(found)[0]

    model = adapted(model)
    asked = None if job.exam is None else partial(examine, job.exam)
    fitted = fit_weights(model, job, work, sharding=sharding, examine=asked)
    model, best = whole(), selection.best_epoch(fitted.curve)
    if collectives.is_first():
        if best is not None:
            logger.info("%s: %s", job.label, selection.told(fitted.curve))
            if best["step"] < len(fitted.curve):
                checkpoints.load_weights(checkpoints.at(work, best["step"]), model)
        if lora is not None:
            save_adapter(model, directory / ADAPTER)
            model = merge_adapter(model)
        save_model(model, tokenizer, directory)
        write_card(directory, job.card)
        write_json(directory / WARNINGS, fitted.warnings)
        curve = [{name: row[name] for name in CURVE_COLUMNS if name in row} for row in fitted.curve]
        write_json(directory / CURVE, curve)
        shutil.rmtree(work, ignore_errors=True)
    collectives.wait_for_all()


def _check_steps(examples: int, settings: TrainingSettings) -> None:
    per_epoch = math.ceil(examples / settings.batch_size)
    if settings.max_steps is None and settings.epochs * per_epoch < 1:
        raise SettingsError(
            f"epochs is {settings.epochs}: of {per_epoch} optimiser step(s) per epoch that is less than one; set it to "
            f"{1 / per_epoch:.3g} or more, or lower batch_size."
        )


def _check_sizes(model: "PreTrainedModel", *sizes: Sizes) -> None:
    largest = max(int(one.largest_N.max(initial=0)) for one in sizes)
    known = model.get_input_embeddings().num_embeddings
    if largest >= int(known):  # type: ignore[arg-type]
        raise ModelError(f"A row has the token {largest}, but the model knows {known} tokens: give its own tokenizer.")
    longest = max(int(one.longest_N.max(initial=0)) for one in sizes)
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise ModelError(
            f"A row has {longest} tokens, but the model has {limit} positions: lower max_tokens to {limit}."
        )
