"""The local engine: k responses per prompt by continuous batching over a KV cache that keeps each prompt once.

Each response has a seed of its own, hash(run seed, question id, sample index), from which all its random numbers are
drawn before the first token: which responses are generated side by side does not change what is drawn.
"""

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch  # noqa: TID253

from aft.errors import ModelError
from aft.sampling.draws import Draws
from aft.sampling.fallback import generate_by_transformers
from aft.sampling.room import positions
from aft.sampling.settings import SamplingSettings
from aft.sampling.slots import Admission, Slots

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

GREEDY = -1  # the sample index of a greedy response
_ROOM = 0.125  # share of the slots that is to be free before the next prompts are read: some at a time are read faster
_PROMPT_TOKENS = 8192  # that are read at a time, or one prompt
_reasons: "WeakKeyDictionary[PreTrainedModel, str | None]" = WeakKeyDictionary()  # why a model needs `fallback`


class Response(NamedTuple):
    """One generated response."""

    sample_index: int  # 0 ... k-1; -1 = greedy
    seed: int
    token_ids: list[int]  # as generated, the end-of-sequence token included if there is one
    finish_reason: Literal["stop", "length"]  # ended by itself, or cut at max_new_tokens
    sum_logprob: float  # of the tokens, at temperature 1


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, as token ids, and the id that its seeds follow from."""

    question_id: str
    prompt: Sequence[int]


def sample_indices(settings: SamplingSettings) -> list[int]:
    """Of the responses to each request, in their order: greedy first if wanted, then samples 0 ... k-1."""
    return [*([GREEDY] if settings.greedy else []), *range(settings.samples)]


def response_seed(run_seed: int, question_id: str, sample_index: int) -> int:
    """The seed of one response: 63 bits of a hash, independent of every other response."""
    text = f"{run_seed}\x1f{question_id}\x1f{sample_index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class _Part:
    """Responses to one prompt that are admitted together: all of them, if there are slots for so many."""

    prompt: Sequence[int]
    responses: range  # their numbers among all


@torch.inference_mode()
def generate(
    model: "PreTrainedModel",
    requests: Sequence[Request],
    settings: SamplingSettings,
    run_seed: int,
    end: int | Collection[int],
    known: Collection[int] | None = None,
) -> list[list[Response]]:
    """The responses to each request, greedy first if wanted, then samples 0 ... k-1, up to the end-of-sequence id.

    A model may have several (`end`; a negative one is none). Responses are of the `known` ids alone (None: of all).
    Raises `ModelError` if a response could outgrow the model's positions or the model is not causal, and
    `NumericalError` with the question id if the model gives logits that are not finite.
    """
    if not requests:
        return []
    _check_lengths(model, requests, settings.max_new_tokens)
    ends = {one for one in ([end] if isinstance(end, int) else end) if one >= 0}
    indices = sample_indices(settings)
    seeds = [response_seed(run_seed, request.question_id, index) for request in requests for index in indices]
    draws = Draws(
        torch.stack([_uniforms(seed, settings.max_new_tokens) for seed in seeds]).to(model.device),
        torch.tensor([index == GREEDY for _ in requests for index in indices], device=model.device),
        [request.question_id for request in requests for _ in indices],
        settings,
        ends,
        known,
    )
    parts = _parts(requests, len(indices), settings.batch_rows)
    reason = _why_not_slots(model)
    if reason is None:
        _generate_in_slots(model, parts, settings.batch_rows, draws)
    else:
        _tell(type(model).__name__, reason)
        _generate_in_turn(model, parts, settings.batch_rows, draws)
    responses = [
        Response(indices[i % len(indices)], seeds[i], tokens, "stop" if tokens[-1] in ends else "length", total)
        for i, (tokens, total) in enumerate(draws.finished())
    ]
    return [responses[i : i + len(indices)] for i in range(0, len(responses), len(indices))]


def _check_lengths(model: "PreTrainedModel", requests: Sequence[Request], max_new_tokens: int) -> None:
    limit = positions(model.config)
    for request in requests:
        if limit is not None and len(request.prompt) + max_new_tokens > limit:
            raise ModelError(
                f"{request.question_id} has a prompt of {len(request.prompt)} tokens, which with max_new_tokens="
                f"{max_new_tokens} is more than the model's {limit} positions; leave it out, or lower max_new_tokens."
            )


def _parts(requests: Sequence[Request], k: int, slots: int) -> list[_Part]:
    """Longest prompts first: prompts that are read together then differ little, and buffers need not grow for them."""
    longest_first = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
    return [
        _Part(requests[i].prompt, range(i * k + first, i * k + min(first + slots, k)))
        for i in longest_first
        for first in range(0, k, slots)
    ]


def _why_not_slots(model: "PreTrainedModel") -> str | None:
    """Why the model's attention cannot be replaced by that of `Slots`; found out once for every model."""
    from aft.scoring.causal import check_causal
    from aft.scoring.paths import why_not_packed

    if model not in _reasons:
        check_causal(model)
        _reasons[model] = why_not_packed(model)
    return _reasons[model]


