"""TRL's DPO trainer as a peer: its own training step on pairs of responses that we make, without its data loading.

TRL reads texts and ends every response with the end token, so the random tokens are written as `<5> <17>`, each a word.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch  # noqa: TID253
from measure import END

from aft.scoring.groups import Group

PATHS = ("trl_all_pairs", "trl_zip")
BETA = 0.1
PAD = 0

Pair = tuple[Group, Sequence[int], Sequence[int]]  # the question, a right and a wrong response


def pairs_of(path: str, group: Group) -> list[Pair]:
    """Every right response with every wrong one, or each right one with one wrong one; right is the first half."""
    half = len(group.responses) // 2
    right, wrong = group.responses[:half], group.responses[half:]
    pairs = product(right, wrong) if path == "trl_all_pairs" else zip(right, wrong, strict=True)
    return [(group, *pair) for pair in pairs]


def training_steps(
    model: Any, groups: Sequence[Group], wanted: Sequence[str], folder: str, device: str
) -> dict[str, Callable[[], object]]:
    """Forward and backward pass on the pairs of all groups at once, for each path that is wanted.

    Raises `AssertionError` if the sequences that TRL made of the pairs are not exactly theirs.
    """
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", TQDM_DISABLE="1")
    import datasets
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    datasets.disable_progress_bars()
    pairs = {path: [pair for group in groups for pair in pairs_of(path, group)] for path in wanted}
    rows = [
        {"prompt": _text(group.prompt), "chosen": " " + _text(chosen), "rejected": " " + _text(rejected)}
        for path in wanted
        for group, chosen, rejected in pairs[path]
    ]
    settings = DPOConfig(
        output_dir=folder,
        max_length=None,
        beta=BETA,
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=8,
        gradient_checkpointing=False,  # the model's own affair: it is on for all paths, or for none
        bf16=False,  # likewise
        use_cpu=device == "cpu",
        report_to="none",
    )
    tokenizer = _tokenizer(model.config.vocab_size)
    data = datasets.Dataset.from_list(rows)
    trainer = DPOTrainer(model, args=settings, train_dataset=data, processing_class=tokenizer)
    trainer.current_gradient_accumulation_steps = 1  # as `train` sets it
    prepared: Any = iter(trainer.train_dataset)  # type: ignore[arg-type]
    steps: dict[str, Callable[[], object]] = {}
    for path in wanted:
        batch: Any = trainer.data_collator([next(prepared) for _ in pairs[path]])
        _check(batch, pairs[path])
        steps[path] = partial(_training_step, trainer, model, batch)
    return steps


def _training_step(trainer: Any, model: Any, batch: dict[str, torch.Tensor]) -> None:
    trainer.training_step(model, dict(batch))
    trainer._metrics["train"].clear()  # as logging does


def _text(tokens: Sequence[int]) -> str:
    return " ".join(f"<{token}>" for token in tokens)


def _tokenizer(vocabulary: int) -> Any:
    """The tokenizer of such texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"<{token}>": token for token in range(vocabulary)}, unk_token=f"<{PAD}>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=f"<{PAD}>", eos_token=f"<{END}>")


def _check(batch: dict[str, torch.Tensor], pairs: Sequence[Pair]) -> None:
    """TRL's batch must be the chosen sequences of all pairs, then the rejected ones, and nothing else."""
    chosen = [(list(group.prompt), list(response)) for group, response, _ in pairs]
    wanted = chosen + [(list(group.prompt), list(response)) for group, _, response in pairs]
    assert len(batch["input_ids"]) == len(wanted), f"TRL made {len(batch['input_ids'])} sequences, not {len(wanted)}."
    rows = zip(batch["input_ids"], batch["attention_mask"], batch["completion_mask"], wanted, strict=True)
    for ids, mask, completion, (prompt, response) in rows:
        assert ids[mask == 1].tolist() == [*prompt, *response], "TRL reads another sequence."
        assert ids[completion == 1].tolist() == response, "TRL scores another response."
    assert "ref_chosen_logps" in batch, "TRL would run the reference model."
