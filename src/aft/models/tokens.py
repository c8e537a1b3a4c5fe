"""Text to token ids and back; prompt and response are always encoded apart, so that their boundary never moves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def end_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id of the end-of-sequence token, with which every complete response ends."""
    return int(tokenizer.eos_token_id)  # type: ignore[arg-type]


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a prompt, opening special tokens included and nothing after it."""
    ids = list(tokenizer(text)["input_ids"])  # type: ignore[arg-type]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def encode_response(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a response and its end-of-sequence token."""
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], end_token(tokenizer)]  # type: ignore[list-item]


def decode_response(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> str:
    """The text of a response as the token ids say it, blanks included, without the end-of-sequence token."""
    end = tokenizer.eos_token_id
    text_ids = token_ids[:-1] if token_ids and token_ids[-1] == end else token_ids
    return str(tokenizer.decode(list(text_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
