"""The trainer of every stage: `loss = vft + weight x alignment(term, constraint)` over groups of responses.

Schedules, precision and device placement come from `transformers.Trainer`; the group step, the order of the data, the
checkpoints and the curve are ours.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
from transformers import PreTrainedModel, Trainer, TrainingArguments  # noqa: TID253
from transformers.trainer_callback import PrinterCallback  # noqa: TID253

from aft.errors import NumericalError
from aft.files import writing
from aft.models.directory import hide_weight_bars
from aft.scoring import paths
from aft.scoring.groups import Group
from aft.scoring.head import evaluating
from aft.training import checkpoints
from aft.training.batches import CostGroupedSampler
from aft.training.examples import Example
from aft.training.monitor import DegradationMonitor
from aft.training.objective import Totals, needs_gradient, objective_loss
from aft.training.progress import ProgressBar
from aft.training.settings import Objective, TrainingSettings

logger = logging.getLogger(__name__)

Batch = dict[str, list[Example]]
_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adafactor": "adafactor", "sgd": "sgd"}  # as transformers names them


class AlignmentTrainer(Trainer):
    """Trains a causal language model on `Example`s; those without candidates are plain maximum likelihood.

    Every `monitor_every` steps the targets of `probe`, of questions that are not trained on, are scored. That draws no
    random number and costs a forward pass without a graph: per token a third of a training step at the most, so that a
    probe of as many tokens as a batch, every 20 steps, adds less than a fiftieth to the time of training.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        examples: Sequence[Example],
        settings: TrainingSettings,
        objective: Objective,
        seed: int,
        directory: Path,
        label: str,
        probe: Sequence[Example] = (),
    ) -> None:
        super().__init__(
            model=model,
            args=_arguments(settings, seed, directory),
            train_dataset=examples,  # type: ignore[arg-type]
            data_collator=_collate,
            callbacks=[ProgressBar(label)],
        )
        hide_weight_bars()
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True  # sums are divided by the totals of the whole batch
        self.examples = examples
        self.objective = objective
        self.seed = seed
        self.directory = directory
        self.label = label
        self.token_budget = settings.token_budget
        self.probe = [Group(example.prompt, example.targets) for example in probe]
        self.monitor_every = settings.monitor_every
        self.monitor: DegradationMonitor | None = None  # made when the number of steps is known
        self.path: paths.Path = paths.choose_path(model, settings.scoring)
        logger.info("%s: responses are scored on the path '%s'.", label, self.path)
        self._sums: defaultdict[str, Any] = defaultdict(float)
        self._step_examples: list[Example] = []
        self._step_began = time.perf_counter()

    def _get_train_sampler(self, train_dataset: Any = None) -> CostGroupedSampler:
        return CostGroupedSampler(
            [example.group.cost for example in self.examples], self.args.train_batch_size, self.seed
        )

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """The loss of one optimiser step, whose gradient is added up over as many passes as the token budget asks for.

        Raises `NumericalError` naming the questions if a loss or a score is not finite.
        """
        model.train()
        examples = self._step_examples = inputs["examples"]
        groups, totals = [example.group for example in examples], Totals.of(examples)
        planned = paths.plan(groups, self.path, self.token_budget)
        losses = []
        with paths.mode(model, self.path), self.accelerator.autocast():
            for path, numbers in planned:
                some = [examples[number] for number in numbers]
                losses.append(self._backward(model, path, some, totals))
        self._sums["tokens"] += sum(group.cost for group in groups)
        self._sums["padding"] = paths.padding(groups, planned)
        return torch.stack(losses).sum()

    def _backward(self, model: Any, path: paths.Path, examples: list[Example], totals: Totals) -> torch.Tensor:
        """Add the examples' share of the step's gradient; their share of its loss."""

        def loss_of(sums_R: torch.Tensor) -> torch.Tensor:
            loss, metrics = objective_loss(sums_R, examples, self.objective, totals)
            # A negative with score -inf can leave the loss finite: look at the scores as well.
            if not (torch.isfinite(loss) & torch.isfinite(sums_R).all()):
                raise NumericalError(f"The loss is not finite at step {self.state.global_step}; {_questions(examples)}")
            for name, value in metrics.items():
                self._sums[name] += value
            return loss

        groups = [example.group for example in examples]
        needed = needs_gradient(examples, self.objective)
        backward = self.accelerator.backward
        return paths.backward(model, path, groups, needed, loss_of, self.token_budget, backward)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the terms, scores and speed of the step to what the trainer logs, and warn of degradation.

        Raises `NumericalError` naming the questions if the gradient was not finite, before a checkpoint can keep it.
        """
        if "loss" in logs:
            sums = {name: float(value) for name, value in self._sums.items()}
            self._sums.clear()
            if not math.isfinite(logs["grad_norm"]):
                step, names = self.state.global_step, _questions(self._step_examples)
                raise NumericalError(f"The gradient of step {step} is not finite; {names}")
            logs["vft_term"] = sums["vft_term"]
            if self.objective.term != "none":
                logs["alignment_term"] = sums["alignment_term"]
                logs["constraint_term"] = sums["constraint_term"]
            logs |= {name: sums[name] for name in ("score_positive", "score_negative", "margin") if name in sums}
            now = time.perf_counter()
            logs["padding"] = sums["padding"]
            logs["tokens_per_s"] = sums["tokens"] / (now - self._step_began)
            if self.probe and self.monitor_every and self.state.global_step % self.monitor_every == 0:
                logs["held_out_perplexity"] = self._held_out_perplexity()
            self._step_began = time.perf_counter()
        super().log(logs, start_time)
        self._watch()

    # --- degradation ------------------------------------------------------------------------------------------------

    @property
    def warnings(self) -> list[str]:
        """What was warned of since the run's first step, before a checkpoint included."""
        return self.monitor.warnings if self.monitor else []

    def _held_out_perplexity(self) -> float:
        """Mean of exp(-score) over the probe's responses, under the weights after the step."""
        model: Any = self.model
        with evaluating(model), self.accelerator.autocast():
            scores_R = paths.score(model, self.path, self.probe, self.token_budget)
        return scores_R.double().neg().exp().mean().item()

    def _watch(self) -> None:
        history: list[Any] = self.state.log_history
        if self.monitor is None:
            warmup_steps = self.args.get_warmup_steps(self.state.max_steps)
            self.monitor = DegradationMonitor(self.label, self.objective, warmup_steps)
            for row in history[:-1]:  # of a checkpoint: what they gave reason to was logged then
                self.monitor.observe(row)
        for warning in self.monitor.observe(history[-1]):
            logger.warning("%s", warning)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            return  # the finished model comes next; and a run that continues from here would make one step too many
        name = f"checkpoint-{self.state.global_step}"
        staged = self.directory / f".{name}.partial"
        with writing(staged):
            staged.mkdir(parents=True, exist_ok=True)
            checkpoints.save_weights(staged, self.model)  # type: ignore[arg-type]
            checkpoints.save_optimizer(staged, self.optimizer, self.lr_scheduler)  # type: ignore[arg-type]
            self.state.save_to_json(str(staged / "trainer_state.json"))
        checkpoints.finish(staged, self.directory / name)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)  # type: ignore[arg-type]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.restore_random_states(Path(checkpoint))


def _arguments(settings: TrainingSettings, seed: int, directory: Path) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(directory),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim=_OPTIMIZERS[settings.optimizer],
        bf16=settings.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.checkpoint_every,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process trains on one device: no DataParallel behind our back
    return arguments


def _collate(examples: list[Example]) -> Batch:
    return {"examples": examples}


def _questions(examples: Sequence[Example]) -> str:
    names = ", ".join(example.question_id for example in examples[:8])
    return f"its questions are {names}; lower the learning rate or look at these rows."
