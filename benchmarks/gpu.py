"""The steps of `gpu.sh`, one per call, each with its rows in FOLDER/<step>.json as soon as they are measured.

    python benchmarks/gpu.py {exactness,recipe,align,align7b,memory,precision,sampling,checkpoint} FOLDER [--tiny]
    python benchmarks/gpu.py table FOLDER

- exactness: the invariants of the tests on the card; naive, shared and two_pass beside each other on a model of 1B
  weights; samples again, and with other neighbours; greedy responses beside `generate`; training again, and resumed.
- recipe: the recipe `smoke` by Kedro, without MLflow, and the devices that its models were called on.
- align, align7b: one training step, see `align_step.py`; where its time goes.
- memory: the peak of a step on one question of k responses.
- precision: twenty steps of the loop under every `weights` and `optimizer`, all weights or LoRA: rates, peaks, losses;
  a run of moments in eight bits stopped and resumed. Without bitsandbytes or peft the others are done.
- sampling: see `sampling.py`; where the time of a step goes.
- checkpoint: saving and loading one, with AdamW's moments.

`table` shows what the files hold, in Markdown. `--tiny` takes small shapes, for a rehearsal on any machine.
"""

import argparse
import gc
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import align_step
import torch  # noqa: TID253
from measure import (
    SHAPES,
    clocked,
    gsm8k_lengths,
    peak_mib,
    print_markdown,
    random_group,
    random_model,
    synchronize,
    write_json,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = ("float32", "bfloat16") if DEVICE == "cuda" else ("float32",)  # a processor may take an age over the other
ROOT = Path(__file__).parents[1]
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}  # of the norm of a gradient, between two paths

Tell = Callable[..., None]  # takes the figures of a row


def main() -> None:
    """Run one step, or show what all have told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=[*STEPS, "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.step == "table":
        for step in STEPS:
            show(step, options.folder / f"{step}.json")
        return
    rows: list[dict[str, Any]] = []

    def tell(what: str, **figures: Any) -> None:
        rows.append({"what": what, **figures})
        print(f"{time.perf_counter() - began:.0f} s  {rows[-1]}")
        write_json(options.folder / f"{options.step}.json", rows)

    began = time.perf_counter()
    tell("machine", device=torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu", torch=torch.__version__)
    STEPS[options.step](tell, options.tiny)


def attempt(tell: Tell, what: str, part: Callable[[], object]) -> None:
    """Do a part of a step; what it fails of is told, and the parts after it are done all the same."""
    try:
        part()
    except Exception as error:  # out of memory, or whatever a card does otherwise than a processor
        tell(f"{what} failed", error=f"{type(error).__name__}: {error}"[:400])
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


# --- exactness --------------------------------------------------------------------------------------------------------


def exactness(tell: Tell, tiny: bool) -> None:
    """Whether the card gives what a processor does, and the same again."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as deterministic sums want it
    attempt(tell, "greedy and samples", partial(sampled_again, tell))
    attempt(tell, "training", partial(trained_again, tell))
    for dtype in DTYPES:
        attempt(tell, f"paths in {dtype}", partial(paths_agree, tell, dtype, tiny))
    attempt(tell, "invariants", partial(invariants, tell, tiny))


def invariants(tell: Tell, tiny: bool) -> None:
    """The tests of all paths, terms and constraints, with their models on the card."""
    side_by_side = ["-n", "8"] if find_spec("xdist") and not tiny else []
    chosen = ["-k", "for_every_model and llama"] if tiny else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *side_by_side, *chosen]
    environment = {**os.environ, "AFT_TEST_DEVICE": DEVICE}
    done = subprocess.run(
        [*command, "tests/invariants"], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    print(done.stdout[-20000:], done.stderr[-2000:])
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)
    tell("invariants", summary=(done.stdout.strip().splitlines() or ["nothing"])[-1], failed=failed)


