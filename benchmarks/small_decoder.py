"""A decoder from scratch for the gsm8k recipe where no base model is at hand: it reads arithmetic texts and GSM8K.

    python benchmarks/small_decoder.py OUT --gsm8k FOLDER [--size 30m] [--texts 2000000] [--plan]
    kedro run --env=gsm8k --params=base_model.source=OUT,task.settings.path=FOLDER,training.learning_rate=0.0002

FOLDER holds the published `train.jsonl` and `test.jsonl`; of the latter nothing is read but the hashes of its
questions, so that none of them is among the texts. `--plan` measures the machine and tells tokens, FLOPs and time
instead. It needs the core only (torch, transformers); a run that was interrupted goes on where it was.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import matmul_rate

from aft.code import deciding
from aft.files import digest
from aft.models.publish import publish
from aft.models.tokens import end_token
from aft.tasks import Question, gsm8k
from aft.training.examples import Example, refuse_held_out
from aft.training.job import Job
from aft.training.run import train_once
from aft.training.settings import Objective, TrainingSettings

SIZES = {  # hidden, feed-forward, layers, heads
    "2m": (128, 344, 4, 4),
    "30m": (512, 1376, 8, 8),
    "100m": (768, 2048, 12, 12),
}
VOCABULARY, REPEATS = 8192, 10  # tokens of the tokenizer; how often the GSM8K training set is among the texts
MFU = 0.3  # share of the measured matmul rate that training of so small a model is expected to reach
_NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack")
_THINGS = ("apples", "books", "cards", "coins", "eggs", "flowers", "marbles", "pencils", "shirts", "tickets")
_BEGIN, _END, _PAD = "<s>", "</s>", "<pad>"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the decoder, or tell what it would take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--gsm8k", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="30m")
    parser.add_argument("--texts", type=int, default=2_000_000, help="of arithmetic; GSM8K's come on top")
    parser.add_argument("--max-steps", type=int, help="stop early, for a trial")
    parser.add_argument("--plan", action="store_true")
    options = parser.parse_args(arguments)
    questions = gsm8k.load_questions(gsm8k.Settings(path=str(options.gsm8k), validation_from="train"))
    held_out = {question.content_hash for split in ("validation", "test") for question in questions[split]}
    refuse_held_out(questions["train"], held_out)
    known = [_text(question.question, question.reference) for question in questions["train"]]
    texts = [*arithmetic(options.texts), *REPEATS * known]
    tokenizer = build_tokenizer(texts[:: max(1, len(texts) // 100_000)])
    if options.plan:
        tell_plan(texts, tokenizer, options.size)
        return
    settings = TrainingSettings(
        **{"epochs": 1, "learning_rate": 1e-3, "batch_size": 256, "token_budget": 32768, "checkpoint_every": 500},
        max_steps=options.max_steps,
        precision="bfloat16" if _device() == "cuda" else "float32",
    )
    description = {
        **{"kind": "small decoder", "size": options.size, "texts": digest(texts), "training": deciding(settings)},
        "vocabulary": digest(tokenizer.get_vocab()),
    }
    trained = train_once(
        description,
        lambda: (build_model(options.size, len(tokenizer)), tokenizer),
        lambda: encoded(texts, tokenizer),
        Job((), settings, Objective(), 0, "pretrain"),
        options.out.with_name(f".{options.out.name}.work"),
    )
    publish(trained.directory, options.out)
    print(f"{options.out}: loss {trained.curve[0]['loss']:.3f} -> {trained.curve[-1]['loss']:.3f}")


# --- the texts ------------------------------------------------------------------------------------------------------


def arithmetic(n: int) -> Iterator[str]:
    """Short stories with two to five steps, in the form of GSM8K's references; the same ones every time."""
    rng = random.Random(0)
    for _ in range(n):
        story, steps = story_of(rng)
        yield _text(story, "\n".join(steps))


