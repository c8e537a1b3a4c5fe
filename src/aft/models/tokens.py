"""Text to token ids and back; prompt and response are always encoded apart, so that their boundary never moves."""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, get_args

from aft.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PromptStyle = Literal["plain", "chat"]
# An entry of a tokenizer's configuration, so that it is saved with the model, is in its fingerprint, and stays with
# whatever is trained from it.
STYLE_KEY = "aft_prompt_style"

_CHANGING = re.compile(r"\bstrftime_now\b|\blipsum\b|\|\s*random\b")  # all that makes one conversation two texts
_ASKED, _ANSWERED = "How many pens\nhas Mia?", "Mia has 4 pens.\n#### 4"


def prompt_style(tokenizer: "PreTrainedTokenizerBase") -> PromptStyle:
    """How the model wants its prompts; raises `ModelError` if its tokenizer's configuration names another style."""
    style = tokenizer.init_kwargs.get(STYLE_KEY, "plain")
    if style not in get_args(PromptStyle):
        known = " or ".join(get_args(PromptStyle))
        raise ModelError(f"The tokenizer's configuration says {STYLE_KEY}: {style!r}; it must be {known}.")
    return style


def end_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id of the end-of-sequence token, with which every complete response ends."""
    return int(tokenizer.eos_token_id)  # type: ignore[arg-type]


def known_tokens(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The ids that stand for a token, added ones included; a model's vocabulary may be padded beyond or between."""
    return frozenset(tokenizer.get_vocab().values()) | tokenizer.added_tokens_decoder.keys()


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a prompt, opening special tokens included and nothing after it.

    In the style "chat" the text is the one message of a user, and all that opens the answer belongs to the prompt.
    """
    if prompt_style(tokenizer) == "chat":
        message = [{"role": "user", "content": text}]
        return list(tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))  # type: ignore[arg-type]
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


def check_chat(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Raise `ModelError` unless the chat template of the model `name` gives prompts that an answer can be learnt after.

    It must say the same every day and write what is said. The prompt must be how a conversation begins, with the answer
    right behind it, but for blanks: a prompt must open an answer, and open nothing else, such as a thought. And it must
    end an answer with the end-of-sequence token: a response ends with that one, and what the model learnt to end a turn
    with would never be written.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # none, or several without a default one
        raise ModelError(
            f"The tokenizer of {name} has no chat template; set base_model.prompt_style to plain, or give the folder "
            "a chat_template.jinja."
        ) from error
    changing = _CHANGING.search(template)
    if changing:
        raise ModelError(
            f"The chat template of {name} writes another text every time or day ({changing[0]}), so that no prompt "
            "could be had again; write a fixed text in its place, in a copy of the folder."
        )
    asked = [{"role": "user", "content": _ASKED}]
    prompt = _rendered(tokenizer, asked, name, opened=True)
    whole = _rendered(tokenizer, [*asked, {"role": "assistant", "content": _ANSWERED}], name, opened=False)
    if _ASKED not in prompt or _ANSWERED not in whole:
        raise ModelError(
            f"The chat template of {name} leaves out what is said; set base_model.prompt_style to plain, or mend it in "
            "a copy of the folder."
        )
    if not whole.startswith(prompt):
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False)))
        raise ModelError(
            f"The chat template of {name} ends a prompt with {prompt[shared:]!r}, which is not before the answer "
            "in a conversation: what follows such a prompt is no answer yet; mend what it writes for "
            "add_generation_prompt in a copy of the folder, or set base_model.prompt_style to plain."
        )
    between, _, rest = whole[len(prompt) :].partition(_ANSWERED)
    if between.strip():
        raise ModelError(
            f"The chat template of {name} writes {between!r} between a prompt and its answer, so that its prompt does "
            "not open an answer; mend what it writes for add_generation_prompt in a copy of the folder, or set "
            "base_model.prompt_style to plain."
        )
    rest = rest.strip()
    if not rest.startswith(str(tokenizer.eos_token)):
        raise ModelError(
            f"The chat template of {name} ends an answer with {_first_token(tokenizer, rest)}, but the tokenizer's "
            f"end-of-sequence token is {tokenizer.eos_token}: set eos_token to what ends an answer, in the "
            "tokenizer_config.json of a copy of the folder."
        )


def _rendered(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, str]], name: str, *, opened: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=opened, tokenize=False))
    except Exception as error:  # a template raises what it likes
        reason = str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__
        raise ModelError(f"The chat template of {name} refuses a question and its answer: {reason}.") from error


def _first_token(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return str(tokenizer.convert_ids_to_tokens(ids)[0]) if ids else "nothing"  # type: ignore[arg-type, index]