def paths_agree(tell: Tell, dtype: str, tiny: bool) -> None:
    """Gradients on shared prompts and in two passes against those of the naive path, for ragged responses."""
    shape = "tiny" if tiny else "1b"
    options = align_step.read_options(["--device", DEVICE, "--dtype", dtype, "--shape", shape])
    bench, vocabulary = align_step.Bench.of(options), SHAPES[shape]["vocab_size"]
    groups = [random_group(lengths, vocabulary, seed) for seed, lengths in enumerate(gsm8k_lengths(4, 8))]

    def gradient(path: Any, variant: str) -> list[torch.Tensor]:
        return bench.gradient(partial(align_step.backward, bench.model, path, groups, variant, 2048))

    for variant in align_step.VARIANTS:
        expected = gradient("naive", variant)
        for path in ("naive", "shared", "two_pass"):  # the naive path once more: what the card itself leaves open
            gap = align_step.distance(gradient(path, variant), expected)
            tell("paths", path=path, variant=variant, dtype=dtype, gap=gap, agrees=gap <= TOLERANCES[dtype])


def sampled_again(tell: Tell) -> None:
    """Responses of a run again, beside other neighbours, and from `generate`: shares of them that are the same."""
    import sampling
    from transformers import GenerationConfig

    from aft.sampling.engine import Request, generate
    from aft.sampling.settings import SamplingSettings

    for dtype in DTYPES:
        model: Any = sampling.build_model("tiny", DEVICE, getattr(torch, dtype))
        with torch.no_grad():  # a model that knows what it says: else every rounding would decide
            for weights in model.parameters():
                weights.mul_(4 if weights.dim() > 1 else 1)
        lengths = [5 + 7 * number % 60 for number in range(24)]
        requests = [
            Request(f"q{i}", prompt) for i, prompt in enumerate(sampling.prompts_of(lengths, model.config.vocab_size))
        ]

        def responses(rows: int, model: Any = model, requests: Any = requests) -> list[list[int]]:
            settings = SamplingSettings(samples=8, greedy=True, max_new_tokens=48, batch_rows=rows)
            return [one.token_ids for of in generate(model, requests, settings, 0, -1) for one in of]

        first = responses(512)
        greedy = [
            model.generate(
                torch.tensor([request.prompt], device=DEVICE),
                attention_mask=torch.ones(1, len(request.prompt), dtype=torch.long, device=DEVICE),
                generation_config=GenerationConfig(do_sample=False, max_new_tokens=48, pad_token_id=0),
            )[0, len(request.prompt) :].tolist()
            for request in requests
        ]
        tell(
            "samples",
            dtype=dtype,
            responses=len(first),
            same_again=same(responses(512), first),
            same_among_27_rows=same(responses(27), first),
            greedy_as_generate=same(first[::9], greedy),
        )


def same(found: Sequence[Any], expected: Sequence[Any]) -> float:
    """The share of equal ones."""
    return sum(one == other for one, other in zip(found, expected, strict=True)) / len(expected)


def trained_again(tell: Tell) -> None:
    """Twenty steps again, and stopped after ten and resumed: distances of the weights, as shares of their way."""
    for precision in DTYPES:
        for deterministic in (False, True):
            torch.use_deterministic_algorithms(deterministic, warn_only=True)
            try:
                began = time.perf_counter()
                start, first = trained(precision)
                seconds = time.perf_counter() - began
                way = (first - start).norm()
                gaps = {"again": trained(precision)[1] - first, "resumed": trained(precision, stop=True)[1] - first}
            finally:
                torch.use_deterministic_algorithms(False)
            figures = {f"{name}_gap": float(gap.norm() / way) for name, gap in gaps.items()}
            bits = {f"{name}_bit_equal": not bool(gap.any()) for name, gap in gaps.items()}
            tell("training", precision=precision, deterministic=deterministic, **figures, **bits, seconds=seconds)


class Stopped(Exception):
    """In place of a kill."""


