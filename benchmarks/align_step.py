"""One optimiser step over the k responses of some questions: our paths side by side, and TRL's DPO trainer beside them.

    python benchmarks/align_step.py [--k 16] [--paths naive shared] [--json FILE]
    python benchmarks/align_step.py --lengths gsm8k
    python benchmarks/align_step.py --device cuda --dtype bfloat16 --shape 1b

Everything runs in one process on the same random weights with the same optimiser, in turn; a figure is the median of
the repetitions, and a ratio the median of the ratios of each turn (of processor time; on a GPU of wall time). A step is
forward, backward, optimiser and zero_grad. Half of the k responses are right, half wrong; the loss is the alignment
term alone.

- naive, shared, two_pass: the paths of `aft.scoring.paths`, under three variants of the loss. two_pass holds
  `--token-budget` tokens at a time, the others as many as the trainer does by default; a question of more is scored
  in two passes on the shared path, too.
- trl_all_pairs: the training step of TRL's DPOTrainer, its log-probabilities of the reference model computed
  beforehand, on every pair of a right and a wrong response: the comparisons that our loss makes, too.
- trl_zip: the same on k/2 pairs, so that each response occurs once; a different objective.

Before anything is timed, the gradients of our paths must agree, and TRL must have read exactly the sequences that it
should and have the gradient of the same pairwise loss on our shared path.

tokens_per_s counts each prompt and each response of a question once, whatever a path makes of them. peak_mib is the
memory of a step beyond weights and optimiser: on the CPU of a fresh process. tflops is the arithmetic that the path
calls for, without what it recomputes, per second, and MFU its share of what a large bfloat16 matrix product reaches on
the same card. `1b` is trained with AdamW on float32 weights (bfloat16: under autocast); `7b` with plain SGD on bfloat16
weights, for with AdamW it would not fit. A card compares every so many weights' gradients, of 10^9 numbers at most.

`--lengths gsm8k`: 16 questions per step, with lengths as GSM8K's: means of 95 and 122 tokens. `naive` pads a random
batch to its longest row, `naive_budget` splits it into passes of at most the trainer's token budget and pads each;
`shared` takes the batches of `batches_of_epoch`. Seconds per question are those of a question of mean length.
"""

import argparse
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
import trl_peer
from measure import (
    SHAPES,
    clocked,
    gsm8k_lengths,
    matmul_rate,
    peak_mib,
    print_table,
    random_group,
    random_model,
    write_json,
)
from torch.nn.functional import logsigmoid  # noqa: TID253

from aft.alignment.losses import alignment_loss
from aft.scoring import paths
from aft.scoring.groups import Group
from aft.training.batches import batches_of_epoch

VARIANTS = {"aft_bc": "boundary", "aft_dc": "detached", "aft": "none"}
OURS = ("naive", "shared", "two_pass")
BUDGET = 8192  # tokens: the trainer's default
_COMPARED = 10**9  # numbers of a gradient that are kept to be compared with another's, at most
QUESTIONS, BATCHES = 16, 32  # per step and in all, with the lengths of GSM8K

Name = tuple[str, str]  # path, variant
Step = Callable[[], object]
Turn = dict[Name, tuple[float, float]]  # seconds of processor and wall time


