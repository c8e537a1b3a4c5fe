"""Whether a model is causal: whether a token's log-probability depends on the tokens before it only."""

from typing import TYPE_CHECKING

import torch  # noqa: TID253

from aft.errors import ModelError
from aft.scoring.head import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LENGTH = 8  # tokens of the trial
# What rounding may move an earlier log-probability by, as a share of what the changed token moves the ones after it by:
# nothing as a rule, but experts, to whom tokens are dealt out, may sum in another order.
_EXACT, _HALF = 1e-5, 0.05


@torch.no_grad()
def check_causal(model: "PreTrainedModel") -> None:
    """Raise `ModelError` if a log-probability depends on a later token: if another last token moves an earlier one.

    A trial of two passes over a few tokens. Such a model, an encoder as a rule, has seen the token that it is asked
    for, so that scores of responses, the loss of training and sampling mean nothing.
    """
    vocabulary = model.config.get_text_config().vocab_size
    one = torch.arange(1, _LENGTH + 1, device=model.device)[None] * 7919 % vocabulary  # neither equal nor in order
    other = one.clone()
    other[0, -1] = (one[0, -1] + vocabulary // 2) % vocabulary
    with evaluating(model):
        before, after = (
            model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1) for ids in (one, other)
        )
    *earlier, own = (after - before).abs().amax(dim=-1).tolist()
    tolerance = _EXACT if model.dtype in (torch.float32, torch.float64) else _HALF
    if max(earlier) > tolerance * own:  # not where one is NaN: broken weights are another fault
        raise ModelError(
            f"{type(model).__name__} is no causal language model: the log-probability of a token depends on the tokens "
            f"after it (another last token moves it by {max(earlier):.2g}); give a decoder."
        )
