"""Any decoder of transformers, by its own `generate`: slower, with the same tokens from the same random numbers."""

from typing import TYPE_CHECKING

import torch  # noqa: TID253

from aft.sampling.draws import Draws

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def generate_by_transformers(
    model: "PreTrainedModel", prompts: torch.Tensor, row_R: torch.Tensor, draws: Draws
) -> None:
    """Draw the responses `row_R` to prompts [R, T] of one length: without padding, every decoder is exact."""
    from transformers import GenerationConfig, LogitsProcessorList

    before = model.generation_config
    model.generation_config = GenerationConfig()  # a penalty or a bound in the model's own would change the logits
    try:
        model.generate(  # type: ignore[operator]
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            max_new_tokens=draws.tokens_R_T.shape[1],
            eos_token_id=sorted(draws.ends) or None,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([_Drawing(draws, row_R)]),
        )
    finally:
        model.generation_config = before


class _Drawing:
    """Draws each row's next token and forbids all others, so that a greedy search follows it."""

    def __init__(self, draws: Draws, row_R: torch.Tensor) -> None:
        self.draws, self.row_R = draws, row_R
        self.live_R = torch.ones_like(row_R, dtype=torch.bool)
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [R, V] that leave the drawn tokens only; rows that have ended are padded, whatever theirs are."""
        row_N = self.row_R[self.live_R]
        ended = self.draws.draw(scores[self.live_R], row_N, torch.full_like(row_N, self.step))
        allowed = torch.full_like(scores, -torch.inf)
        allowed[self.live_R, self.draws.tokens_R_T[row_N, self.step]] = 0
        self.live_R[self.live_R.clone()] = ~torch.tensor(ended, device=scores.device)
        self.step += 1
        return allowed
