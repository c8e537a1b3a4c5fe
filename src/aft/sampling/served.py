"""Whether a server computes what the model's own weights compute, in the precision that is set."""

import logging
import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aft.errors import AftError
from aft.models.directory import ModelDirectory
from aft.models.tokens import encode_question
from aft.sampling.settings import Precision
from aft.tasks import Question

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# Nats per token within which two programs agree. vLLM in float32 was 1e-6 away, in bfloat16 6e-4 on average.
_FREE = ("SC_PAGE_SIZE", "SC_AVPHYS_PAGES")
_NEAR: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.05}


def compare_with_own(
    source: ModelDirectory, question: Question, responses: "pd.DataFrame", precision: Precision
) -> None:
    """Warn if the server's log-probabilities of the responses to `question` are not those of the model in `source`.

    The model is read on the CPU, as its card may be the server's, and not at all if it would take half of the memory
    that is free; the log says so, and whatever else keeps it from being read.
    """
    weights, known = sum(path.stat().st_size for path in source.path.glob("*.safetensors")), os.sysconf_names
    free = math.prod(map(os.sysconf, _FREE)) if known.keys() >= set(_FREE) else math.inf  # macOS does not tell
    if weights > free / 4:
        logger.info("The server's log-probabilities are not compared with the model's own: it would fill the memory.")
        return
    try:
        own = _sums(source, question, responses["token_ids"], precision)
    except (AftError, RuntimeError, MemoryError) as error:  # it only warns: what was sampled is worth more
        logger.warning("The server's log-probabilities are not compared with the model's own: %s", error)
        return
    distance = max(
        abs(mine - told) / len(ids)
        for mine, told, ids in zip(own, responses["sum_logprob"], responses["token_ids"], strict=True)
    )
    if not distance <= _NEAR[precision]:
        logger.warning(
            "The server's log-probabilities of %s are up to %.2g nats per token away from those of the model in %s in "
            "%s: it computes in another precision (vLLM: --dtype %s), changes them (--logprobs-mode), or serves other "
            "weights.",
            *(question.question_id, distance, source.path, precision, precision),
        )


def _sums(
    source: ModelDirectory, question: Question, responses: Iterable[Sequence[int]], precision: Precision
) -> list[float]:
    """Summed log-probability of each response, in nats."""
    import torch

    from aft.scoring.causal import check_causal
    from aft.scoring.naive import token_logprobs

    model, prompt = source.model(precision), encode_question(source.tokenizer(), question)
    check_causal(model)
    with torch.inference_mode():
        return [token_logprobs(model, [prompt], [list(map(int, ids))]).sums_R.item() for ids in responses]
