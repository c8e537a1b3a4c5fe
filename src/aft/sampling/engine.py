"""The `transformers` engine: k responses per prompt; the prompt is read once, finished rows make room.

Each response has a seed of its own, hash(run seed, question id, sample index), from which all its random numbers are
drawn before the first token: which responses are generated side by side does not change what is drawn.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch  # noqa: TID253

from aft.errors import ModelError, NumericalError
from aft.sampling.settings import SamplingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GREEDY = -1
_RETIRE = 0.125  # share of ended rows at which they are taken out of the cache: each time copies what is left of it


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


def response_seed(run_seed: int, question_id: str, sample_index: int) -> int:
    """The seed of one response: 63 bits of a hash, independent of every other response."""
    text = f"{run_seed}\x1f{question_id}\x1f{sample_index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@torch.inference_mode()
def generate(
    model: "PreTrainedModel", requests: Sequence[Request], settings: SamplingSettings, run_seed: int, end: int
) -> list[list[Response]]:
    """The responses to each request, greedy first if wanted, then samples 0 ... k-1; `end` is the end-of-sequence id.

    Raises `ModelError` if a response could outgrow the model's positions, and `NumericalError` with the question id if
    the model gives logits that are not finite.
    """
    _check_lengths(model, requests, settings.max_new_tokens)
    indices = [*([_GREEDY] if settings.greedy else []), *range(settings.samples)]
    per_batch = max(1, settings.batch_rows // len(indices))
    by_length = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt))
    responses: list[list[Response]] = [[] for _ in requests]
    for first in range(0, len(requests), per_batch):
        chosen = by_length[first : first + per_batch]
        batch = _Batch(model, [requests[i] for i in chosen], indices, settings, run_seed, end)
        for i, answered in zip(chosen, batch.run(), strict=True):
            responses[i] = answered
    return responses


def _check_lengths(model: "PreTrainedModel", requests: Sequence[Request], max_new_tokens: int) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    for request in requests:
        if limit is not None and len(request.prompt) + max_new_tokens > limit:
            raise ModelError(
                f"{request.question_id} has a prompt of {len(request.prompt)} tokens, which with max_new_tokens="
                f"{max_new_tokens} is more than the model's {limit} positions; lower max_new_tokens."
            )


class _Batch:
    """The responses that are generated side by side: R = questions x samples rows, fewer as they finish."""

    def __init__(
        self,
        model: "PreTrainedModel",
        requests: Sequence[Request],
        indices: Sequence[int],
        settings: SamplingSettings,
        run_seed: int,
        end: int,
    ) -> None:
        self.model, self.requests, self.indices, self.settings, self.end = (
            model,
            requests,
            indices,
            settings,
            end,
        )
        self.seeds = [response_seed(run_seed, r.question_id, i) for r in requests for i in indices]
        self.tokens: list[list[int]] = [[] for _ in self.seeds]
        self.sums = torch.zeros(len(self.seeds), dtype=torch.float64)
        greedy_R = torch.tensor([i == _GREEDY for _ in requests for i in indices])
        uniforms_R_T = torch.stack([_uniforms(seed, settings.max_new_tokens) for seed in self.seeds])
        self.greedy_R, self.uniforms_R_T = greedy_R.to(model.device), uniforms_R_T.to(model.device)

    def run(self) -> list[list[Response]]:
        """Generate until every row has ended or is cut."""
        logits_R_V, attention_R_T, cache = self._prefill()
        alive = torch.arange(len(self.seeds), device=self.model.device)  # rows still in the cache
        ended_R = torch.zeros_like(alive, dtype=torch.bool)  # of those, the ones that only wait to be taken out
        for step in range(self.settings.max_new_tokens):
            chosen_R, logprob_R = self._choose(logits_R_V, alive, step)
            going = (~ended_R).nonzero().squeeze(1)
            self.sums[alive[going].cpu()] += logprob_R[going].double().cpu()
            for row, token in zip(alive[going].tolist(), chosen_R[going].tolist(), strict=True):
                self.tokens[row].append(token)
            ended_R |= chosen_R == self.end
            if ended_R.all() or step + 1 == self.settings.max_new_tokens:
                break
            if ended_R.float().mean() >= _RETIRE:
                keep = (~ended_R).nonzero().squeeze(1)
                alive, chosen_R, attention_R_T = alive[keep], chosen_R[keep], attention_R_T[keep]
                ended_R = ended_R[keep]
                cache.batch_select_indices(keep)
            attention_R_T = torch.nn.functional.pad(attention_R_T, (0, 1), value=1)
            logits_R_V = self.model(
                input_ids=chosen_R[:, None],
                attention_mask=attention_R_T,
                position_ids=attention_R_T.sum(dim=1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
        return self._responses()

    def _prefill(self) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Read each prompt once, left-padded, and give every one of its rows a copy of what was read."""
        from transformers import DynamicCache

        longest = max(len(request.prompt) for request in self.requests)
        padded = [[0] * (longest - len(r.prompt)) + list(r.prompt) for r in self.requests]
        mask = [[0] * (longest - len(r.prompt)) + [1] * len(r.prompt) for r in self.requests]
        input_Q_T = torch.tensor(padded, device=self.model.device)
        attention_Q_T = torch.tensor(mask, device=self.model.device)
        cache = DynamicCache(config=self.model.config)
        logits_Q_V = self.model(
            input_ids=input_Q_T,
            attention_mask=attention_Q_T,
            position_ids=(attention_Q_T.cumsum(dim=1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        copies = len(self.indices)
        cache.batch_repeat_interleave(copies)
        return logits_Q_V.repeat_interleave(copies, 0), attention_Q_T.repeat_interleave(copies, 0), cache

    def _choose(self, logits_R_V: torch.Tensor, alive: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The next token of each row, by inverting the cumulative distribution or greedily, and its log-probability."""
        logprobs_R_V = logits_R_V.float().log_softmax(dim=-1)
        broken_R = logprobs_R_V.isnan().any(dim=1)  # an infinite logit makes its row's log-softmax NaN, too
        if broken_R.any():
            name = self.requests[int(alive[broken_R][0]) // len(self.indices)].question_id
            raise NumericalError(f"The model gives logits that are not finite for {name}; it cannot be sampled from.")
        cumulative_R_V = (logprobs_R_V / self.settings.temperature).softmax(dim=-1).cumsum(dim=-1)
        threshold_R_1 = self.uniforms_R_T[alive, step, None] * cumulative_R_V[:, -1:]
        sampled_R = torch.searchsorted(cumulative_R_V, threshold_R_1, right=True).squeeze(1)
        sampled_R = sampled_R.clamp(max=logits_R_V.shape[1] - 1)
        chosen_R = torch.where(self.greedy_R[alive], logits_R_V.argmax(dim=-1), sampled_R)
        return chosen_R, logprobs_R_V.gather(1, chosen_R[:, None]).squeeze(1)

    def _responses(self) -> list[list[Response]]:
        k = len(self.indices)
        rows = [
            Response(
                sample_index=self.indices[row % k],
                seed=self.seeds[row],
                token_ids=tokens,
                finish_reason="stop" if tokens[-1] == self.end else "length",
                sum_logprob=float(self.sums[row]),
            )
            for row, tokens in enumerate(self.tokens)
        ]
        return [rows[i : i + k] for i in range(0, len(rows), k)]


def _uniforms(seed: int, count: int) -> torch.Tensor:
    """`count` uniform numbers in [0, 1) that follow from `seed` alone."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))
