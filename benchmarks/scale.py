"""What follows sampling, over the number of questions: labels and ranks, training examples, one epoch of batches.

    python benchmarks/scale.py [--questions 10000 100000 1000000] [--samples 8] [--ray] [--folder FOLDER] [--json FILE]

The questions are arithmetic stories, with made responses of GSM8K's lengths; no model is needed. Every stage works in
a process of its own, whose memory is told as `peak_mib`: pages of mapped files, which the system takes back when it
needs them, are not in it. Below the table, which is Markdown, stands how the largest number compares with the one
before. With `--ray`, labels are made once more by two workers of a local Ray, of which one is killed, and must be the
same bytes; time and memory of this stage are those of the process that has the workers. In FOLDER, a temporary one if
none is named, 1,000,000 questions with 8 responses each take some 20 GB.
"""

import argparse
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from measure import END, gsm8k_lengths, print_markdown, status_mib, write_json
from small_decoder import VOCABULARY, arithmetic, build_tokenizer, story_of

from aft.pipelines.label_and_rank.nodes import label_and_rank
from aft.pipelines.parameters import Labelling
from aft.pipelines.tables import to_table
from aft.pipelines.training import blocks
from aft.sampling.settings import ClusterSettings, SamplerSettings
from aft.scoring.groups import pack
from aft.shards import Shards, encode
from aft.tasks import Question
from aft.tasks.base import content_hash
from aft.training.batches import batches_of_epoch
from aft.training.examples import examples_of
from aft.training.settings import Objective
from aft.training.stored import StoredExamples, write_examples

BLOCK = 1000  # questions of a shard of candidates
BATCH, TOKEN_BUDGET, MAX_TOKENS = 64, 16_384, 1024
COLUMNS = ("questions", "stage", "rows", "wall_s", "cpu_s", "cpu_us_per_row", "peak_mib", "disk_mib")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the rows if wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for questions in options.questions:
        with TemporaryDirectory(dir=options.folder, prefix="scale-") as name:
            for row in measure(Path(name), questions, options.samples, ray=options.ray):
                rows.append(row)
                write_json(options.json, rows)  # a long run that is stopped keeps what it has measured
    print_markdown(rows, COLUMNS)
    for line in compared(rows):
        print(line)


def measure(folder: Path, questions: int, samples: int, *, ray: bool) -> Iterator[dict[str, Any]]:
    """A row of each stage over so many questions; the first one makes what the others read."""
    for name, stage in STAGES.items():
        if stage is label_on_ray and not ray:
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
            before = size_of(folder)
            row = own.submit(measured, stage, folder, questions, samples).result()
        disk = (size_of(folder) - before) / 2**20
        yield {"questions": questions, "stage": name, **row, "disk_mib": disk}


