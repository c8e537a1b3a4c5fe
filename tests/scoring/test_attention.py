"""Attention over packed rows against one dense mask that is written down token by token."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.scoring.attention import Span, SpanAttention, packed_rows

CPU = torch.device("cpu")
HEADS, SIZE = 4, 8


class Layer(torch.nn.Module):
    """What an attention function is told of its layer."""

    is_causal = True

    def __init__(self, layer_idx: int = 0, groups: int = 2) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.num_key_value_groups = groups


def random_qkv(tokens: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Queries of 4 heads, keys and values of 2."""
    made = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, tokens, SIZE) for heads in (HEADS, HEADS // 2, HEADS // 2)]
    return [torch.randn(shape, generator=made, dtype=dtype).requires_grad_() for shape in shapes]


def attend(attention: SpanAttention, qkv: list[torch.Tensor], window: int | None = None, layer: int = 0) -> Any:
    return attention(Layer(layer), *qkv, sliding_window=window, scaling=None, dropout=0.0)


def dense(spans: list[Span], qkv: list[torch.Tensor], window: int | None, remembered: int = 0) -> torch.Tensor:
    """softmax(q k / sqrt(8) + mask) v: the i-th token of a span sees its prefix, itself and the span's before it.

    At most `window` positions back, counted in the sequence: prefix, then span.
    """
    query, key, value = qkv
    key, value = (x.repeat_interleave(2, dim=1) for x in (key, value))
    mask = torch.full((query.shape[2], key.shape[2]), -math.inf, dtype=query.dtype)
    token = 0
    for span in spans:
        first = token
        for i in range(span.length):
            seen = [*range(span.prefix, span.prefix + span.prefix_length)]
            seen += [remembered + first + before for before in range(i + 1)]
            mask[token, seen[-window:] if window else seen] = 0
            token += 1
    weights = (query @ key.transpose(2, 3) / math.sqrt(SIZE) + mask).softmax(-1)
    return (weights @ value).transpose(1, 2)


@st.composite
def packed(draw: st.DrawFn) -> list[Span]:
    """One to three prompts of 1 to 15 tokens, then up to five responses, each after one of them."""
    prompts = draw(st.lists(st.integers(1, 15), min_size=1, max_size=3))
    starts = [sum(prompts[:g]) for g in range(len(prompts))]
    after = draw(st.lists(st.tuples(st.integers(0, len(prompts) - 1), st.integers(1, 25)), max_size=5))
    return [*map(Span, prompts), *(Span(length, starts[g], prompts[g]) for g, length in after)]


@settings(max_examples=60, deadline=None)
@given(spans=packed(), window=st.sampled_from([None, 1, 3, 6, 100]))
def test_equals_a_dense_mask(spans, window):
    """Outputs and the gradients of queries, keys and values."""
    total = sum(span.length for span in spans)
    mine, theirs = random_qkv(total), random_qkv(total)
    found, expected = attend(SpanAttention(spans, CPU), mine, window), dense(spans, theirs, window)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found.backward(upstream)
    expected.backward(upstream)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", [None, 4])
def test_a_memory_stands_for_an_earlier_pass(window):
    """Prompts of 5 and 3 tokens in a first pass, responses of 6, 2 and 1 in a second: the same as all at once."""
    prompts = [Span(5), Span(3)]
    responses = [Span(6, 5, 3), Span(2, 0, 5), Span(1, 5, 3)]
    qkv = random_qkv(17)
    first, second = [x[:, :, :8] for x in qkv], [x[:, :, 8:] for x in qkv]
    reading = SpanAttention(prompts, CPU, kept=8)
    prompts_out = attend(reading, first, window)
    answering = SpanAttention(responses, CPU, reading.memory_out)
    together = torch.cat([prompts_out, attend(answering, second, window)], dim=1)
    expected = dense([*prompts, *responses], qkv, window)
    torch.testing.assert_close(together, expected, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(together.square().sum(), qkv)
    for one, other in zip(found, torch.autograd.grad(expected.square().sum(), qkv), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_first_tokens_are_kept_per_layer_with_their_graph():
    """[M, heads, size] for each layer; a layer that checkpointing computes a second time does not replace them."""
    attention = SpanAttention([Span(4), Span(2, 0, 4)], CPU, kept=4)
    one, other = random_qkv(6, 0), random_qkv(6, 1)
    attend(attention, one, layer=0)
    attend(attention, other, layer=1)
    attend(attention, other, layer=0)
    assert attention.memory_out.keys() == {0, 1}
    for layer, qkv in ((0, one), (1, other)):
        for kept, given_ in zip(attention.memory_out[layer], qkv[1:], strict=True):
            assert kept.shape == (4, HEADS // 2, SIZE) and kept.requires_grad
            assert torch.equal(kept, given_[0, :, :4].transpose(0, 1))
    nothing = SpanAttention([Span(4)], CPU)
    attend(nothing, random_qkv(4))
    assert nothing.memory_out == {}


def test_padding_by_hand():
    """Prompts of 40 and 35 in one bucket (40 <= 1.2 x 35): 80 queries for 75 tokens; the response of 36 stands apart.

    20 is below 40 / 1.2, and more than 8 below: a bucket of its own.
    """
    assert SpanAttention([Span(40), Span(35)], CPU).padding == pytest.approx(80 / 75 - 1)
    spans = [Span(40), Span(35), Span(36, 0, 40), Span(20)]
    attention = SpanAttention(spans, CPU)
    assert sorted(tuple(bucket.real.shape) for bucket in attention.buckets) == [(1, 20), (1, 36), (2, 40)]
    assert attention.padding == pytest.approx((80 + 36 + 20) / 131 - 1)
    assert len(SpanAttention([Span(12), Span(4)], CPU).buckets) == 1, "up to 8 tokens are padded whatever the ratio"
    assert len(SpanAttention([Span(13), Span(4)], CPU).buckets) == 2


@settings(max_examples=30, deadline=None)
@given(spans=packed(), window=st.sampled_from([None, 1, 3, 6]))
def test_every_query_sees_some_key(spans, window):
    """Padded ones too: a row without any would be 0 / 0, and its NaN would enter the gradients of all keys."""
    for bucket in SpanAttention(spans, CPU).buckets:
        mask = bucket.mask(window, torch.float32)
        assert mask is None or (mask == 0).any(-1).all()


def test_a_short_window_leaves_plain_causal_attention_alone():
    """No mask is needed for prompts within the window: the fastest kernels take none."""
    (bucket,) = SpanAttention([Span(6), Span(5)], CPU).buckets
    assert bucket.mask(None, torch.float32) is None and bucket.mask(6, torch.float32) is None
    mask = bucket.mask(5, torch.float32)
    assert mask is not None and mask.shape == (2, 1, 6, 6)


# --- in a model -------------------------------------------------------------------------------------------------------


def test_a_model_without_its_spans_is_refused(tiny_model):
    model = tiny_model("llama")
    with packed_rows(model), pytest.raises(RuntimeError, match="without its spans"):
        model(input_ids=torch.tensor([[2, 3, 4]]))
    with torch.no_grad():
        assert model(input_ids=torch.tensor([[2, 3, 4]])).logits.shape == (1, 3, 64), "outside it is as ever"


@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_the_models_own_attention_comes_back(tiny_model, before):
    """After an error, too."""
    model = copy.deepcopy(tiny_model("llama"))
    model.set_attn_implementation(before)
    with packed_rows(model):
        assert model.config._attn_implementation not in ("sdpa", "eager")
    assert model.config._attn_implementation == before
    with pytest.raises(KeyError), packed_rows(model):
        raise KeyError
    assert model.config._attn_implementation == before