@dataclass(frozen=True)
class Bench:
    """A model, its optimiser, and how every step is run."""

    model: Any
    optimizer: torch.optim.Optimizer
    options: argparse.Namespace

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Bench":
        """Random weights, and the optimiser that goes with their size."""
        torch.set_num_threads(options.threads)
        large = options.shape == "7b"
        model = random_model(options.shape, options.device, torch.bfloat16 if large else torch.float32)
        if options.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if large:
            return cls(model, torch.optim.SGD(model.parameters(), lr=1e-5), options)
        return cls(model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True), options)

    def run(self, backward: Step) -> None:
        """Forward and backward passes in the precision that was chosen."""
        half = self.options.dtype == "bfloat16"
        with torch.autocast(self.options.device, torch.bfloat16) if half else nullcontext():
            backward()

    def step(self, backward: Step) -> None:
        """One optimiser step."""
        self.run(backward)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradient(self, backward: Step) -> list[torch.Tensor]:
        """The gradient that a backward pass gives, of the weights that are compared."""
        self.run(backward)
        every = math.ceil(self.model.num_parameters() / _COMPARED)
        found = [weights.grad for weights in list(self.model.parameters())[::every]]
        self.optimizer.zero_grad()
        return found

    def must_agree(self, what: str, backward: Step, reference: list[torch.Tensor]) -> None:
        """Raise `AssertionError` if a gradient is not the reference up to rounding."""
        gap, most = distance(self.gradient(backward), reference), 1e-4 if self.options.dtype == "float32" else 0.1
        assert gap <= most, f"The gradient of {what} is off by {gap:.2g}."


def distance(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    """The norm of the difference of two gradients, relative to the norm of the second."""

    def size(tensors: Iterable[torch.Tensor]) -> float:
        return math.hypot(*(float(tensor.norm(dtype=torch.float32)) for tensor in tensors))

    return size(one - other for one, other in zip(found, wanted, strict=True)) / size(wanted)


# --- our paths --------------------------------------------------------------------------------------------------------


def backward(model: Any, path: paths.Path, groups: Sequence[Group], variant: str, token_budget: int) -> None:
    """Add the gradient of the alignment loss of some groups, the first half of whose responses is right."""
    half = len(groups[0].responses) // 2
    ranks = [0] * half + [1] * half
    with paths.mode(model, path):
        for how, numbers in paths.plan(groups, path, token_budget):
            some = [groups[number] for number in numbers]
            needed = [variant != "aft_dc" or rank == 0 for _ in some for rank in ranks]
            loss_of = partial(_alignment, groups=some, ranks=ranks, variant=variant, questions=len(groups))
            paths.backward(model, how, some, needed, loss_of, token_budget)


def _alignment(
    sums_R: torch.Tensor, groups: Sequence[Group], ranks: list[int], variant: str, questions: int
) -> torch.Tensor:
    lengths_R = torch.tensor([len(response) for group in groups for response in group.responses], device=sums_R.device)
    scores_Q_K = (sums_R / lengths_R).view(len(groups), -1)
    ranks_Q_K = torch.tensor([ranks] * len(groups), device=sums_R.device)
    mask_Q_K = torch.ones_like(ranks_Q_K, dtype=torch.bool)
    loss, _ = alignment_loss(scores_Q_K, ranks_Q_K, mask_Q_K, term="aft", constraint=VARIANTS[variant])
    return loss * len(groups) / questions


def our_steps(model: Any, groups: Sequence[Group], options: argparse.Namespace) -> dict[Name, Step]:
    """Forward and backward passes of our paths that are wanted."""
    one_pass = options.one_pass_budget
    budgets: dict[paths.Path, int] = {"naive": one_pass, "shared": one_pass, "two_pass": options.token_budget}
    return {
        (path, variant): partial(backward, model, path, groups, variant, budget)
        for path, budget in budgets.items()
        for variant in options.variants
        if path in options.paths
    }


def check_ours(bench: Bench, groups: Sequence[Group]) -> None:
    """Raise `AssertionError` if the paths' gradients differ."""
    for variant in bench.options.variants:
        naive = partial(backward, bench.model, "naive", groups, variant, bench.options.one_pass_budget)
        reference = bench.gradient(naive)
        for (path, of), step in our_steps(bench.model, groups, bench.options).items():
            if of == variant and path != "naive":
                bench.must_agree(f"{path} {variant}", step, reference)


def check_peer(bench: Bench, groups: Sequence[Group], path: str, step: Step) -> None:
    """Raise `AssertionError` if TRL's gradient is not that of its loss on our shared path; both at the reference."""

    def loss_of(sums_R: torch.Tensor) -> torch.Tensor:
        right, wrong = (sums_R - sums_R.detach()).view(len(groups), 2, -1).unbind(1)
        gaps = right[:, :, None] - wrong[:, None, :] if path == "trl_all_pairs" else right - wrong
        return -logsigmoid(trl_peer.BETA * gaps).mean()

    def run() -> None:
        with paths.mode(bench.model, "shared"):
            paths.backward(bench.model, "shared", groups, None, loss_of, 10**9)

    bench.must_agree(path, step, bench.gradient(run))


# --- what is measured -------------------------------------------------------------------------------------------------


def groups_of(options: argparse.Namespace) -> list[Group]:
    """Random questions, each with responses of one length."""
    lengths = [options.P, *[options.C] * options.k]
    return [random_group(lengths, SHAPES[options.shape]["vocab_size"], seed) for seed in range(options.questions)]


def steps_of(bench: Bench, groups: Sequence[Group], folder: str) -> dict[Name, Step]:
    """Everything that is to be measured, by path and variant."""
    options = bench.options
    found = our_steps(bench.model, groups, options)
    peers = [path for path in options.paths if path in trl_peer.PATHS]
    if peers:
        for path, step in trl_peer.training_steps(bench.model, groups, peers, folder, options.device).items():
            check_peer(bench, groups, path, step)
            found[path, "dpo"] = step
    return {name: partial(bench.step, run) for name, run in found.items()}


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each path and variant."""
    bench, groups = Bench.of(options), groups_of(options)
    check_ours(bench, groups)
    with tempfile.TemporaryDirectory() as folder:
        steps = steps_of(bench, groups, folder)
        for step in steps.values():
            step()  # warm up
        turns = [{name: clocked(step, options.device) for name, step in steps.items()} for _ in range(options.repeats)]
        if options.device == "cuda":
            peaks = {name: peak_mib(step, "cuda") for name, step in steps.items()}
        else:
            peaks = {name: in_fresh_process(options, name) for name in steps}
    rate = matmul_rate() if options.device == "cuda" else math.nan
    rows = [row_of(name, turns, groups, options) for name in steps]
    for row, name in zip(rows, steps, strict=True):
        row["peak_mib"] = peaks[name]
        row["tflops"] = flops_per_question(bench.model, name, options) / row["wall_s_per_question"] / 1e12
        row["mfu"] = row["tflops"] * 1e12 / rate
    return rows


def in_fresh_process(options: argparse.Namespace, name: Name) -> float:
    """Peak memory of a step on the CPU, in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_of, options, name).result()


