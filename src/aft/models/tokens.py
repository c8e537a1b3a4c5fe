"""Text to token ids and back. Prompt and response are always encoded apart, so that their boundary is the same everywhere."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a prompt, opening special tokens included and nothing after it."""
    ids = list(tokenizer(text)["input_ids"])  # type: ignore[arg-type]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def encode_response(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a response and its end-of-sequence token."""
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]  # type: ignore[list-item]


def decode_response(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> str:
    """The text of a response, without the end-of-sequence token."""
    end = tokenizer.eos_token_id
    text_ids = token_ids[:-1] if token_ids and token_ids[-1] == end else token_ids
    return str(tokenizer.decode(list(text_ids), skip_special_tokens=False))
