"""Training runs that are killed with `kill -9` at a given moment: a script of its own, and what its tests need of it.

Ten steps in epochs of four (13 examples in batches of 4: the last batch is smaller), a checkpoint after every second
step; the ten steps end in the middle of an epoch.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from aft.models.pocket import build_tokenizer
from aft.training import checkpoints, loop, run
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.settings import Objective, TrainingSettings

SETTINGS = {"epochs": 9, "max_steps": 10, "learning_rate": 0.01, "batch_size": 4, "checkpoint_every": 2}


def ragged_examples(n: int) -> list[Example]:
    """Questions of many lengths: every fourth without candidates, every fifth with wrong ones only."""
    rng = random.Random(0)

    def tokens() -> list[int]:
        return [rng.randrange(4, 60) for _ in range(rng.randint(2, 9))]

    examples = []
    for i in range(n):
        candidates = [] if i % 4 == 3 else [tokens() for _ in range(rng.randint(2, 4))]
        ranks = [0 if i % 5 == 4 or j == 0 else 1 for j in range(len(candidates))]
        rewards = [float(i % 5 != 4 and rank == 0) for rank in ranks]
        of_others = [-4.1 - 0.01 * j for j in range(len(candidates))]  # about as the model itself has it
        example = Example(f"q{i:02d}", tokens(), [tokens()], candidates, ranks, of_others, (), rewards, of_others)
        examples.append(example)
    return examples


def small_llama(dropout: float = 0.0, tied: bool = True) -> LlamaForCausalLM:
    """One layer of 16, always with the same weights."""
    config = LlamaConfig(
        **{"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": tied},
        **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.1},
        attention_dropout=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def ten_steps(workspace: Path, dropout: float, token_budget: int) -> run.TrainedModel:
    """The run that is killed, resumed and compared."""
    return run.train_once(
        {"kind": "ten steps", "dropout": dropout, "token_budget": token_budget},
        lambda: (small_llama(dropout, tied=not dropout), build_tokenizer()),
        lambda: ragged_examples(13),
        Job(
            (),
            TrainingSettings(**SETTINGS, token_budget=token_budget),
            Objective(term="aft", constraint="boundary"),
            7,
            "ten steps",
        ),
        workspace,
    )


def kill_at(moment: str, call: int) -> None:
    """Kill this process just before the n-th call of the function that stands for a moment."""
    checkpoints.shutil = SimpleNamespace(rmtree=shutil.rmtree)  # type: ignore[assignment]  # its own: others remove too
    owner, name = {
        "forward": (loop, "_one_pass"),  # of one pass over some questions
        "half a checkpoint": (checkpoints, "save_file"),  # of two for each: its weights', then its optimiser's
        "no manifest": (checkpoints, "finish_directory"),
        "two checkpoints": (checkpoints.shutil, "rmtree"),  # the new one has its name, the older is still there
        "model": (run, "save_model"),  # all steps are done
        "curve": (run, "write_json"),  # the model is written, the curve is not
    }[moment]
    original: Callable[..., Any] = getattr(owner, name)
    calls = itertools.count(1)

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def main() -> None:
    """Run each scenario in a child of its own and tell the signal by which it ended."""
    torch.set_num_threads(1)
    ended = {}
    for name, scenario in json.loads(sys.argv[1]).items():
        child = os.fork()
        if child == 0:
            kill_at(scenario["moment"], scenario["call"])
            ten_steps(Path(scenario["workspace"]), scenario["dropout"], scenario["token_budget"])
            os._exit(0)
        ended[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.stdout.write(json.dumps(ended))


if __name__ == "__main__":
    main()
