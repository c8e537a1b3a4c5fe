"""Sampling: our engine beside `generate` of transformers, in one process and in turn, on random Llama weights.

    python benchmarks/sampling.py [--device cuda --shape 7b --dtype bfloat16 --rows 512] [--json FILE]

`equal`: 16 questions with prompts of 80-120 tokens, k = 6 responses each of exactly 64 tokens.
`gsm8k`: 64 questions with prompts of 100 tokens, k responses each that end as GSM8K's solutions do: mean 122 tokens,
95% within 226, at most 400. A random model does not end by itself, so its end-of-sequence token is given the
probability of ending here, given that the response is so long already. That depends on the token's position alone,
which both engines give to the model: both draw lengths from the same distribution, by the same means.

`generate` reads its questions in batches of as many rows as our engine has slots, and draws without filters, as ours.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
from measure import SHAPES
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel  # noqa: TID253

from aft.sampling.engine import Request, generate
from aft.sampling.settings import SamplingSettings

END, PROMPT = 1, 100
MEAN, P95, MOST = 122, 226, 400  # tokens of a response in `gsm8k`


@dataclass(frozen=True)
class Case:
    """Prompts, and how many tokens a response may have; without `ends` it has exactly so many."""

    name: str
    prompts: list[list[int]]
    max_new_tokens: int
    ends: bool
    k: int = 6  # responses to each prompt
    rows: int = 96  # that are made side by side


@dataclass(frozen=True)
class Run:
    """What one run of an engine took."""

    lengths: list[int]  # tokens of each response
    cpu_s: float
    wall_s: float
    peak_mib: float

    @property
    def cpu_rate(self) -> float:
        """Tokens per second of processor time."""
        return sum(self.lengths) / self.cpu_s

    @property
    def wall_rate(self) -> float:
        """Tokens per second."""
        return sum(self.lengths) / self.wall_s


def main() -> None:
    """Run both cases."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    model = build_model(arguments.shape, arguments.device, getattr(torch, arguments.dtype))
    vocabulary = model.config.vocab_size
    lengths = torch.randint(80, 121, (16,), generator=torch.Generator().manual_seed(0)).tolist()
    k, many = arguments.k, arguments.rows
    cases = [
        Case("equal", prompts_of(lengths, vocabulary), 64, False, k, many),
        Case("gsm8k", prompts_of([PROMPT] * arguments.questions, vocabulary), MOST, True, k, many),
    ]
    rows = [row for case in cases for row in compare(model, case, arguments.repeats)]
    _print(rows)
    if arguments.json:
        about = {name: getattr(arguments, name) for name in ("device", "dtype", "threads", "shape")}
        arguments.json.write_text(json.dumps([{**about, **row} for row in rows], indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", default="tiny", choices=list(SHAPES))
    parser.add_argument("--questions", type=int, default=64, help="of gsm8k")
    parser.add_argument("--k", type=int, default=6, help="responses of a question")
    parser.add_argument("--rows", type=int, default=96, help="responses side by side")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def build_model(shape: str, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """Random weights of a shape."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=1024)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def compare(
    model: PreTrainedModel, case: Case, repeats: int, engines: Mapping[str, Callable[..., list[int]]] | None = None
) -> list[dict[str, Any]]:
    """A row for each engine; the engines take turns, so that what else the machine does meets both."""
    engines = engines or {"transformers": by_transformers, "aft": by_aft}
    for run in engines.values():  # warm up
        run(model, replace(case, prompts=case.prompts[:2], max_new_tokens=4, ends=False), 0)
    handle = model.register_forward_hook(_end_hook(model.device, case), with_kwargs=True)
    runs = [{name: _measured(run, model, case, seed) for name, run in engines.items()} for seed in range(repeats)]
    handle.remove()
    return [_row(case.name, name, runs) for name in engines]


def by_aft(model: PreTrainedModel, case: Case, seed: int) -> list[int]:
    """Lengths of the responses."""
    requests = [Request(str(i), prompt) for i, prompt in enumerate(case.prompts)]
    settings = SamplingSettings(samples=case.k, max_new_tokens=case.max_new_tokens, batch_rows=case.rows)
    responses = generate(model, requests, settings, seed, END)
    return [len(response.token_ids) for answered in responses for response in answered]


@torch.inference_mode()
def by_transformers(model: PreTrainedModel, case: Case, seed: int) -> list[int]:
    """Lengths of the responses."""
    torch.manual_seed(seed)
    lengths, size = [], case.rows // case.k
    for first in range(0, len(case.prompts), size):
        prompts = case.prompts[first : first + size]
        longest = max(map(len, prompts))
        padding = [[0] * (longest - len(prompt)) for prompt in prompts]
        output = model.generate(  # type: ignore[operator]
            input_ids=torch.tensor([p + q for p, q in zip(padding, prompts, strict=True)], device=model.device),
            attention_mask=torch.tensor(
                [p + [1] * len(q) for p, q in zip(padding, prompts, strict=True)], device=model.device
            ),
            num_return_sequences=case.k,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            max_new_tokens=case.max_new_tokens,
            eos_token_id=END,
            pad_token_id=0,
        )
        for row in output[:, longest:].tolist():
            lengths.append(row.index(END) + 1 if END in row else case.max_new_tokens)
    return lengths


def _end_hook(device: torch.device, case: Case) -> Callable[..., Any]:
    """Gives the end the logit that its probability wants, from the position of the token that was read last."""
    odds = _odds_of_ending(case.max_new_tokens) if case.ends else torch.full((case.max_new_tokens,), -torch.inf)
    odds_C = odds.to(device)

    def set_end(module: Any, inputs: Any, options: dict[str, Any], output: Any) -> Any:
        position_R_T = options["position_ids"]
        if position_R_T.shape[1] > 1 or not case.ends:  # a prompt: no response is empty
            output.logits[..., END] = -torch.inf
        else:  # the logits of random weights are about 0: all other tokens together weigh V
            generated_R_1 = position_R_T - PROMPT + 1
            output.logits[..., END] = math.log(output.logits.shape[-1]) + odds_C[generated_R_1]
        return output

    return set_end


def _odds_of_ending(most: int) -> torch.Tensor:
    """Log odds that a response of t tokens [0 ... most-1] ends with the next: its length is lognormal."""
    # mean = exp(m + s^2 / 2) and p95 = exp(m + 1.645 s), solved for the smaller s
    ratio = math.log(P95 / MEAN)
    s = 1.645 - math.sqrt(1.645**2 - 2 * ratio)
    m = math.log(MEAN) - s**2 / 2
    until = torch.distributions.LogNormal(m, s).cdf(torch.arange(1, most + 2, dtype=torch.float64))
    hazard = (until[1:] - until[:-1]) / (1 - until[:-1])
    return hazard.clamp(1e-12, 1 - 1e-12).logit().float()


def prompts_of(lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """Random prompts of these lengths."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, vocabulary, (length,), generator=generator).tolist() for length in lengths]


def _measured(run: Callable[..., list[int]], model: PreTrainedModel, case: Case, seed: int) -> Run:
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak of the process's memory counts anew
    cpu, wall = time.process_time(), time.perf_counter()
    lengths = run(model, case, seed)
    if cuda:
        torch.cuda.synchronize()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else _peak_mib()
    return Run(lengths, cpu, wall, peak)


def _peak_mib() -> float:
    """Most memory of this process since the count began."""
    status = Path("/proc/self/status")
    if not os.access(status, os.R_OK):
        return math.nan
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _row(case: str, engine: str, runs: Sequence[dict[str, Run]]) -> dict[str, Any]:
    """Medians over the repetitions; ratios are those of the runs side by side."""
    own = [run[engine] for run in runs]
    lengths = torch.tensor([length for run in own for length in run.lengths], dtype=torch.float64)

    def median(of: Callable[[Run], float]) -> float:
        return statistics.median(map(of, own))

    return {
        "case": case,
        "engine": engine,
        "tokens": int(median(lambda run: sum(run.lengths))),
        "mean": float(lengths.mean()),
        "p95": float(lengths.quantile(0.95)),
        "cpu_s": median(lambda run: run.cpu_s),
        "wall_s": median(lambda run: run.wall_s),
        "tokens_per_cpu_s": median(lambda run: run.cpu_rate),
        "tokens_per_s": median(lambda run: run.wall_rate),
        "peak_mib": median(lambda run: run.peak_mib),
        "cpu_ratio": _ratio(runs, engine, "cpu_rate"),
        "wall_ratio": _ratio(runs, engine, "wall_rate"),
    }


def _ratio(runs: Sequence[dict[str, Run]], engine: str, rate: str) -> float:
    """How many times as fast as `generate`, side by side; NaN where that did not run."""
    if "transformers" not in runs[0]:
        return math.nan
    return statistics.median(getattr(run[engine], rate) / getattr(run["transformers"], rate) for run in runs)


def _print(rows: Sequence[dict[str, Any]]) -> None:
    print("  ".join(f"{name:>16}" for name in rows[0]))
    for row in rows:
        values = (f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values())
        print("  ".join(f"{value:>16}" for value in values))


if __name__ == "__main__":
    main()
