"""The trainer of every stage: `loss = vft + weight x alignment(term, constraint)` over groups of responses.

Schedules, precision, accumulation and device placement come from `transformers.Trainer`; the group step, the order of
the data, the checkpoints and the curve are ours.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
from transformers import PreTrainedModel, Trainer, TrainingArguments  # noqa: TID253
from transformers.trainer_callback import PrinterCallback  # noqa: TID253

from aft.alignment.losses import alignment_loss
from aft.errors import NumericalError
from aft.files import writing
from aft.models.directory import hide_weight_bars
from aft.scoring.naive import token_logprobs
from aft.training import checkpoints
from aft.training.batches import CostGroupedSampler
from aft.training.examples import Example
from aft.training.progress import ProgressBar
from aft.training.settings import Objective, TrainingSettings

Batch = dict[str, list[Example]]


class AlignmentTrainer(Trainer):
    """Trains a causal language model on `Example`s; those without candidates are plain maximum likelihood."""

    def __init__(
        self,
        model: PreTrainedModel,
        examples: Sequence[Example],
        settings: TrainingSettings,
        objective: Objective,
        seed: int,
        directory: Path,
        label: str,
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
        self.loss_is_scaled_for_ga = True  # sums are divided by the totals of the whole accumulated batch
        self.examples = examples
        self.objective = objective
        self.seed = seed
        self.directory = directory
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._step_examples: list[Example] = []
        self._step_began = time.perf_counter()

    def _get_train_sampler(self, train_dataset: Any = None) -> CostGroupedSampler:
        step_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return CostGroupedSampler([example.cost for example in self.examples], step_size, self.seed)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """The micro-batches of one optimiser step, and what its sums are divided by: target tokens and questions."""
        batches = list(islice(epoch_iterator, num_batches))
        examples = [example for batch in batches for example in batch["examples"]]
        tokens = sum(len(target) for example in examples for target in example.targets)
        self._step_examples = examples
        return batches, (tokens, len(examples))

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """The share of one micro-batch in the loss of its optimiser step; a sum over micro-batches is the exact loss.

        Raises `NumericalError` naming the questions if the loss is not finite.
        """
        examples = inputs["examples"]
        step_tokens, step_questions = num_items_in_batch
        pairs = [(e.prompt, r) for e in examples for r in (*e.targets, *e.candidates)]
        scored = token_logprobs(model, [prompt for prompt, _ in pairs], [response for _, response in pairs])
        is_target_R = torch.tensor(
            [i < len(e.targets) for e in examples for i in range(len(e.targets) + len(e.candidates))],
            device=scored.mask_R_C.device,
        )
        vft = -scored.sums_R[is_target_R].sum() / step_tokens
        loss = vft
        if self.objective.term != "none":
            alignment, metrics = self._alignment(scored.scores_R[~is_target_R], examples)
            share = len(examples) / step_questions
            loss = vft + self.objective.weight * share * alignment
            self._count_alignment(metrics, share)
        # A negative with score -inf can leave the loss finite: look at the scores as well.
        if not (torch.isfinite(loss) & torch.isfinite(scored.sums_R).all()):
            raise NumericalError(f"The loss is not finite at step {self.state.global_step}; {_questions(examples)}")
        self._sums["vft_term"] += vft.item()
        self._sums["tokens"] += sum(example.cost for example in examples)  # what is read, padding apart
        return loss

    def _alignment(
        self, scores_R: torch.Tensor, examples: Sequence[Example]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean alignment loss of the micro-batch's questions, from the scores of their candidates in order."""
        sizes = torch.tensor([len(example.candidates) for example in examples], device=scores_R.device)
        columns = max(int(sizes.max()), 1)
        mask_Q_K = torch.arange(columns, device=scores_R.device)[None, :] < sizes[:, None]
        scores_Q_K = scores_R.new_zeros(mask_Q_K.shape).masked_scatter(mask_Q_K, scores_R)
        ranks_Q_K = torch.zeros_like(mask_Q_K, dtype=torch.long)
        ranks_Q_K[mask_Q_K] = torch.tensor([r for e in examples for r in e.ranks], dtype=torch.long).to(scores_R.device)
        return alignment_loss(
            scores_Q_K,
            ranks_Q_K,
            mask_Q_K,
            term=self.objective.term,
            constraint=self.objective.constraint,
            beta=self.objective.beta,
        )

    def _count_alignment(self, metrics: dict[str, torch.Tensor], share: float) -> None:
        for name in ("alignment_term", "constraint_term"):
            self._sums[name] += share * metrics[name].item()
        comparable = metrics["comparable"].item()
        if comparable:
            self._sums["comparable"] += comparable
            for name in ("score_positive", "score_negative", "margin"):
                self._sums[name] += comparable * metrics[name].item()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the terms, scores and speed of the step to what the trainer logs.

        Raises `NumericalError` naming the questions if the gradient was not finite, before a checkpoint can keep it.
        """
        sums, self._sums = self._sums, defaultdict(float)
        if "loss" in logs:
            if not math.isfinite(logs["grad_norm"]):
                step, names = self.state.global_step, _questions(self._step_examples)
                raise NumericalError(f"The gradient of step {step} is not finite; {names}")
            logs["vft_term"] = sums["vft_term"]
            if self.objective.term != "none":
                logs["alignment_term"] = sums["alignment_term"]
                logs["constraint_term"] = sums["constraint_term"]
            for name in ("score_positive", "score_negative", "margin"):
                if sums["comparable"]:
                    logs[name] = sums[name] / sums["comparable"]
            now = time.perf_counter()
            logs["tokens_per_s"] = sums["tokens"] / (now - self._step_began)
            self._step_began = now
        super().log(logs, start_time)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            return  # the finished model comes next; and a run that continues from here would make one step too many
        name = f"checkpoint-{self.state.global_step}"
        staged = self.directory / f".{name}.partial"
        with writing(staged):
            staged.mkdir(parents=True, exist_ok=True)
            self.model.save_pretrained(staged)  # type: ignore[union-attr]
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
    micro_batch = settings.micro_batch_size or settings.batch_size
    arguments = TrainingArguments(
        output_dir=str(directory),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=settings.batch_size // micro_batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch",
        bf16=settings.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=settings.gradient_checkpointing,
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