@cache
def _tell(model_class: str, reason: str) -> None:
    logger.warning("%s is sampled from with its own generate, which takes longer: %s.", model_class, reason)


def _generate_in_turn(model: "PreTrainedModel", parts: Sequence[_Part], rows: int, draws: Draws) -> None:
    """Batch by batch of prompts of one length; a part has no more than `rows` rows."""
    for _, alike in groupby(parts, key=lambda part: len(part.prompt)):
        pairs = [(part.prompt, response) for part in alike for response in part.responses]
        for first in range(0, len(pairs), rows):
            prompts, responses = zip(*pairs[first : first + rows], strict=True)
            prompt_R_T, row_R = torch.tensor([list(prompt) for prompt in prompts]), torch.tensor(responses)
            generate_by_transformers(model, prompt_R_T.to(model.device), row_R.to(model.device), draws)


def _generate_in_slots(model: "PreTrainedModel", parts: Sequence[_Part], rows: int, draws: Draws) -> None:
    """Read prompts while there is room for their rows, else generate a token of every row, until no row is left."""
    from aft.scoring.attention import packed_rows

    waiting = list(reversed(parts))
    rows = min(rows, sum(len(part.responses) for part in parts))
    cells = max(len(part.responses) for part in parts)
    slots = Slots(rows, cells, limit=draws.tokens_R_T.shape[1] - 1, device=model.device)
    with packed_rows(model):
        while waiting or slots.rows:
            chosen = _next_parts(waiting, slots)
            if chosen:
                first, logits_N_V = _read_prompts(model, chosen, slots)
            else:
                first, logits_N_V = 0, _read_tokens(model, slots, draws)
            ended = draws.draw(logits_N_V, slots.response_R[first:], slots.length_R[first:])
            if any(ended):
                slots.retire([False] * first + ended)
            if not waiting:
                slots.capacity = slots.rows  # buffers that grow need no room for more


def _next_parts(waiting: list[_Part], slots: Slots) -> list[_Part]:
    """Take from the end of `waiting` what is to be admitted now; nothing while there is little room."""
    chosen: list[_Part] = []
    free, tokens = slots.free, 0
    if slots.rows and free < _ROOM * slots.capacity:
        return chosen
    while waiting and len(waiting[-1].responses) <= free:
        tokens += len(waiting[-1].prompt)
        if chosen and tokens > _PROMPT_TOKENS:
            break
        free -= len(waiting[-1].responses)
        chosen.append(waiting.pop())
    return chosen


def _read_prompts(model: "PreTrainedModel", parts: Sequence[_Part], slots: Slots) -> tuple[int, torch.Tensor]:
    """Admit the parts; the number of their first row, and logits [N, V] of the rows' first tokens."""
    from aft.scoring.attention import Span, SpanAttention

    tokens = [token for part in parts for token in part.prompt]
    lengths = torch.tensor([len(part.prompt) for part in parts])
    spans = [Span(len(part.prompt)) for part in parts]
    attention = SpanAttention(spans, model.device, kept=len(tokens))
    logits_Q_V = model(
        input_ids=torch.tensor([tokens], device=model.device),
        position_ids=torch.cat([torch.arange(len(part.prompt)) for part in parts])[None].to(model.device),
        use_cache=False,
        logits_to_keep=(lengths.cumsum(dim=0) - 1).to(model.device),
        spans=attention,
    ).logits[0]
    starts = (lengths.cumsum(dim=0) - lengths).tolist()
    first = slots.admit(
        attention.memory_out,
        [Admission(start, len(part.prompt), part.responses) for start, part in zip(starts, parts, strict=True)],
    )
    copies = torch.tensor([len(part.responses) for part in parts], device=model.device)
    return first, logits_Q_V.repeat_interleave(copies, dim=0)


def _read_tokens(model: "PreTrainedModel", slots: Slots, draws: Draws) -> torch.Tensor:
    """Logits [R, V] after the newest token of every row."""
    slots.prepare()
    logits_R_V = model(
        input_ids=draws.tokens_R_T[slots.response_R, slots.length_R, None],
        position_ids=slots.position_R[:, None],
        use_cache=False,
        spans=slots,
    ).logits[:, -1]
    slots.advance()
    return logits_R_V


def _uniforms(seed: int, count: int) -> torch.Tensor:
    """`count` uniform numbers in [0, 1) that follow from `seed` alone."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))