def _peak_of(options: argparse.Namespace, name: Name) -> float:
    path, variant = name
    variants = [variant] if variant in VARIANTS else []
    bench = Bench.of(argparse.Namespace(**{**vars(options), "paths": [path], "variants": variants}))
    with tempfile.TemporaryDirectory() as folder:
        step = steps_of(bench, groups_of(options), folder)[name]
        step()  # makes the optimiser's state
        return peak_mib(step)


def row_of(name: Name, turns: Sequence[Turn], groups: Sequence[Group], options: argparse.Namespace) -> dict[str, Any]:
    """What the turns say of a path; ratios are to the naive path under the same variant and to TRL's pairs."""
    cpu, wall = (statistics.median(turn[name][clock] for turn in turns) for clock in (0, 1))
    return {
        **{"path": name[0], "variant": name[1], "shape": options.shape, "device": options.device},
        **{"dtype": options.dtype, "threads": options.threads, "questions": len(groups)},
        **{"lengths": options.lengths, "P": options.P, "C": options.C, "k": options.k},
        "cpu_s_per_question": cpu / len(groups),
        "wall_s_per_question": wall / len(groups),
        "tokens_per_s": sum(group.cost for group in groups) / wall,
        "times_naive": speed_up(name, ("naive", name[1]), turns, options.device),
        "times_trl_all_pairs": speed_up(name, ("trl_all_pairs", "dpo"), turns, options.device),
    }


