"""Which prompts leave room for a response within the positions of a model."""

import logging
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft.directories import remembered
from aft.errors import DataError
from aft.files import digest
from aft.models.directory import ModelDirectory
from aft.models.tokens import encode_question
from aft.tasks import Question, own_code

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

logger = logging.getLogger(__name__)

_ROOMS = ("models", "sampling/room.py", "tasks")  # whose code decides how long a prompt is
_NAMED = 3  # questions that a sentence names


def positions(config: "PreTrainedConfig") -> int | None:
    """How many tokens of prompt and response a model has places for; None: it has no bound, as a recurrent one."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def with_room(
    source: ModelDirectory, questions: Sequence[Question], max_new_tokens: int, cache: Path
) -> list[Question]:
    """The questions whose prompts leave room for `max_new_tokens`; the others are counted and named in the log.

    Reads the model's configuration and tokenizer, no weights, once: what they said of these questions is kept in
    `cache`. Raises `DataError` if no question is left.
    """
    follows_from = [*map(astuple, questions), own_code(one.dataset for one in questions)]
    description = {"kind": "lengths of prompts", "model": source.fingerprint, "of": digest(follows_from)}
    told = remembered(cache, description, lambda: _lengths(source, questions), *_ROOMS)
    limit, lengths = told["limit"], told["lengths"]
    if limit is None:
        return list(questions)
    room = limit - max_new_tokens
    if min(lengths) > room:
        raise DataError(
            f"All {len(questions)} questions are too long: the shortest prompt has {min(lengths)} tokens, which with "
            f"max_new_tokens={max_new_tokens} is more than the {limit} positions of the model in {source.path}; lower "
            "max_new_tokens, or take a model with more positions."
        )
    long = [one.question_id for one, length in zip(questions, lengths, strict=True) if length > room]
    if long:
        logger.warning(
            "%d of %d questions are left out (%s): their prompts with max_new_tokens=%d are more than the model's %d "
            "positions.",
            *(len(long), len(questions), named(long), max_new_tokens, limit),
        )
    return [one for one, length in zip(questions, lengths, strict=True) if length <= room]


def _lengths(source: ModelDirectory, questions: Sequence[Question]) -> dict[str, Any]:
    """How many positions the model has, and if it is a number, how many tokens each prompt has."""
    limit = positions(source.config()) if questions else None
    if limit is None:
        return {"limit": None, "lengths": []}
    tokenizer = source.tokenizer()
    return {"limit": limit, "lengths": [len(encode_question(tokenizer, one)) for one in questions]}


def named(question_ids: Sequence[str]) -> str:
    """The first few of some ids."""
    return ", ".join(question_ids[:_NAMED]) + (" ..." if len(question_ids) > _NAMED else "")
