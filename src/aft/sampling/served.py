"""Whether a server computes what the model's own weights compute, in the precision that is set."""

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aft.models.directory import ModelDirectory
from aft.sampling.settings import Precision

if TYPE_CHECKING:
    from aft.sampling.engine import Request, Response

logger = logging.getLogger(__name__)

# Nats per token within which two programs agree. vLLM in float32 was 1e-6 away, in bfloat16 6e-4 on average.
_NEAR: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.05}


def compare_with_own(
    source: ModelDirectory, request: "Request", responses: Sequence["Response"], precision: Precision
) -> None:
    """Warn if the server's log-probabilities of one question's responses are not those of the model in `source`.

    The model is read on the CPU, as its card may be the server's, and not at all if it would take half of the memory.
    """
    import torch

    from aft.scoring.causal import check_causal
    from aft.scoring.naive import token_logprobs

    weights = sum(path.stat().st_size for path in source.path.glob("*.safetensors"))
    if not responses or weights > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 4:
        return
    model = source.model(precision)
    check_causal(model)
    with torch.inference_mode():
        own = [token_logprobs(model, [request.prompt], [one.token_ids]).sums_R.item() for one in responses]
    distance = max(abs(mine - one.sum_logprob) / len(one.token_ids) for mine, one in zip(own, responses, strict=True))
    if not distance <= _NEAR[precision]:
        logger.warning(
            "The server's log-probabilities of %s are up to %.2g nats per token away from those of the model in %s in "
            "%s: it computes in another precision (vLLM: --dtype %s), changes them (--logprobs-mode), or serves other "
            "weights.",
            *(request.question_id, distance, source.path, precision, precision),
        )
