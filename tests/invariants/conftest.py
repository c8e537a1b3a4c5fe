"""What the invariants share: models of six kinds, in float64 to the last digit, and groups of every shape."""

import copy
import os
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch

from aft.training.examples import Example

SHAPE = {
    **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128},
    **{"initializer_range": 0.25, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None},
}


@pytest.fixture(scope="session", autouse=True)
def device() -> Iterator[str]:
    """Where models are: on the processor, or on a card with AFT_TEST_DEVICE=cuda."""
    name = os.environ.get("AFT_TEST_DEVICE", "cpu")
    with torch.device(name):
        yield name


@cache
def _qwen3(mixed: bool) -> Any:
    from transformers import AutoModelForCausalLM, Qwen3Config

    window = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1} if mixed else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(Qwen3Config(**SHAPE, **window)).eval()


def in_float64(model: Any) -> Any:
    """A copy in float64 throughout: RMSNorm of transformers would round to float32 in between."""
    exact = copy.deepcopy(model).double()
    for parent in list(exact.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                norm = torch.nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(parent, name, norm)
    return exact


@pytest.fixture(scope="session")
def make_model(tiny_model: Callable[[str], Any]) -> Callable[..., Any]:
    """A fresh copy of a tiny model by its kind; `mistral` and the second layer of `mixed` see the last 6 tokens."""

    def make(kind: str, exact: bool = False) -> Any:
        model = _qwen3(kind == "mixed") if kind in ("qwen3", "mixed") else tiny_model(kind)
        return in_float64(model) if exact else copy.deepcopy(model)

    return make


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Every shape of a group: see the comments. Prompts and responses outgrow the window of 6 tokens."""
    rng = random.Random(0)

    def tokens(length: int) -> list[int]:
        return [rng.randrange(2, 64) for _ in range(length)]

    def example(prompt: int, targets: list[list[int]], candidates: list[list[int]], ranks: list[int]) -> Example:
        reference = [rng.uniform(-4, -2) for _ in candidates]
        behaviour = [score - 0.1 for score in reference]
        rewards = [float(rank < 1) for rank in ranks]
        return Example(f"q{prompt}", tokens(prompt), targets, candidates, ranks, reference, (), rewards, behaviour)

    twice = tokens(5)
    return [
        example(9, [tokens(3)], [tokens(n) for n in (1, 7, 12, 5, 3)], [0, 1, 2, 2, 4]),  # ranks of several levels
        example(1, [tokens(1)], [tokens(4)], [0]),  # a prompt of one token, a single candidate (k = 1)
        example(3, [tokens(8)], [], []),  # no candidates: one response only
        example(7, [tokens(2)], [tokens(3), tokens(6)], [0, 0]),  # no negatives
        example(4, [tokens(1)], [tokens(1), tokens(1)], [1, 1]),  # no positives; responses of one token only
        example(2, [twice], [twice, twice, tokens(13), twice], [0, 0, 1, 2]),  # equal responses, one even ranked last
        example(12, [], [], []),  # nothing at all to score
        example(5, [tokens(10), tokens(2)], [tokens(9), tokens(2), tokens(2)], [1, 0, 1]),  # two targets
    ]