@dataclass
class _Account:
    """What a person holds, and the steps that told it so far."""

    total: int
    steps: list[str]

    def step(self, why: str, sign: str, number: int) -> None:
        """One line of reasoning; a division must come out even."""
        result = {"+": self.total + number, "-": self.total - number, "*": self.total * number}.get(sign)
        result = self.total // number if result is None else result
        equation = f"{self.total}{sign}{number}"
        self.steps.append(f"{why} {equation} = <<{equation}={result}>>{result}.")
        self.total = result


def story_of(rng: random.Random) -> tuple[str, list[str]]:
    """A question and the lines of its reference, the answer last."""
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    account = _Account(rng.randint(2, 60), [])
    told = [f"{name} has {account.total} {thing}."]
    for _ in range(rng.randint(2, 5)):
        kinds = ["+", "-", "*"] + [f"/{d}" for d in (2, 3, 4, 5) if account.total and account.total % d == 0]
        kind = rng.choice(kinds)
        if kind == "+":
            number = rng.randint(1, 99)
            told.append(f"{name} gets {number} more {thing}.")
            account.step(f"After that {name} has", "+", number)
        elif kind == "-" and account.total > 1:
            number = rng.randint(1, account.total - 1)
            told.append(f"{name} gives away {number} {thing}.")
            account.step("This leaves", "-", number)
        elif kind == "*" and account.total < 200:
            number = rng.randint(2, 9)
            told.append(f"Then the number of {thing} grows to {number} times as many.")
            account.step("That makes", "*", number)
        elif kind.startswith("/"):
            number = int(kind[1:])
            told.append(f"The {thing} are shared equally among {number} people, and {name} keeps one share.")
            account.step("One share is", "/", number)
    if not account.steps:
        account.step(f"With one more {name} has", "+", 1)
        told.append(f"{name} gets 1 more.")
    return f"{' '.join(told)} How many {thing} does {name} have?", [*account.steps, f"#### {account.total}"]


def _text(question: str, solution: str) -> str:
    return gsm8k.prompt(Question("", "gsm8k", "train", question, None, solution, "", "")) + solution


# --- model, tokenizer, plan -----------------------------------------------------------------------------------------


def build_tokenizer(texts: Sequence[str]) -> Any:
    """Byte-level pairs learned from the texts; every digit is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[_BEGIN, _END, _PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{_BEGIN} $A", special_tokens=[(_BEGIN, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=_BEGIN, eos_token=_END, pad_token=_PAD)


def build_model(size: str, vocabulary: int) -> Any:
    """A Llama decoder with random weights, the same ones every time; tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, feed_forward, layers, heads = SIZES[size]
    config = LlamaConfig(
        **{"vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": feed_forward},
        **{"num_hidden_layers": layers, "num_attention_heads": heads, "max_position_embeddings": 1024},
        **{"tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def encoded(texts: Sequence[str], tokenizer: Any) -> list[Example]:
    """Every token of a text is learned, from the opening token on."""
    rows = tokenizer(list(texts))["input_ids"]
    return [Example(f"text/{i:07d}", row[:1], [[*row[1:], end_token(tokenizer)]]) for i, row in enumerate(rows)]


def tell_plan(texts: Sequence[str], tokenizer: Any, size: str) -> None:
    """Tokens, FLOPs (6 per weight and token) and hours at a share of the rate that this machine multiplies at."""
    some = texts[:: max(1, len(texts) // 2000)]
    tokens = sum(len(row) + 1 for row in tokenizer(list(some))["input_ids"]) / len(some) * len(texts)
    model = build_model(size, len(tokenizer))
    weights = sum(parameter.numel() for parameter in model.parameters())
    flops = 6 * weights * tokens
    rate = matmul_rate(_device())
    print(f"{weights / 1e6:.1f} M weights, {len(texts):,} texts, {tokens / 1e6:.0f} M tokens, {flops:.2e} FLOPs.")
    hours = flops / (MFU * rate) / 3600
    print(f"This machine multiplies at {rate:.2e} FLOP/s; at {MFU:.0%} of it that takes {hours:.2f} hours.")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
