"""The reference path: each row is prompt + response, right-padded, through the model in one piece.

Every faster path must give the same numbers as this one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch  # noqa: TID253

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TokenLogprobs(NamedTuple):
    """Log-probabilities of R responses of up to C tokens, right-padded."""

    logprobs_R_C: torch.Tensor  # float32 (float64 if the model is), 0 where padded
    mask_R_C: torch.Tensor  # bool, True on the tokens of the response, its end-of-sequence token included

    @property
    def sums_R(self) -> torch.Tensor:
        """Sum over the tokens of each response."""
        return self.logprobs_R_C.sum(dim=1)

    @property
    def lengths_R(self) -> torch.Tensor:
        """Number of tokens of each response."""
        return self.mask_R_C.sum(dim=1)

    @property
    def scores_R(self) -> torch.Tensor:
        """Scores s (Eq. 2): the mean log-probability of a response's tokens, at most 0."""
        return self.sums_R / self.lengths_R


def token_logprobs(
    model: "PreTrainedModel", prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> TokenLogprobs:
    """Log P(response token | prompt, earlier response tokens) for R rows of token ids.

    Raises `ValueError` for a row without a prompt or a response token: it has no score.
    """
    rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    if not all(map(len, (*prompts, *responses))):
        raise ValueError("A prompt or a response without tokens has no score.")
    # Rows are padded on the right and attention is causal: no real token sees a padded one; no mask is needed.
    input_R_T = _padded(rows, model.device)
    logits_R_T_V = model(input_ids=input_R_T, use_cache=False).logits

    first_R_1 = torch.tensor([len(prompt) for prompt in prompts], device=model.device)[:, None]
    length_R_1 = torch.tensor([len(response) for response in responses], device=model.device)[:, None]
    offset_1_C = torch.arange(int(length_R_1.max()), device=model.device)[None, :]
    mask_R_C = offset_1_C < length_R_1
    # Padding points at a real token, then is zeroed.
    place_R_C = torch.where(mask_R_C, first_R_1 + offset_1_C, first_R_1)

    row_R_1 = torch.arange(len(rows), device=model.device)[:, None]
    predicted_R_C_V = logits_R_T_V[row_R_1, place_R_C - 1]  # the logits before a token predict it
    if predicted_R_C_V.dtype != torch.float64:
        predicted_R_C_V = predicted_R_C_V.float()
    target_R_C = input_R_T[row_R_1, place_R_C]
    logprobs_R_C = predicted_R_C_V.log_softmax(dim=-1).gather(2, target_R_C[:, :, None]).squeeze(2)
    return TokenLogprobs(logprobs_R_C.masked_fill(~mask_R_C, 0.0), mask_R_C)


def _padded(rows: list[list[int]], device: torch.device) -> torch.Tensor:
    """Token ids of R rows, right-padded with 0 (which token pads does not matter)."""
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