def measured(stage: Callable[[Path, int, int], int], folder: Path, questions: int, samples: int) -> dict[str, Any]:
    """Time and memory of a stage in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    with watched() as peak:
        rows = stage(folder, questions, samples)
    cpu_s = time.process_time() - cpu
    times = {"wall_s": time.perf_counter() - wall, "cpu_s": cpu_s, "cpu_us_per_row": 1e6 * cpu_s / rows}
    return {"rows": rows, **times, "peak_mib": max(peak)}


@contextmanager
def watched() -> Iterator[list[float]]:
    """The process's own memory in MiB, looked at twenty times a second."""
    seen, over = [status_mib("RssAnon")], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            seen[0] = max(seen[0], status_mib("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def compared(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Of each stage, how time and memory at the largest number of questions compare with those at the one before."""
    counts = sorted({row["questions"] for row in rows})
    stages = dict.fromkeys(row["stage"] for row in rows)
    for name in list(stages)[1:] if len(counts) > 1 else []:
        fewer, more = (row for row in rows if row["stage"] == name and row["questions"] in counts[-2:])
        grown = more["peak_mib"] - fewer["peak_mib"]
        yield (
            f"{name}: from {fewer['questions']:,} to {more['questions']:,} questions {grown:+.0f} MiB "
            f"({grown / fewer['peak_mib']:+.0%}), {more['cpu_us_per_row'] / fewer['cpu_us_per_row']:.2f} times the "
            "processor time of a row"
        )


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- the stages: each returns how many responses, examples or batches it has worked on -------------------------------


def make(folder: Path, questions: int, samples: int) -> int:
    """Questions, responses to them in shards, and a tokenizer, as sampling would leave them."""
    rng, lengths = random.Random(0), gsm8k_lengths(BLOCK, samples)
    ids = np.random.default_rng(0)
    (folder / "candidates").mkdir()
    tables = []
    for start in range(0, questions, BLOCK):
        block = [made_question(rng, number) for number in range(start, min(start + BLOCK, questions))]
        tables.append(to_table(block))
        rows = [
            (one.question_id, sample, made_response(rng, one), np.append(ids.integers(3, VOCABULARY, length - 1), END))
            for one, (_, *own) in zip(block, lengths, strict=False)
            for sample, length in enumerate(own)
        ]
        table = pd.DataFrame(rows, columns=["question_id", "sample_index", "response", "token_ids"])
        table = table.assign(seed=0, finish_reason="stop", sum_logprob=-1.0, n_tokens=table["token_ids"].map(len))
        shard = folder / "candidates" / f"{start // BLOCK:05d}.parquet"
        shard.write_bytes(encode(table.assign(model_fingerprint="made", settings_hash="made")))
    pd.concat(tables, ignore_index=True).to_parquet(folder / "questions.parquet")
    build_tokenizer(list(arithmetic(2000))).save_pretrained(folder / "tokenizer")
    return questions * samples


def made_question(rng: random.Random, number: int) -> Question:
    """An arithmetic story in GSM8K's form."""
    text, steps = story_of(rng)
    answer = steps[-1].removeprefix("#### ")
    hashed = content_hash(text, None)
    return Question(f"gsm8k/train/{number:07d}", "gsm8k", "train", text, None, "\n".join(steps), answer, hashed)


def made_response(rng: random.Random, question: Question) -> str:
    """The reference after a sentence that is rarely the same; half of them with another answer."""
    begun = f"Let us see, in {rng.randrange(1000)} words or fewer.\n{question.reference}"
    return begun if rng.random() < 0.5 else f"{begun}{rng.randrange(1, 10)}"


def label(folder: Path, questions: int, samples: int) -> int:
    """Labels, ratings by steps, ranks; the feedback in shards."""
    shards = labelled(folder, "store", SamplerSettings())
    (folder / "feedback.json").write_text(json.dumps(list(map(str, shards))), encoding="utf-8")
    return questions * samples


def label_on_ray(folder: Path, questions: int, samples: int) -> int:
    """The same by two workers, one of which is killed over a block; raises `SystemExit` for other bytes."""
    with killer() as killed:
        shards = labelled(folder, "ray", SamplerSettings(cluster=ClusterSettings(workers=2)))
    own = map(Path, json.loads((folder / "feedback.json").read_text(encoding="utf-8")))
    if not killed:
        raise SystemExit("No worker of Ray was killed: ask for more questions.")
    if not all(one.read_bytes() == other.read_bytes() for one, other in zip(own, shards, strict=True)):
        raise SystemExit("Workers of Ray have made other bytes than one process.")
    return questions * samples


def labelled(folder: Path, store: str, sampler: SamplerSettings) -> list[Path]:
    """The shards of the feedback, in a store of that name."""
    table = pd.read_parquet(folder / "questions.parquet")
    candidates = Shards(sorted((folder / "candidates").iterdir()))
    places = str(folder / "ratings"), str(folder / store)
    return list(label_and_rank(candidates, table, Labelling(judge="steps"), 0, *places, sampler)[0].paths)


@contextmanager
def killer() -> Iterator[list[int]]:
    """Kill the first of this process's Ray workers that is seen to make a block; the ids of those killed."""
    from psutil import NoSuchProcess, Process

    killed, over = list[int](), threading.Event()

    def watch() -> None:
        while not killed and not over.wait(0.01):
            for process in Process().children(recursive=True):
                with suppress(NoSuchProcess):
                    if not killed and process.cmdline()[:1] == ["ray::_Worker.make"]:
                        process.kill()
                        killed.append(process.pid)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield killed
    finally:
        over.set()
        watcher.join()


def examples(folder: Path, questions: int, samples: int) -> int:
    """The training examples of AFT with the detached constraint, with their fingerprint."""
    from transformers import AutoTokenizer

    table = pd.read_parquet(folder / "questions.parquet")
    shards = Shards(list(map(Path, json.loads((folder / "feedback.json").read_text(encoding="utf-8")))))
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    objective = Objective(term="aft", constraint="detached")
    made = examples_of(blocks(table, shards), tokenizer, objective, MAX_TOKENS)
    assert write_examples(folder / "examples.arrow", made).fingerprint
    return questions * samples


def epoch(folder: Path, questions: int, samples: int) -> int:
    """All batches of an epoch, read and dealt out in passes under a token budget."""
    stored = StoredExamples(folder / "examples.arrow")
    passes = 0
    for numbers in batches_of_epoch(stored.sizes().cost_N, BATCH, 0, 0):
        passes += len(pack([stored[number].group.cost for number in numbers], TOKEN_BUDGET))
    assert passes
    return questions * samples


STAGES: dict[str, Callable[[Path, int, int], int]] = {
    **{"make": make, "label and rank": label, "label on Ray": label_on_ray, "examples": examples, "epoch": epoch}
}


if __name__ == "__main__":
    main()
