"""The training loop of every stage: `loss = vft + weight x alignment(term, constraint)` over groups of responses.

It reads top to bottom: batch, passes (gradient accumulation under a token budget), clip, step, row of the curve, look
at the probe, exam of an epoch, checkpoint. Several processes run it side by side; see `aft.training.parallel`.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch  # noqa: TID253
from accelerate import PartialState  # noqa: TID253
from accelerate.utils import set_seed  # noqa: TID253

from aft.errors import NumericalError, SettingsError
from aft.machine import warn_of_slowness
from aft.models.directory import hide_weight_bars
from aft.progress import bar
from aft.scoring import head, paths
from aft.scoring.groups import Group
from aft.training import checkpoints, selection, weights
from aft.training.batches import batches_from, steps_per_epoch
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.monitor import DegradationMonitor
from aft.training.objective import Totals, needs_gradient, objective_loss
from aft.training.optimizer import make_optimizer, make_schedule, warmup_steps
from aft.training.parallel import Parallel, choose, collectives
from aft.training.settings import Sharding, TrainingSettings
from aft.training.stored import sizes_of

if TYPE_CHECKING:
    from tqdm import tqdm
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_SHOWN = {"loss": "loss", "score_positive": "s_pos", "score_negative": "s_neg"}  # beside the progress bar
_LONGEST_WAIT = timedelta(hours=6)  # of the other processes, while the first one answers, or writes a checkpoint


class Fitted(NamedTuple):
    """What a training run leaves beside the model: one row per optimiser step, and warnings of degradation."""

    curve: list[dict[str, float]]
    warnings: list[str]


def fit_weights(
    model: "PreTrainedModel",
    job: Job,
    directory: Path,
    *,
    sharding: Sharding = "none",
    examine: Callable[[], dict[str, float]] | None = None,
) -> Fitted:
    """Train `model` in place, from the newest checkpoint in `directory` on if there is one.

    `examine`, a collective, gives the `selection.COLUMNS` under the present weights and is asked at the end of every
    epoch. The checkpoint of the best epoch stays in `directory`, unless it is the last one, whose weights `model` has.

    Collective: every process of a run calls it with the same job. Raises `NumericalError` naming the questions if a
    loss, a score or a gradient is not finite, before weights or a checkpoint can keep it.
    """
    settings, costs = job.settings, sizes_of(job.examples).cost_N
    parallel, path = choose(sharding), _prepare(model, job, sharding)
    per_epoch = steps_per_epoch(costs, settings.batch_size)
    total = settings.max_steps or math.ceil(settings.epochs * per_epoch)
    found = checkpoints.latest(directory) if collectives.is_first() else None  # it reads every byte of them
    checkpoint = collectives.gathered(found)[0]
    if checkpoint is not None:
        logger.info("%s: continuing from step %d.", job.label, checkpoints.step_of(checkpoint))
        checkpoints.load_weights(checkpoint, model)
    parallel.prepare(model)
    optimizer = make_optimizer(model, settings)
    schedule = make_schedule(optimizer, settings, total)
    set_seed(job.seed)
    curve = [] if checkpoint is None else checkpoints.load_state(checkpoint, optimizer, schedule, parallel)
    monitor = DegradationMonitor(job.label, job.objective, warmup_steps(settings, total))
    for row in curve:  # what they gave reason to was logged then
        monitor.observe(row)
    with bar(job.label, total, "step", done=len(curve), silent=not collectives.is_first()) as shown:
        batches = batches_from(len(curve), costs, settings.batch_size, job.seed)
        for step, numbers in zip(range(len(curve) + 1, total + 1), batches, strict=False):
            began, batch = time.perf_counter(), [job.examples[number] for number in numbers]
            row = {"step": step, "epoch": step / per_epoch, **add_gradient(model, batch, job, path, parallel, step)}
            row["grad_norm"] = _clip(model, batch, settings.max_grad_norm, parallel, step)
            row["learning_rate"] = schedule.get_last_lr()[0]
            optimizer.step()
            weights.round_masters(model)
            schedule.step()
            optimizer.zero_grad()
            row["tokens_per_s"] = row["tokens"] / (time.perf_counter() - began)
            if job.probe and settings.monitor_every and step % settings.monitor_every == 0:
                row["held_out_perplexity"] = _held_out_perplexity(model, job, path)
            curve.append(row)
            for warning in monitor.observe(row):
                logger.warning("%s", warning)
            _show(shown, row)
            if examine is not None and (step % per_epoch == 0 or step == total):
                row |= examine()
            if selection.is_over(curve, settings.patience):
                break
            due = step % settings.checkpoint_every == 0 or selection.ACCURACY in row
            if due and step < total:  # in the end there is the finished model
                checkpoints.save(directory, model, optimizer, schedule, parallel, curve)
    return Fitted(curve, monitor.warnings)


def _prepare(model: "PreTrainedModel", job: Job, sharding: Sharding) -> paths.Path:
    """Put the model where it is trained and choose the path on which its responses are scored."""
    hide_weight_bars()
    settings, state = job.settings, PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT)
    device = state.device
    warn_of_slowness(str(device), half=settings.precision == "bfloat16", recomputes=settings.gradient_checkpointing)
    weights.check(settings, sharding)
    weights.keep_frozen(model, settings)
    model.to(device)  # type: ignore[arg-type]
    model.train()
    path = paths.choose_path(model, settings.scoring)
    if sharding == "full" and path == "two_pass":
        raise SettingsError("Sharded weights cannot be scored on the path 'two_pass': set scoring to auto.")
    logger.info("%s: responses are scored on the path '%s'.", job.label, path)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    weights.keep_masters(model, settings)
    return path


def add_gradient(
    model: "PreTrainedModel", batch: Sequence[Example], job: Job, path: paths.Path, parallel: Parallel, step: int
) -> dict[str, float]:
    """Add the gradient of one optimiser step, in as many passes as the token budget asks for; its row of the curve.

    Every process takes its share of the batch; each share is divided by the totals of the whole one.
    """
    groups, totals = [example.group for example in batch], Totals.of(batch)
    shares = collectives.shares([group.cost for group in groups], collectives.count())
    plans = [_plan(groups, share, path, job.settings.token_budget, parallel) for share in shares]
    planned, sums = plans[collectives.rank()], defaultdict[str, Any](float)
    with paths.mode(model, path), _autocast(model, job.settings):
        for how, numbers in planned:
            some = [batch[number] for number in numbers]
            for name, value in _one_pass(model, some, job, how, parallel, totals, step).items():
                sums[name] += value
        for _ in range(max(map(len, plans)) - len(planned) if parallel.LOCKSTEP else 0):
            _idle_pass(model, groups[0], job, path, parallel)
        parallel.add_up(model)
    sums["tokens"] += sum(groups[number].cost for number in shares[collectives.rank()])
    sums["padding"] += paths.padding(groups, planned) / collectives.count()
    return collectives.summed({name: float(value) for name, value in sums.items()})


def _plan(
    groups: Sequence[Group], share: Sequence[int], path: paths.Path, budget: int, parallel: Parallel
) -> list[tuple[paths.Path, list[int]]]:
    """The passes over a share of the groups; in step, each is one forward and one backward pass."""
    planned = paths.plan([groups[number] for number in share], path, budget)
    return [
        ("shared" if parallel.LOCKSTEP and how == "two_pass" else how, [share[number] for number in numbers])
        for how, numbers in planned
    ]


def _one_pass(
    model: "PreTrainedModel",
    examples: Sequence[Example],
    job: Job,
    how: paths.Path,
    parallel: Parallel,
    totals: Totals,
    step: int,
) -> dict[str, torch.Tensor]:
    """Add the gradient of some examples of a step; their shares of its loss, terms and scores, detached."""
    metrics: dict[str, torch.Tensor] = {}

    def loss_of(sums_R: torch.Tensor) -> torch.Tensor:
        loss, found = objective_loss(sums_R, examples, job.objective, totals)
        # A negative with score -inf can leave the loss finite: look at the scores as well.
        if not (torch.isfinite(loss) & torch.isfinite(sums_R).all()):
            raise NumericalError(f"The loss of step {step} is not finite; {_questions(examples)}")
        metrics.update(found)
        return loss

    # Sharded weights have one graph per pass, in which every response is.
    needed = None if parallel.LOCKSTEP else needs_gradient(examples, job.objective)
    groups = [example.group for example in examples]
    loss = paths.backward(model, how, groups, needed, loss_of, job.settings.token_budget, parallel.backward)
    return {**metrics, "loss": loss}


def _idle_pass(model: "PreTrainedModel", group: Group, job: Job, path: paths.Path, parallel: Parallel) -> None:
    """A pass that adds nothing, beside the passes of other processes: sharded weights are put together for all."""

    def nothing(sums_R: torch.Tensor) -> torch.Tensor:
        return (0 * sums_R).nan_to_num().sum()

    paths.backward(model, path, [group], None, nothing, job.settings.token_budget, parallel.backward)


def _clip(model: "PreTrainedModel", batch: Sequence[Example], most: float, parallel: Parallel, step: int) -> float:
    """Scale the gradient down to the norm `most`; its norm before. Raises `NumericalError` if that is not finite."""
    norm = parallel.full_tensor(torch.nn.utils.clip_grad_norm_(weights.trained(model).values(), most)).item()
    if not math.isfinite(norm):
        raise NumericalError(f"The gradient of step {step} is not finite; {_questions(batch)}")
    return norm


@torch.no_grad()
def _held_out_perplexity(model: "PreTrainedModel", job: Job, path: paths.Path) -> float:
    """Mean of exp(-score) over the probe's responses, under the weights after the step.

    It draws no random number and costs a forward pass without a graph: per token a third of a training step at the
    most, so that a probe of as many tokens as a batch, every 20 steps, adds less than a fiftieth to the time.
    """
    groups = [example.group for example in job.probe]
    with head.evaluating(model), _autocast(model, job.settings):
        scores_R = paths.score(model, path, groups, job.settings.token_budget)
    return scores_R.double().neg().exp().mean().item()


def _autocast(model: "PreTrainedModel", settings: TrainingSettings) -> torch.autocast:
    return torch.autocast(model.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")


def _show(bar: "tqdm[Any]", row: Mapping[str, float]) -> None:
    """Move the bar by one step, with the figures that show whether it goes well."""
    bar.set_postfix({short: f"{row[name]:.3f}" for name, short in _SHOWN.items() if name in row}, refresh=False)
    bar.update()


def _questions(examples: Sequence[Example]) -> str:
    names = ", ".join(example.question_id for example in examples[:8])
    return f"its questions are {names}; lower the learning rate or look at these rows."
