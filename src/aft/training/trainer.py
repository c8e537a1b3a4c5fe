"""The trainer of every stage: `loss = vft + weight x alignment(term, constraint)` over groups of responses.

Schedules, precision and device placement come from `transformers.Trainer`; the group step, the order of the data, the
checkpoints and the curve are ours.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
from torch.distributed import is_torchelastic_launched  # noqa: TID253
from transformers import PreTrainedModel, Trainer, TrainingArguments  # noqa: TID253
from transformers.trainer_callback import PrinterCallback  # noqa: TID253

from aft.errors import NumericalError, SettingsError
from aft.files import writing
from aft.models.directory import hide_weight_bars
from aft.scoring import paths
from aft.scoring.groups import Group
from aft.scoring.head import evaluating
from aft.training import checkpoints, processes, sharding
from aft.training.batches import CostGroupedSampler
from aft.training.examples import Example
from aft.training.monitor import DegradationMonitor
from aft.training.objective import Totals, needs_gradient, objective_loss
from aft.training.progress import ProgressBar
from aft.training.settings import Objective, Sharding, TrainingSettings
from aft.training.zero3 import Zero3

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
        *,
        sharding: Sharding = "none",
    ) -> None:
        config: Any = model.config
        cached = getattr(config, "use_cache", None)
        super().__init__(
            model=model,
            args=_arguments(settings, seed, directory),
            train_dataset=examples,  # type: ignore[arg-type]
            data_collator=_collate,
            callbacks=[ProgressBar(label)] if processes.is_first() else [],
        )
        if cached is None:  # the Trainer writes use_cache into the configuration, with which the model will be saved
            del config.use_cache
        else:
            config.use_cache = cached
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
        self.sharding: Sharding = sharding
        if self.sharded and self.path == "two_pass":
            raise SettingsError("Sharded weights cannot be scored on the path 'two_pass': set scoring to auto.")
        if self.sharded and settings.optimizer == "adafactor":
            raise SettingsError("The optimizer adafactor does not know sharded weights: set adamw or sgd.")
        logger.info("%s: responses are scored on the path '%s'.", label, self.path)
        self.zero3: Zero3 | None = None  # made when the optimiser is there
        self._sums: defaultdict[str, Any] = defaultdict(float)
        self._step_examples: list[Example] = []
        self._step_began = time.perf_counter()

    @property
    def sharded(self) -> bool:
        """Whether each process keeps but a part of the weights."""
        return self.sharding != "none"

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
        shares = processes.shares([group.cost for group in groups], processes.count())
        plans = [self._plan(groups, share) for share in shares]
        planned, losses = plans[processes.rank()], [torch.zeros((), device=model.device)]
        with paths.mode(model, self.path), self.accelerator.autocast():
            for path, numbers in planned:
                some = [examples[number] for number in numbers]
                losses.append(self._backward(model, path, some, totals))
            if self.sharded:
                for _ in range(max(map(len, plans)) - len(planned)):
                    self._idle(model, groups[0])
            else:
                processes.add_up_gradients(model)
        self._sums["tokens"] += sum(groups[number].cost for number in shares[processes.rank()])
        self._sums["padding"] = paths.padding(groups, planned)
        return torch.stack(losses).sum() * processes.count()  # of which the trainer takes the mean

    def _plan(self, groups: list[Group], share: list[int]) -> list[tuple[paths.Path, list[int]]]:
        """The passes over a share of the groups; with sharded weights each is one forward and one backward pass."""
        planned = paths.plan([groups[number] for number in share], self.path, self.token_budget)
        return [
            ("shared" if self.sharded and path == "two_pass" else path, [share[number] for number in numbers])
            for path, numbers in planned
        ]

    def _idle(self, model: Any, group: Group) -> None:
        """A pass that adds nothing, beside the passes of other processes: sharded weights are put together for all."""

        def nothing(sums_R: torch.Tensor) -> torch.Tensor:
            return (0 * sums_R).nan_to_num().sum()

        paths.backward(model, self.path, [group], None, nothing, self.token_budget, self._backward_of_all)

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
        if not self.sharded:
            needed = needs_gradient(examples, self.objective)
            backward = self.accelerator.backward
            return paths.backward(model, path, groups, needed, loss_of, self.token_budget, backward)

        return paths.backward(model, path, groups, None, loss_of, self.token_budget, self._backward_of_all)

    def _backward_of_all(self, loss: torch.Tensor) -> None:
        """The backward pass of sharded weights, which averages over the processes."""
        backward = self.accelerator.backward if self.zero3 is None else self.zero3.backward
        backward(loss * processes.count())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the terms, scores and speed of the step to what the trainer logs, and warn of degradation.

        Raises `NumericalError` naming the questions if the gradient was not finite, before a checkpoint can keep it.
        """
        if "loss" in logs:
            sums = processes.summed({name: float(value) for name, value in self._sums.items()})
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
            logs["padding"] = sums["padding"] / processes.count()
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

    # --- several processes ------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """The batches of the epoch: every process gets all of them, whole, and takes its share of each."""
        dataloader: Any = super().get_train_dataloader()
        if processes.count() > 1:  # accelerate deals the batches out: it is told that there is nobody else
            batches = dataloader.batch_sampler
            batches.num_processes, batches.process_index, batches.even_batches = 1, 0, False
            batches.sampler = batches.batch_sampler.sampler  # which is told the epoch, in a resumed one, too
        return dataloader

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Without groups that are empty, as that of weights without decay is with LoRA: DeepSpeed knows none."""
        optimizer = super().create_optimizer(model)
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    def create_accelerator_and_postprocess(self) -> None:
        """Leave the model as it is: what is added up over the processes is added up once a step, by us."""
        super().create_accelerator_and_postprocess()
        accelerator: Any = self.accelerator
        accelerator.prepare_model = partial(accelerator.prepare_model, evaluation_mode=True)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        # A checkpoint's weights, which are whole, are loaded by now; the optimiser comes next.
        if self.sharding == "full":
            sharding.shard(self.model)  # type: ignore[arg-type]
        if self.sharding != "zero3":
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        plain: Any = self.optimizer
        self.zero3 = Zero3(self.model, plain.optimizer, self.args.max_grad_norm)  # type: ignore[arg-type]
        self.optimizer = self.zero3  # type: ignore[assignment]
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.zero3 is not None:
            return self.zero3.clip_and_step()
        norm: Any = super()._clip_grad_norm(model)
        return sharding.whole(norm)

    def whole_weights(self) -> dict[str, torch.Tensor] | None:
        """All weights, in the first process and none in the others, if each has but a part. Every process must ask."""
        if self.zero3 is not None:
            return self.zero3.whole_weights()
        return sharding.whole_for_first(self.model.state_dict()) if self.sharded else None  # type: ignore[union-attr]

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            return  # the finished model comes next; and a run that continues from here would make one step too many
        name = f"checkpoint-{self.state.global_step}"
        staged = self.directory / f".{name}.partial"
        weights = self.whole_weights()
        optimizer = checkpoints.optimizer_state(self.optimizer, self.lr_scheduler)  # type: ignore[arg-type]
        if processes.is_first():
            with writing(staged):
                staged.mkdir(parents=True, exist_ok=True)
                checkpoints.save_weights(staged, self.model, weights)  # type: ignore[arg-type]
                checkpoints.save_optimizer(staged, *optimizer)
                self.state.save_to_json(str(staged / "trainer_state.json"))
            checkpoints.finish(staged, self.directory / name)
        processes.wait_for_all()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.state.compute_steps(self.args, self.state.max_steps)  # when to save: not as the run that began it
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
        ddp_backend="gloo" if is_torchelastic_launched() and not torch.cuda.is_available() else None,
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
