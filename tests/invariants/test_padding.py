"""On shared prompts the layers read no padding; attention alone pads a little, in a few buckets."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from aft.scoring import paths, shared
from aft.scoring.attention import Span, SpanAttention
from aft.scoring.groups import Group


def lengths(rng: np.random.Generator, mean: float, sd: float, most: int, n: int) -> list[int]:
    """Lognormal token counts: sigma^2 = log(1 + (sd / mean)^2), mu = log(mean) - sigma^2 / 2."""
    variance = math.log(1 + (sd / mean) ** 2)
    drawn = rng.lognormal(math.log(mean) - variance / 2, math.sqrt(variance), n)
    return [min(max(int(x), 2), most) for x in drawn]


def gsm8k_groups(seed: int, n: int, responses: int = 7) -> list[Group]:
    """Questions of 95 +- 21 tokens, seven answers of 122 +- 53 each, at most 456."""
    rng = np.random.default_rng(seed)

    def tokens(length: int) -> list[int]:
        return rng.integers(2, 64, length).tolist()

    return [
        Group(tokens(prompt), [tokens(length) for length in lengths(rng, 122, 53, 456, responses)])
        for prompt in lengths(rng, 95, 21, 456, n)
    ]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            **{"vocab_size": 64, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1},
            **{"num_attention_heads": 2, "max_position_embeddings": 1024, "pad_token_id": None},
        )
    )


def test_layers_read_each_token_once_and_no_padding(model, monkeypatch):
    """A prompt and, of each response, all tokens but the last, which predicts nothing: P + sum of (C - 1)."""
    groups = gsm8k_groups(0, 16)
    read: dict[str, list[int]] = {"layer": [], "head": [], "attention": []}
    for name, module in (("layer", model.model.layers[0].mlp), ("head", model.lm_head)):
        module.register_forward_pre_hook(lambda _, given, its=read[name]: its.append(given[0][..., 0].numel()))

    class Recorded(SpanAttention):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            read["attention"].append(sum(bucket.real.numel() for bucket in self.buckets))

    monkeypatch.setattr(shared, "SpanAttention", Recorded)
    planned = paths.plan(groups, "shared", 8192)
    assert [how for how, _ in planned] == ["shared"] * len(planned) and len(planned) > 1
    with paths.mode(model, "shared"):
        for _, numbers in planned:
            some = [groups[number] for number in numbers]
            paths.backward(model, "shared", some, None, torch.sum, 8192)
    real = sum(len(group.prompt) + sum(len(response) - 1 for response in group.responses) for group in groups)
    predicted = sum(len(response) for group in groups for response in group.responses)
    assert sum(read["layer"]) == real
    assert sum(read["head"]) == predicted
    assert real < sum(read["attention"]) < 1.1 * real
    assert len(read["layer"]) == len(planned)
    assert paths.padding(groups, planned) == 0.0


def test_the_naive_path_reads_more_than_twice_as_much():
    """Per response a prompt of 95, an answer of 122 and padding, against 95 / 7 + 122 on shared prompts."""
    groups = gsm8k_groups(0, 64)
    real = sum(group.cost for group in groups)
    given = 0
    planned = paths.plan(groups, "naive", 8192)
    for _, numbers in planned:
        rows = [len(groups[n].prompt) + len(response) for n in numbers for response in groups[n].responses]
        given += len(rows) * max(rows)
    unpadded = sum(len(group.prompt) + len(response) for group in groups for response in group.responses)
    assert paths.padding(groups, planned) == pytest.approx(1 - unpadded / given)
    assert given > 2.3 * real and unpadded > 1.5 * real


@pytest.mark.parametrize("n", [2, 8, 32])
@pytest.mark.parametrize("seed", range(4))
def test_attention_pads_less_than_a_tenth_in_few_buckets(seed, n):
    """Each bucket's longest span is below 1/1.2 of that of the one before: log(longest / shortest) / log 1.2 + 1."""
    groups = gsm8k_groups(seed, n)
    prompts = [Span(len(group.prompt)) for group in groups]
    responses, start = [], 0
    for group in groups:
        responses += [Span(len(response) - 1, start, len(group.prompt)) for response in group.responses]
        start += len(group.prompt)
    attention = SpanAttention([*prompts, *responses], torch.device("cpu"))
    assert 0 < attention.padding < 0.1
    most = 0
    for spans in (prompts, responses):
        sizes = [span.length for span in spans]
        most += 1 + math.floor(math.log(max(sizes) / min(sizes)) / math.log(1.2))
    assert len(attention.buckets) <= most <= 24
    assert sum(int(bucket.real.sum()) for bucket in attention.buckets) == sum(s.length for s in [*prompts, *responses])