def speed_up(name: Name, base: Name, turns: Sequence[Turn], device: str) -> float:
    """How many times as fast as the base, side by side; NaN if that was not measured."""
    clock = 1 if device == "cuda" else 0
    return statistics.median(turn[base][clock] / turn[name][clock] if base in turn else math.nan for turn in turns)


def flops_per_question(model: Any, name: Name, options: argparse.Namespace) -> float:
    """The arithmetic of forward and backward passes: twice the weights per token forward, and twice that backward.

    Attention adds 4 x width x the keys that a query sees, per layer. Nothing counts twice that a path recomputes.
    """
    prompt, response, k, config = options.P, options.C, options.k, model.config
    head = config.hidden_size * config.vocab_size
    body = sum(weights.numel() for weights in model.get_decoder().parameters()) - head  # less the embedding table
    per_key = 4 * config.num_hidden_layers * config.hidden_size
    path, variant = name
    if path in ("shared", "two_pass"):
        of_responses = response * (body + head) * 2 + per_key * response * (prompt + response / 2)  # forward, each
        of_prompt = prompt * body * 2 + per_key * prompt**2 / 2
        trained = k // 2 if variant == "aft_dc" else k
        return 3 * of_prompt + (3 * trained + k - trained) * of_responses
    rows, length = k**2 // 2 if path == "trl_all_pairs" else k, prompt + response
    through_head = length if path == "naive" else response  # on a GPU, TRL's head reads the responses alone
    return 3 * rows * (2 * length * body + 2 * through_head * head + per_key * length**2 / 2)


# --- the lengths of GSM8K ---------------------------------------------------------------------------------------------


