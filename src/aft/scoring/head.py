"""Log-probabilities from hidden states: only where a token is predicted, and never more logits than fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch  # noqa: TID253
from torch.utils.checkpoint import checkpoint  # noqa: TID253

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MOST_LOGITS = 2**25  # logits that are held at a time: 128 MiB in float32
_plain: "WeakKeyDictionary[PreTrainedModel, bool]" = WeakKeyDictionary()


class _Pick(torch.autograd.Function):
    """log softmax(logits)[target] of each row, in float32, keeping nothing but the logits for the way back."""

    @staticmethod
    def forward(ctx: Any, logits_N_V: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
        exact_N_V = logits_N_V if logits_N_V.dtype == torch.float64 else logits_N_V.float()
        total_N = exact_N_V.logsumexp(dim=1)
        ctx.save_for_backward(logits_N_V, target_N, total_N)
        return exact_N_V.gather(1, target_N[:, None]).squeeze(1) - total_N

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Upstream x (1 at the target - softmax)."""
        logits_N_V, target_N, total_N = ctx.saved_tensors
        weight_N_1 = upstream[0][:, None]
        gradient_N_V = (logits_N_V - total_N[:, None]).exp_().mul_(-weight_N_1)
        return gradient_N_V.scatter_add_(1, target_N[:, None], weight_N_1).to(logits_N_V.dtype), None


def pick_logprobs(logits_N_V: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """log P(target) of N rows of logits, float32 (float64 if the logits are)."""
    return _Pick.apply(logits_N_V, target_N)  # type: ignore[no-any-return]


def predicted_logprobs(
    model: "PreTrainedModel", place_N: torch.Tensor, target_N: torch.Tensor, **inputs: Any
) -> torch.Tensor:
    """log P(target) at N places of the one row of tokens that `inputs` describe; the head runs at these places only.

    Where all logits would be more than fit, they are made in chunks, and again on the way back.
    """
    rows = max(1, _MOST_LOGITS // model.config.get_text_config().vocab_size)
    if len(place_N) <= rows or not has_plain_head(model):
        logits_N_V = model(**inputs, logits_to_keep=place_N).logits[0]
        return pick_logprobs(logits_N_V, target_N)
    # A model whose weights are sharded has its own way, which puts them together first.
    in_chunks = getattr(model, "logprobs_in_chunks", None) or partial(logprobs_in_chunks, model)
    return in_chunks(place_N, target_N, rows, inputs)


def logprobs_in_chunks(
    model: "PreTrainedModel", place_N: torch.Tensor, target_N: torch.Tensor, rows: int, inputs: dict[str, Any]
) -> torch.Tensor:
    """The same with the logits of `rows` places at a time; the model must have a plain head."""
    hidden_N_H = model.get_decoder()(**inputs).last_hidden_state[0, place_N]
    head: Any = model.get_output_embeddings()

    def chunk(hidden_n_H: torch.Tensor, target_n: torch.Tensor) -> torch.Tensor:
        return pick_logprobs(head(hidden_n_H), target_n)

    pieces = zip(hidden_N_H.split(rows), target_N.split(rows), strict=True)
    return torch.cat([checkpoint(chunk, *piece, use_reentrant=False) for piece in pieces])  # type: ignore[list-item]


def has_plain_head(model: "PreTrainedModel") -> bool:
    """Whether the model's logits are nothing but its head applied to its decoder's output; tried out once."""
    if model not in _plain:
        _plain[model] = _try_head(model)
    return _plain[model]


@torch.no_grad()
def _try_head(model: "PreTrainedModel") -> bool:
    from aft.scoring.attention import Span, SpanAttention

    ids = torch.tensor([[1, 2, 3]], device=model.device)
    inputs = {"input_ids": ids, "position_ids": ids - 1, "use_cache": False}
    head: Any = model.get_output_embeddings()
    with evaluating(model):
        try:
            whole = model(**inputs, spans=SpanAttention([Span(3)], model.device)).logits
            hidden = model.get_decoder()(**inputs, spans=SpanAttention([Span(3)], model.device)).last_hidden_state
            return bool(torch.allclose(whole.float(), head(hidden).float(), rtol=1e-2, atol=1e-3))
        except (TypeError, AttributeError, RuntimeError):  # a decoder or a head of another kind
            return False


@contextmanager
def evaluating(model: "PreTrainedModel") -> Iterator[None]:
    """Within, every part of the model is in evaluation mode; afterwards each is in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