def trained(precision: Any, stop: bool = False, **how: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights before and after twenty steps; with `stop`, interrupted at the first checkpoint and taken up again."""
    from aft.training import checkpoints, loop, weights
    from aft.training.job import Job
    from aft.training.settings import Objective, TrainingSettings

    settings = TrainingSettings(
        **{"epochs": 9, "max_steps": 20, "learning_rate": 1e-3, "batch_size": 8, "token_budget": 600},
        precision=precision,
        checkpoint_every=10,
        **how,
    )
    job = Job(ragged_examples(24), settings, Objective(term="aft", constraint="boundary"), 3, "test")
    save = checkpoints.save

    def save_and_stop(*given: Any) -> None:
        save(*given)
        raise Stopped

    with tempfile.TemporaryDirectory() as folder:
        if stop:
            with patch.object(checkpoints, "save", save_and_stop), suppress(Stopped):
                loop.fit_weights(random_model("tiny", "cpu", torch.float32), job, Path(folder))
        model = random_model("tiny", "cpu", torch.float32)
        start = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        loop.fit_weights(model, job, Path(folder))
    if DEVICE == "cuda" and model.device.type != "cuda":
        raise RuntimeError("The training loop did not take the card.")
    return start, torch.nn.utils.parameters_to_vector(weights.trained(model).values()).detach().cpu()


def ragged_examples(count: int) -> list[Any]:
    """Questions with none to six candidates of many lengths."""
    from aft.training.examples import Example

    rng = random.Random(1)

    def tokens() -> list[int]:
        return [rng.randrange(2, 2000) for _ in range(rng.randint(2, 60))]

    candidates = [[tokens() for _ in range(0 if i % 7 == 6 else rng.randint(2, 6))] for i in range(count)]
    return [
        Example(f"q{i}", tokens(), [tokens()], of, [min(j, 2) for j in range(len(of))])
        for i, of in enumerate(candidates)
    ]


# --- training steps ---------------------------------------------------------------------------------------------------


def align(tell: Tell, tiny: bool) -> None:
    """Steps of a model of 1B weights: the lengths of docs/performance.md with TRL beside ours, and a full pass."""
    usual = ["--device", DEVICE, "--dtype", DTYPES[-1], "--repeats", "1" if tiny else "5"]
    usual += ["--P", "15", "--C", "12", "--shape", "tiny"] if tiny else ["--shape", "1b", "--token-budget", "4096"]
    lengths = [] if tiny else ["--P", "150", "--C", "120"]
    attempt(tell, "k = 6", partial(compared, tell, [*usual, "--variants", "aft_bc", "aft_dc"]))
    full = [*usual, *lengths, "--k", "8", "--questions", "2" if tiny else "7", "--paths", "naive", "shared", "two_pass"]
    attempt(tell, "k = 8", partial(compared, tell, full))
    with patch("aft.scoring.head._MOST_LOGITS", 2**28):
        more = [*full, "--paths", "shared", "--variants", "aft_bc"]
        attempt(tell, "k = 8", partial(compared, tell, more, "shared, all logits"))
    attempt(tell, "profile", partial(profiled_step, tell, full))


def align7b(tell: Tell, tiny: bool) -> None:
    """Steps of a model of 7B weights: with activations kept, on as many questions as fit, and with checkpointing."""
    usual = ["--device", DEVICE, "--dtype", DTYPES[-1], "--repeats", "1" if tiny else "3", "--k", "8"]
    usual += ["--P", "15", "--C", "12", "--shape", "tiny"] if tiny else ["--shape", "7b", "--P", "150", "--C", "120"]
    usual += ["--paths", "naive", "shared", "two_pass", "--variants", "aft_bc", "aft_dc", "--token-budget", "2560"]
    some = [*usual, "--questions", "4", "--one-pass-budget", "4500"]
    attempt(tell, "4 questions", partial(compared, tell, some))
    attempt(tell, "profile", partial(profiled_step, tell, some))
    many = [*usual, "--questions", "7", "--gradient-checkpointing"]
    attempt(tell, "gradient checkpointing", partial(compared, tell, many, "gradient checkpointing"))


def compared(tell: Tell, arguments: Sequence[str], note: str = "") -> None:
    """Tell what `align_step.py` measures, and how well the gradients agree instead of insisting on it."""

    def agreement(bench: Any, path: str, run: Any, reference: list[torch.Tensor]) -> None:
        tell("agreement", path=path, gap=align_step.distance(bench.gradient(run), reference), note=note)

    told = patch.object(align_step.Bench, "must_agree", agreement)
    with told, patch.object(align_step, "in_fresh_process", return_value=math.nan):  # a rehearsal measures no memory
        rows = align_step.compare(align_step.read_options(arguments))
    for row in rows:
        tell(
            "step",
            **{name: row[name] for name in ("shape", "path", "variant", "P", "C", "k", "questions")},
            **{name: row.get(name) for name in ("wall_s_per_question", "tokens_per_s", "tflops", "mfu", "peak_mib")},
            **{name: row[name] for name in ("times_naive", "times_trl_all_pairs")},
            note=note,
        )


def profiled_step(tell: Tell, arguments: Sequence[str]) -> None:
    """Where the time of a step on shared prompts goes."""
    options = align_step.read_options(arguments)
    bench = align_step.Bench.of(options)
    groups = align_step.groups_of(options)
    run = partial(align_step.backward, bench.model, "shared", groups, "aft_bc", options.one_pass_budget)
    bench.step(run)
    profile(tell, f"step, {options.shape}, shared aft_bc", lambda: bench.step(run), 1)


def memory(tell: Tell, tiny: bool) -> None:
    """Peak memory of a step beyond weights and optimiser, on one question of k responses."""
    shape, P, C, budget = ("tiny", 15, 12, 40) if tiny else ("1b", 150, 120, 1024)
    bench = align_step.Bench.of(align_step.read_options(["--device", DEVICE, "--dtype", DTYPES[-1], "--shape", shape]))
    for k in (8, 16, 32, 64):
        group = random_group([P, *[C] * k], SHAPES[shape]["vocab_size"], k)
        for path in ("shared", "two_pass"):
            most = budget if path == "two_pass" else 10**9
            run = partial(bench.step, partial(align_step.backward, bench.model, path, [group], "aft_bc", most))
            run()
            seconds = min(clocked(run, DEVICE)[1] for _ in range(2))
            tell("memory", path=path, k=k, token_budget=most, peak_mib=peak_mib(run, DEVICE), seconds=seconds)


def precision(tell: Tell, tiny: bool) -> None:
    """The loop under every way in which weights and moments are kept, on the same questions, beside float32 weights."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    small = {**SHAPES["tiny"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    shape = "tiny" if tiny else "1b"
    ways = [
        *((False, kept, moments) for moments in ("adamw", "adamw_8bit") for kept in ("float32", "bfloat16")),
        *((True, kept, "adamw") for kept in ("float32", "bfloat16", "nf4")),
    ]
    first: dict[bool, list[float]] = {}  # losses of float32 weights and AdamW, without and with LoRA
    with patch.dict(SHAPES, {"tiny": small} if tiny else {}):  # bfloat16 is slow on a processor
        for lora, weights, optimizer in ways:
            run = partial(some_steps, tell, shape, 20, lora, first, weights=weights, optimizer=optimizer)
            attempt(tell, f"{weights}, {optimizer}{', LoRA' * lora}", run)
        for weights in ("bfloat16",) if tiny else ("float32", "bfloat16"):
            attempt(tell, f"resumed, {weights}", partial(resumed_alike, tell, weights=weights, optimizer="adamw_8bit"))
        for weights in () if tiny else ("bfloat16", "nf4"):
            run = partial(some_steps, tell, "7b", 8, True, {}, weights=weights, optimizer="adamw")
            attempt(tell, f"7b, {weights}, LoRA", run)


def some_steps(tell: Tell, shape: str, count: int, lora: bool, first: dict[bool, list[float]], **how: Any) -> None:
    """Tokens per second (median step), peak memory from the third step on, and losses beside the `first` ones."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    from aft.models.adapters import LoraSettings, add_adapter
    from aft.training.examples import Example
    from aft.training.job import Job
    from aft.training.loop import fit_weights
    from aft.training.settings import Objective, TrainingSettings

    P, C, questions = (15, 12, 1) if shape == "tiny" else (150, 120, 4)
    groups = [random_group([P, *[C] * 8], SHAPES[shape]["vocab_size"], seed) for seed in range(questions)]
    examples = [
        Example(f"q{i}", one.prompt, [one.responses[0]], one.responses, [j % 2 for j in range(8)])
        for i, one in enumerate(groups)
    ]
    usual = {"epochs": 99, "max_steps": count, "learning_rate": 1e-3 if lora else 1e-4, "batch_size": questions}
    usual |= {"token_budget": 10**5, "precision": "bfloat16", "lora": LoraSettings() if lora else None}
    settings = TrainingSettings(**usual | how)
    model = random_model(shape, DEVICE, torch.float32)
    steps: list[float] = []

    def at_step(*_: Any) -> None:
        synchronize(DEVICE)
        steps.append(time.perf_counter())
        if len(steps) == 2 and DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()

    hook = register_optimizer_step_pre_hook(at_step)
    try:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(examples, settings, Objective(term="aft", constraint="boundary"), 0, "test")
            fitted = fit_weights(add_adapter(model, LoraSettings(), 0) if lora else model, job, Path(folder))
    finally:
        hook.remove()
    synchronize(DEVICE)
    losses = [row["loss"] for row in fitted.curve]
    expected = first.setdefault(lora, losses)
    seconds = statistics.median(after - before for before, after in pairwise(steps[2:]))
    tell(
        "precision",
        **{"shape": shape, "LoRA": lora, **how, "steps": len(losses), "seconds": seconds},
        tokens_per_s=fitted.curve[0]["tokens"] / seconds,
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else math.nan,
        **{"first_loss": losses[0], "last_loss": losses[-1], "first_to_compare": expected[0]},
        largest_gap=max(abs(one - other) for one, other in zip(losses, expected, strict=True)),
    )


def resumed_alike(tell: Tell, **how: Any) -> None:
    """Twenty steps, stopped after ten and resumed, with deterministic sums: whether masters are equal bit by bit."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        once, again, resumed = (trained("bfloat16", stop, **how)[1] for stop in (False, False, True))
    finally:
        torch.use_deterministic_algorithms(False)
    tell("resumed", **how, again_bit_equal=torch.equal(again, once), resumed_bit_equal=torch.equal(resumed, once))


def profile(tell: Tell, what: str, run: Callable[[], object], units: int) -> None:
    """The kernels that take most of the time of a call, how busy the card is, and how many launches each unit takes."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    wall = clocked(run, DEVICE)[1]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])]
    with profiler(activities=activities) as found:
        run()
        synchronize(DEVICE)
    averages = found.key_averages()
    on_card = DEVICE == "cuda"
    kernels = [one for one in averages if str(one.device_type).endswith("CUDA")] if on_card else list(averages)

    def seconds(one: Any) -> float:
        return (one.self_device_time_total if on_card else one.self_cpu_time_total) / 1e6

    busy = sum(map(seconds, kernels))
    launches = sum(one.count for one in averages if "LaunchKernel" in one.key)
    tell(f"profile: {what}", wall_s=wall, busy_s=busy, busy_share=busy / wall, launches_each=launches / units)
    for one in sorted(kernels, key=seconds, reverse=True)[:15]:
        tell(f"kernels: {what}", kernel=one.key[:90], share=seconds(one) / busy, calls=one.count)


# --- sampling ---------------------------------------------------------------------------------------------------------


def sampling_step(tell: Tell, tiny: bool) -> None:
    """Our engine beside `generate`, as it is and with other settings, and where a step's time goes."""
    import sampling

    shape, k, rows = ("tiny", 2, 16) if tiny else ("1b", 8, 512)
    model: Any = sampling.build_model(shape, DEVICE, getattr(torch, DTYPES[-1]))
    vocabulary = model.config.vocab_size

    def case(name: str, questions: int, most: int, ends: bool, rows: int = rows) -> Any:
        prompts = sampling.prompts_of([sampling.PROMPT] * questions, vocabulary)
        return sampling.Case(name, prompts, most, ends, k, rows)

    def told(case: Any, engines: Mapping[str, Any] | None = None, note: str = "") -> None:
        for row in sampling.compare(model, case, 1, engines):
            names = ("case", "engine", "tokens", "mean", "wall_s", "tokens_per_s", "peak_mib", "wall_ratio")
            tell("sampling", **{n: row[n] for n in names}, questions=len(case.prompts), rows=case.rows, note=note)

    ours = {"aft": sampling.by_aft}
    equal, few, many = (8, 8, 16) if tiny else (64, 64, 256)
    short, most = (8, 24) if tiny else (128, sampling.MOST)
    attempt(tell, "profile", partial(profiled_engines, tell, model, case("short", few, 8 if tiny else 32, False)))
    attempt(tell, "equal", lambda: told(case("equal", equal, short, False)))
    attempt(tell, "gsm8k", lambda: told(case("gsm8k", many, most, True)))
    with patch("aft.sampling.slots._BLOCKS", 1):
        attempt(tell, "one block", lambda: told(case("gsm8k", many, most, True), ours, "one block of rows"))
    attempt(tell, "more rows", lambda: told(case("gsm8k", many, most, True, 2 * rows), ours, "more rows"))
    attempt(tell, "a block of the store", lambda: told(case("gsm8k", few, most, True), ours, "64 questions"))


def profiled_engines(tell: Tell, model: Any, case: Any) -> None:
    """What one token of every row costs in either engine."""
    import sampling

    for name, run in {"aft": sampling.by_aft, "transformers": sampling.by_transformers}.items():
        run(model, case, 0)
        profile(tell, f"sampling by {name}", partial(run, model, case, 0), case.max_new_tokens)


# --- checkpoints and the recipe ---------------------------------------------------------------------------------------


def checkpoint(tell: Tell, tiny: bool) -> None:
    """A quarter of the layers of the 1B shape with AdamW's moments: seconds to save and to load, and gigabytes."""
    from aft.training import checkpoints
    from aft.training.optimizer import make_optimizer, make_schedule
    from aft.training.parallel import choose
    from aft.training.settings import TrainingSettings

    shape = {**SHAPES["tiny" if tiny else "1b"], "num_hidden_layers": 4, "vocab_size": 2000}
    with patch.dict(SHAPES, {"quarter": shape}):
        model = random_model("quarter", DEVICE, torch.float32)
    settings, parallel = TrainingSettings(epochs=1, learning_rate=1e-5, batch_size=1), choose("none")
    optimizer = make_optimizer(model, settings)
    schedule = make_schedule(optimizer, settings, 10)
    for weights in model.parameters():
        weights.grad = torch.zeros_like(weights)
    optimizer.step()
    optimizer.zero_grad()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save = partial(checkpoints.save, folder, model, optimizer, schedule, parallel, [{"step": 1.0}])
        seconds = clocked(save, DEVICE)[1]
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9
        tell("checkpoint", part="save", gigabytes=size, seconds=seconds, gb_per_s=size / seconds)
        found = checkpoints.latest(folder)
        assert found is not None, "The checkpoint is not intact."
        parts = {
            "check its hashes": partial(checkpoints.latest, folder),
            "load weights": partial(checkpoints.load_weights, found, model),
            "load optimiser": partial(checkpoints.load_state, found, optimizer, schedule, parallel),
        }
        for part, run in parts.items():
            seconds = clocked(run, DEVICE)[1]
            tell("checkpoint", part=part, gigabytes=size, seconds=seconds, gb_per_s=size / seconds)


def recipe(tell: Tell, tiny: bool) -> None:
    """The recipe `smoke` from nothing, in a copy of the project; where its models were called."""
    import end_to_end
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project
    from torch.nn.modules.module import register_module_forward_pre_hook
    from transformers import PreTrainedModel

    calls: Counter[str] = Counter()

    def count(module: torch.nn.Module, given: Any) -> None:
        if isinstance(module, PreTrainedModel) and module.get_output_embeddings() is not None:
            calls[module.device.type] += 1

    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        end_to_end.copy_tree(project)
        (project / "conf/local").mkdir(exist_ok=True)
        (project / "conf/smoke/mlflow.yml").write_text("enabled: false\n", encoding="utf-8")
        before = Path.cwd()
        os.chdir(project)
        handle = register_module_forward_pre_hook(count)
        try:
            began = time.perf_counter()
            bootstrap_project(project)
            pipelines = ["ingest"] if tiny else ["__default__"]
            with KedroSession.create(project, env="smoke") as session:
                session.run(pipeline_names=pipelines)  # type: ignore[call-arg]
            seconds = time.perf_counter() - began
        finally:
            handle.remove()
            os.chdir(before)
        tell("recipe", seconds=seconds, calls_on_cuda=calls["cuda"], calls_on_cpu=calls["cpu"])


# --- tables -----------------------------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[Tell, bool], None]] = {
    **{"exactness": exactness, "recipe": recipe, "align": align, "sampling": sampling_step, "align7b": align7b},
    **{"memory": memory, "precision": precision, "checkpoint": checkpoint},
}


def show(step: str, path: Path) -> None:
    """The rows of a file as tables in Markdown, one for all rows of a kind."""
    if not path.is_file():
        return
    rows = json.loads(path.read_text(encoding="utf-8"))
    print(f"\n## {step}")
    for what in dict.fromkeys(row["what"] for row in rows):
        alike = [{key: value for key, value in row.items() if key != "what"} for row in rows if row["what"] == what]
        names = list(dict.fromkeys(key for row in alike for key in row))
        print(f"\n{what}:\n")
        print_markdown(alike, names)


if __name__ == "__main__":
    main()