def compare_gsm8k(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Random padded batches beside batches of like cost with shared prompts."""
    bench = Bench.of(options)
    vocabulary, drawn = SHAPES[options.shape]["vocab_size"], gsm8k_lengths(QUESTIONS * BATCHES, options.k)
    groups = [random_group(lengths, vocabulary, seed) for seed, lengths in enumerate(drawn)]
    check_ours(bench, groups[:2])
    at_random = _batches(groups, random.Random(0).sample(range(len(groups)), len(groups)))
    numbers = batches_of_epoch([group.cost for group in groups], QUESTIONS, seed=0, epoch=0)
    alike = [[groups[i] for i in batch] for batch in numbers]
    runs: dict[Name, tuple[list[list[Group]], Callable[..., None]]] = {
        ("naive", "any"): (at_random, partial(backward, path="naive", variant="aft_bc", token_budget=10**9)),
        ("naive_budget", "any"): (at_random, partial(backward, path="naive", variant="aft_bc", token_budget=BUDGET)),
    }
    for variant in options.variants:
        runs["shared", variant] = alike, partial(backward, path="shared", variant=variant, token_budget=BUDGET)

    mean = statistics.mean(group.cost for group in groups)
    turns = []
    for number in range(-1, options.repeats):  # the first one warms up
        turn: Turn = {}
        for name, (batches, run) in runs.items():
            step = partial(bench.step, partial(run, bench.model, groups=batches[number]))
            questions = sum(group.cost for group in batches[number]) / mean  # of mean length
            cpu, wall = clocked(step, options.device)
            turn[name] = cpu / questions * QUESTIONS, wall / questions * QUESTIONS
        turns.append(turn)
    rows = [row_of(name, turns[1:], groups[:QUESTIONS], options) for name in runs]
    for row, (name, (batches, run)) in zip(rows, runs.items(), strict=True):
        row["tokens_per_s"] = mean / row["wall_s_per_question"]
        row["times_naive"] = speed_up(name, ("naive", "any"), turns[1:], options.device)
        row["padding"], row["attention_padding"] = padding_of(bench, run, batches)
    return rows


def _batches(groups: Sequence[Group], order: Sequence[int]) -> list[list[Group]]:
    return [[groups[i] for i in order[first : first + QUESTIONS]] for first in range(0, len(order), QUESTIONS)]


def padding_of(bench: Bench, run: Any, batches: Sequence[Sequence[Group]]) -> tuple[float, float]:
    """Shares of padding in what the layers are given, and in what attention is given; both over several batches."""
    path, budget = run.keywords["path"], run.keywords["token_budget"]
    if path == "naive":
        share = statistics.mean(paths.padding(batch, paths.plan(batch, path, budget)) for batch in batches)
        return share, share
    queries: list[float] = []
    tokens: list[int] = []

    def look(model: Any, inputs: Any, options: dict[str, Any]) -> None:
        tokens.append(options["input_ids"].shape[1])
        queries.append(tokens[-1] * (1 + options["spans"].padding))

    handle = bench.model.register_forward_pre_hook(look, with_kwargs=True)
    for batch in batches[: bench.options.repeats]:
        paths.score(bench.model, path, batch, budget)
    handle.remove()
    return 0.0, 1 - sum(tokens) / sum(queries)


# --- command line -----------------------------------------------------------------------------------------------------


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line; paths of TRL are left out, and told, where it is not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="bfloat16: autocast")
    parser.add_argument("--shape", default="tiny", choices=list(SHAPES))
    parser.add_argument("--P", type=int, default=95, help="tokens of a prompt")
    parser.add_argument("--C", type=int, default=122, help="tokens of a response")
    parser.add_argument("--k", type=int, default=6, help="responses of a question, an even number")
    parser.add_argument("--questions", type=int, default=2, help="questions per step")
    parser.add_argument("--lengths", default="equal", choices=["equal", "gsm8k"])
    parser.add_argument("--paths", nargs="+", default=[*OURS, *trl_peer.PATHS], choices=[*OURS, *trl_peer.PATHS])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--token-budget", type=int, default=1024, help="of two_pass")
    parser.add_argument("--one-pass-budget", type=int, default=BUDGET, help="of naive and shared")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="on all paths")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.k < 2 or options.k % 2:
        parser.error("--k must be even: half of the responses are right.")
    if options.shape == "7b" and options.dtype == "float32":
        parser.error("--shape 7b has bfloat16 weights: give --dtype bfloat16.")
    if options.lengths == "gsm8k":
        options.paths = ["naive", "shared"]
    elif set(options.paths) & set(trl_peer.PATHS) and find_spec("trl") is None:
        print('TRL is not installed and left out: pip install -e ".[bench]" adds it.')
        options.paths = [path for path in options.paths if path in OURS]
    return options


def main() -> None:
    """Measure, print a table, and write the rows if wanted."""
    options = read_options()
    gsm8k = options.lengths == "gsm8k"
    rows = compare_gsm8k(options) if gsm8k else compare(options)
    columns = {
        **{"path": "path", "variant": "variant", "P": "P", "C": "C", "k": "k"},
        **{"cpu_s_per_question": "cpu s/question", "wall_s_per_question": "wall s/question"},
        **{"tokens_per_s": "tokens/s", "times_naive": "x naive"},
    }
    columns |= {"padding": "padding", "attention_padding": "in attention"} if gsm8k else {}
    columns |= {} if gsm8k else {"times_trl_all_pairs": "x trl_all_pairs", "peak_mib": "peak MiB"}
    columns |= {"tflops": "TFLOP/s", "mfu": "MFU"} if options.device == "cuda" and not gsm8k else {}
    optimizer = "SGD" if options.shape == "7b" else "AdamW"
    machine = f"{options.shape} on {options.device}, {options.dtype}, {options.threads} thread(s)"
    print(f"{machine}, {optimizer}, medians of {options.repeats}")
    print_table(rows, columns)
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
