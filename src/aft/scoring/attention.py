"""Attention over packed rows (packing): many prompts and responses in one input without padding, each seeing its own.

The tokens of a forward pass lie one after the other in a single row of the batch, so that no layer but attention ever
sees padding. A `Span` is a run of them that belongs together: a prompt, or a response that continues a prompt, whose
keys and values it reads where they lie: in the same pass, or in a `Memory` of an earlier one. transformers hands
queries, keys and values to `_attend` by its AttentionInterface (as it does for vLLM), and the spans come along as a
keyword of the model's call, which gradient checkpointing passes on when it computes a layer again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "aft_spans"
_LOOSE = 1.2  # longest span of a bucket over its shortest, at most: what attention may pad

Memory = dict[int, tuple[torch.Tensor, torch.Tensor]]  # per layer: keys and values [M, heads, size] of earlier tokens


@dataclass(frozen=True, slots=True)
class Span:
    """`length` tokens of the pass, after `prefix_length` tokens that begin at `prefix` among all keys.

    Keys are numbered through: first those of the memory, then the tokens of the pass.
    """

    length: int
    prefix: int = 0
    prefix_length: int = 0


@dataclass(slots=True)
class _Bucket:
    """Spans of similar length, padded to [r, c] queries over [r, s] keys."""

    real: torch.Tensor  # [r, c] False where padded
    query_index: torch.Tensor  # [r, c] token of the pass; a span's first one where padded
    key_index: torch.Tensor  # [r, s] number among all keys
    query_position: torch.Tensor  # [r, c] position in the sequence that the span ends
    key_position: torch.Tensor  # [r, s]; beyond every query where padded
    causal: bool  # nothing but causality is to be masked
    uniform: bool  # all spans have the same lengths
    masks: dict[tuple[int | None, torch.dtype], torch.Tensor]

    def mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """What is added to attention scores [r or 1, 1, c, s]; None where plain causal attention does."""
        if self.causal and (window is None or self.key_position.shape[1] <= window):
            return None
        if (window, dtype) not in self.masks:
            rows = slice(1) if self.uniform else slice(None)  # one mask does for rows that are all alike
            distance = self.query_position[rows, :, None] - self.key_position[rows, None, :]
            allowed = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            zero = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            self.masks[window, dtype] = zero.masked_fill_(~allowed, -torch.inf)[:, None]
        return self.masks[window, dtype]


class SpanAttention:
    """The attention of one forward pass over `spans`, whose tokens lie in this order.

    With `kept`, keys and values of the first so many tokens stay in `memory_out`, with their graph.
    """

    def __init__(
        self, spans: Sequence[Span], device: torch.device, memory: Memory | None = None, kept: int = 0
    ) -> None:
        self.memory = memory
        self.kept = kept
        self.memory_out: Memory = {}
        remembered = next(iter(memory.values()))[0].shape[0] if memory else 0
        starts = [0, *accumulate(span.length for span in spans)]
        self.buckets = [
            _bucket([spans[i] for i in alike], [starts[i] for i in alike], remembered, device)
            for alike in _similar(spans)
        ]
        self.padding = sum(bucket.real.numel() for bucket in self.buckets) / starts[-1] - 1  # of queries, to each token
        # Where among the buckets' outputs each token of the pass stands.
        token = torch.cat([bucket.query_index[bucket.real] for bucket in self.buckets])
        place = torch.cat([bucket.real.flatten() for bucket in self.buckets]).nonzero().squeeze(1)
        self.place = torch.empty_like(place).index_copy_(0, token, place)

    def __call__(
        self, module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        """Outputs [1, T, heads, size] of queries [1, heads, T, size] over keys and values [1, fewer heads, T, size]."""
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        layer: int = module.layer_idx  # type: ignore[assignment]
        query_T, key_S, value_S = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
        if self.kept and layer not in self.memory_out:  # a checkpointed layer is computed twice
            self.memory_out[layer] = (key_S[: self.kept], value_S[: self.kept])
        if self.memory is not None:
            keys, values = self.memory[layer]
            key_S, value_S = torch.cat([keys, key_S]), torch.cat([values, value_S])
        window = options.pop("sliding_window", None)
        outputs = []
        for bucket in self.buckets:
            output, _ = sdpa_attention_forward(
                module,
                _rows(query_T, bucket.query_index),
                _rows(key_S, bucket.key_index),
                _rows(value_S, bucket.key_index),
                bucket.mask(window, query.dtype),
                **options,
            )
            outputs.append(output.flatten(0, 1))
        return torch.cat(outputs).index_select(0, self.place)[None]


def _rows(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Tokens [T, heads, size] gathered by an index [r, n], as [r, heads, n, size]."""
    return tokens.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)


def _similar(spans: Sequence[Span]) -> list[list[int]]:
    """Numbers of spans whose lengths differ by little, prompts and responses apart."""
    runs: list[list[int]] = []
    for i in sorted(range(len(spans)), key=lambda i: (spans[i].prefix_length > 0, -spans[i].length)):
        if runs:
            first, this = spans[runs[-1][0]], spans[i]
            alike = (first.prefix_length > 0) == (this.prefix_length > 0)
            if alike and first.length <= max(_LOOSE * this.length, this.length + 8):
                runs[-1].append(i)
                continue
        runs.append([i])
    return runs


def _bucket(spans: Sequence[Span], starts: Sequence[int], remembered: int, device: torch.device) -> _Bucket:
    start, length, prefix, prefix_length = (
        torch.tensor(values)[:, None]
        for values in (
            starts,
            [span.length for span in spans],
            [span.prefix for span in spans],
            [span.prefix_length for span in spans],
        )
    )
    longest, longest_prefix = int(length.max()), int(prefix_length.max())
    i_1_C, j_1_P = torch.arange(longest)[None], torch.arange(longest_prefix)[None]
    own_index = torch.where(i_1_C < length, start + i_1_C, start)
    prefix_index = torch.where(j_1_P < prefix_length, prefix + j_1_P, prefix)
    beyond = longest_prefix + longest + 1  # later than any query: never seen
    own_position = torch.where(i_1_C < length, prefix_length + i_1_C, beyond)
    prefix_position = torch.where(j_1_P < prefix_length, j_1_P, beyond)
    return _Bucket(
        real=(i_1_C < length).to(device),
        query_index=own_index.to(device),
        key_index=torch.cat([prefix_index, own_index + remembered], dim=1).to(device),
        query_position=(prefix_length + torch.minimum(i_1_C, length - 1)).to(device),  # padded: as the last real one
        key_position=torch.cat([prefix_position, own_position], dim=1).to(device),
        causal=longest_prefix == 0,
        uniform=len({(span.length, span.prefix_length) for span in spans}) == 1,
        masks={},
    )


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    spans: SpanAttention | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls; without `spans` it would have to guess what may see what."""
    if spans is None:
        raise RuntimeError("A model in the mode of packed rows was called without its spans.")
    return spans(module, query, key, value, **options), None


def check_packed_rows(model: "PreTrainedModel") -> None:
    """Raise `RuntimeError` outside of `packed_rows`, where spans would be passed over without a word."""
    if model.config._attn_implementation != _NAME:
        raise RuntimeError("The model is not in the mode of packed_rows: its attention would not see the spans.")


@contextmanager
def packed_rows(model: "PreTrainedModel") -> Iterator[None]:
    """Within, the model's attention is that of the `spans` that each call is given; backward passes included."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before or "sdpa")
