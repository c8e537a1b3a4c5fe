"""What the benchmarks share: models of three shapes, random questions, clocks, peaks of memory, tables."""

import ctypes
import gc
import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft.scoring.groups import Group

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

END = 1  # the token that ends every response

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        **{"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8},
        **{"vocab_size": 2000},
    },
    "1b": {  # as Llama 3.2
        **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
        **{"num_key_value_heads": 8, "vocab_size": 128256},
    },
    "7b": {  # as Llama 2
        **{"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
        **{"vocab_size": 32000},
    },
}


def random_model(shape: str, device: str, dtype: "torch.dtype") -> "PreTrainedModel":
    """A Llama of a shape with random weights, the same ones every time, and no dropout."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=8192, use_cache=False)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.train()


def random_group(lengths: Sequence[int], vocabulary: int, seed: int) -> Group:
    """A group of random tokens, given the length of its prompt and then those of its responses."""
    rng = random.Random(seed)
    prompt, *responses = ([rng.randrange(2, vocabulary) for _ in range(length)] for length in lengths)
    return Group(prompt, [[*response[:-1], END] for response in responses])


def gsm8k_lengths(questions: int, k: int) -> list[list[int]]:
    """For each question the tokens of its prompt and of k responses, distributed as in GSM8K."""
    rng = random.Random(0)

    def draw(mean: float, deviation: float) -> int:
        variance = math.log(1 + (deviation / mean) ** 2)  # of the logarithm
        return round(rng.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance)))

    return [[draw(95, 21), *(min(max(draw(122, 53), 20), 456) for _ in range(k))] for _ in range(questions)]


def clocked(run: Callable[[], object], device: str = "cpu") -> tuple[float, float]:
    """Seconds of processor time and of wall time that a call takes."""
    synchronize(device)
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    synchronize(device)
    return time.process_time() - cpu, time.perf_counter() - wall


def synchronize(device: str) -> None:
    """Wait for what the device still computes."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def peak_mib(run: Callable[[], object], device: str = "cpu") -> float:
    """Most memory during a call, beyond what was held before it; NaN where the system does not tell."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed earlier goes back to the system, so that it counts anew
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the high-water mark falls to the present
        before = status_mib("VmRSS")
        run()
        return status_mib("VmHWM") - before
    except OSError:
        return math.nan


def status_mib(name: str) -> float:
    """What the system tells of this process's memory under a name, such as `VmRSS`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def matmul_rate(device: str = "cuda") -> float:
    """Floating-point operations per second in a large product, bfloat16 on a card, the best of ten."""
    import torch

    n, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    a = torch.randn(n, n, device=device, dtype=dtype)
    seconds = [clocked(lambda: a @ a, device)[1] for _ in range(10)]  # the first one warms up
    return 2 * n**3 / min(seconds)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Rows as aligned columns; `columns` maps each key that is shown to its heading."""
    cells = [list(columns.values()), *([shown(row.get(key)) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def print_markdown(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Rows as a table in Markdown, with these columns."""
    print(f"|{'|'.join(names)}|\n|{'---|' * len(names)}")
    for row in rows:
        print(f"|{'|'.join(shown(row.get(name)) for name in names)}|")


def shown(value: Any) -> str:
    """A figure as people read it; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)


def write_json(path: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to a file, if one is wanted; what could not be measured is null."""
    if path is not None:
        known = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
        path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
