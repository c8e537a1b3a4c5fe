"""The tokens of R responses as they are drawn, and how one is drawn from logits.

A token is the point where the cumulative distribution passes a uniform number, which is the response's own for each of
its tokens: what is drawn does not depend on how, when and beside what its logits are made.
"""

from collections.abc import Collection, Sequence

import torch  # noqa: TID253

from aft.errors import NumericalError
from aft.sampling.settings import SamplingSettings

_COLDEST = 1e-30  # lower temperatures count as this: only the most probable token is left, and 1 / it is a float32


class Draws:
    """R responses of up to T tokens; `names_R` says in errors whose they are.

    Only `known` ids are drawn (None: all), as if the logits of the others, which pad a vocabulary, were minus infinity.
    """

    def __init__(
        self,
        uniforms_R_T: torch.Tensor,
        greedy_R: torch.Tensor,
        names_R: Sequence[str],
        settings: SamplingSettings,
        ends: Collection[int],
        known: Collection[int] | None = None,
    ) -> None:
        self.uniforms_R_T, self.greedy_R, self.names_R = uniforms_R_T, greedy_R, names_R
        self.settings, self.ends, self.known = settings, ends, known
        self.end_E = torch.tensor(sorted(ends), dtype=torch.long, device=uniforms_R_T.device)
        self.tokens_R_T = torch.full_like(uniforms_R_T, -1, dtype=torch.long)  # -1: not drawn
        self.unknown_V: torch.Tensor | None = None  # once the logits tell how many ids there are
        self.sums_R = torch.zeros(len(names_R), dtype=torch.float64, device=uniforms_R_T.device)

    def draw(self, logits_N_V: torch.Tensor, row_N: torch.Tensor, step_N: torch.Tensor) -> list[bool]:
        """Draw token number `step_N` of the responses `row_N`; whether that was the last one of each.

        Raises `NumericalError` if logits are not finite; minus infinity is: it forbids a token.
        """
        logits_N_V = logits_N_V if logits_N_V.dtype == torch.float64 else logits_N_V.float()
        total_N = logits_N_V.logsumexp(dim=1)  # over unknown ids as well: the model's own distribution, as in scoring
        logits_N_V = self._without_unknown(logits_N_V)
        token_N = choose(logits_N_V, self.uniforms_R_T[row_N, step_N], self.greedy_R[row_N], self.settings)
        self.tokens_R_T[row_N, step_N] = token_N
        logprob_N = logits_N_V.gather(1, token_N[:, None]).squeeze(1).double() - total_N.double()
        self.sums_R[row_N] += logprob_N
        last_N = torch.isin(token_N, self.end_E) | (step_N + 1 == self.tokens_R_T.shape[1])
        last, finite = torch.stack([last_N, logprob_N.isfinite()]).tolist()  # the one wait for the device in each step
        if not all(finite):
            name = self.names_R[int(row_N[finite.index(False)])]
            raise NumericalError(f"The model gives logits that are not finite for {name}; it cannot be sampled from.")
        return last

    def finished(self) -> list[tuple[list[int], float]]:
        """The tokens of each response and the sum of their log-probabilities: temperature 1, no filter, all ids."""
        counts = (self.tokens_R_T >= 0).sum(dim=1).tolist()
        tokens = [row[:count] for row, count in zip(self.tokens_R_T.tolist(), counts, strict=True)]
        return list(zip(tokens, self.sums_R.tolist(), strict=True))

    def _without_unknown(self, logits_N_V: torch.Tensor) -> torch.Tensor:
        """The logits, minus infinity where an id is not known; themselves where all are."""
        if self.known is None:
            return logits_N_V
        if self.unknown_V is None:
            unknown_V = torch.ones(logits_N_V.shape[1], dtype=torch.bool)
            unknown_V[[one for one in self.known if one < len(unknown_V)]] = False
            if not unknown_V.any():
                self.known = None
                return logits_N_V
            self.unknown_V = unknown_V.to(logits_N_V.device)
        return logits_N_V.masked_fill(self.unknown_V, -torch.inf)


def choose(
    logits_N_V: torch.Tensor, uniform_N: torch.Tensor, greedy_N: torch.Tensor, settings: SamplingSettings
) -> torch.Tensor:
    """Tokens [N]: the most probable where greedy, elsewhere by temperature, then top-k, then top-p."""
    if not settings.samples:
        return logits_N_V.argmax(dim=-1)
    heated_N_V = logits_N_V
    if settings.temperature != 1:  # below the maximum, so that no temperature is too low
        temperature = max(settings.temperature, _COLDEST)
        heated_N_V = (logits_N_V - logits_N_V.amax(dim=-1, keepdim=True)) / temperature
    if settings.top_k is not None and settings.top_k < logits_N_V.shape[1]:
        least_N_1 = heated_N_V.topk(settings.top_k).values[:, -1:]
        heated_N_V = heated_N_V.masked_fill(heated_N_V < least_N_1, -torch.inf)  # as in transformers, equal ones stay
    weights_N_V = heated_N_V.softmax(dim=-1)
    if settings.top_p is not None and settings.top_p < 1:
        weights_N_V = _nucleus(weights_N_V, settings.top_p)
    cumulative_N_V = weights_N_V.cumsum(dim=-1)
    # Uniform numbers end below 1, so the threshold is below the total, and the token's own weight is above 0.
    threshold_N_1 = uniform_N[:, None] * cumulative_N_V[:, -1:]
    sampled_N = torch.searchsorted(cumulative_N_V, threshold_N_1, right=True).squeeze(1)
    sampled_N = sampled_N.clamp(max=logits_N_V.shape[1] - 1)  # only logits that are not finite lead beyond
    return torch.where(greedy_N, logits_N_V.argmax(dim=-1), sampled_N) if settings.greedy else sampled_N


def _nucleus(weights_N_V: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero but for the most probable tokens: those before which less than `top_p` lies."""
    sorted_N_V, token_N_V = weights_N_V.sort(dim=-1, descending=True, stable=True)
    before_N_V = torch.nn.functional.pad(sorted_N_V.cumsum(dim=-1)[:, :-1], (1, 0), value=-1.0)  # one stays in any case
    return torch.zeros_like(weights_N_V).scatter_(1, token_N_V, sorted_N_V.masked_fill(before_N_V >= top_p, 0))
