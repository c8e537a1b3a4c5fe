"""Log-probabilities of single tokens, for people to look at: which step of a response a model believes, which not."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from aft.errors import NumericalError
from aft.models.directory import ModelDirectory, on_device
from aft.models.tokens import encode_question
from aft.scoring.groups import Group
from aft.tasks import Question

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

_REPLACED = "\ufffd"  # what stands for the bytes of a character that has not ended yet


def token_logprobs(
    source: ModelDirectory,
    question: Question,
    responses: Sequence[Sequence[int]],
    precision: str = "float32",
) -> "list[np.ndarray]":
    """Log P(token | prompt, earlier tokens) of each token of each response to `question`, in nats: one array [C] each.

    The mean of an array is the score (Eq. 2) that `aft.scoring.responses` gives. Responses, given as token ids, go
    through the model one by one, on the reference path.

    Raises `DataError` for a response without tokens, `ModelError` if the model is not causal, `NumericalError` if a
    log-probability is not finite.
    """
    import torch

    from aft.scoring.causal import check_causal
    from aft.scoring.naive import token_logprobs as naive_logprobs

    prompt = encode_question(source.tokenizer(), question)
    group = Group(prompt, [[int(token) for token in response] for response in responses])
    model = on_device(source.model(precision))
    check_causal(model)
    with torch.no_grad():
        rows = [naive_logprobs(model, [prompt], [ids]).logprobs_R_C[0].double().cpu() for ids in group.responses]
    if not all(bool(row.isfinite().all()) for row in rows):
        raise NumericalError(
            f"The model in {source.path} gives log-probabilities that are not finite to responses to "
            f"{question.question_id}; check the model."
        )
    return [row.numpy() for row in rows]


def token_texts(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> list[str]:
    """The piece of text that each token adds; together they are the text of all tokens, special ones included.

    A character whose bytes lie in several tokens belongs to the last of them, and the others add nothing.
    """
    ids = [int(token) for token in token_ids]
    whole = _decode(tokenizer, ids)
    ends = [0]
    for count in range(1, len(ids)):
        so_far = _decode(tokenizer, ids[:count]).rstrip(_REPLACED)
        ends.append(max(ends[-1], min(len(so_far), len(whole))))
    ends.append(len(whole))
    return [whole[start:end] for start, end in pairwise(ends)] if ids else []


def _decode(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
