"""Text to token ids and back; prompt and response are always encoded apart, so that their boundary never moves."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from aft.models.chat import Messages, Turn, chat_settings, conversation, prompt_style
from aft.tasks import Question, get_task
from aft.tasks.multiple_choice import with_options

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


def end_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id of the end-of-sequence token, with which every complete response ends."""
    return int(tokenizer.eos_token_id)  # type: ignore[arg-type]


def end_tokens(tokenizer: "PreTrainedTokenizerBase", generation: "GenerationConfig | None") -> frozenset[int]:
    """The ids of all tokens with which a response may end: the tokenizer's, and those of the model's own settings."""
    named: Any = None if generation is None else generation.eos_token_id
    more = named if isinstance(named, list) else [] if named is None else [named]
    return frozenset({end_token(tokenizer), *more})


def known_tokens(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The ids that stand for a token, added ones included; a model's vocabulary may be padded beyond or between."""
    return frozenset(tokenizer.get_vocab().values()) | tokenizer.added_tokens_decoder.keys()


def encode_question(tokenizer: "PreTrainedTokenizerBase", question: Question) -> list[int]:
    """Token ids of the prompt that asks a question, as the tokenizer's style and settings of the chat want it."""
    return encode_prompt(tokenizer, *_texts(tokenizer, question))


def render_question(tokenizer: "PreTrainedTokenizerBase", question: Question) -> str:
    """The same prompt as text: what a chat template makes of it, or, in the style "plain", the prompt of the task."""
    text, examples = _texts(tokenizer, question)
    return str(_chat(tokenizer, text, examples, tokenize=False)) if prompt_style(tokenizer) == "chat" else text


def messages_of(tokenizer: "PreTrainedTokenizerBase", question: Question) -> Messages:
    """The conversation that asks a question in the style "chat"."""
    text, examples = _texts(tokenizer, question)
    return conversation(chat_settings(tokenizer), examples, text)


def _texts(tokenizer: "PreTrainedTokenizerBase", question: Question) -> tuple[str, list[tuple[str, str]]]:
    """What is asked, and the examples before it: each question in the prompt of the task, or alone."""
    chat = chat_settings(tokenizer)

    def text(one: Question) -> str:
        return _question_alone(one) if chat.question_only else get_task(one.dataset).prompt(one)

    asked = with_options(question.question, question.choices or ())  # as it stands in a prompt of the question's own

    def example(turn: Turn) -> Question:
        prompt = question.prompt.replace(asked, turn.question)
        return replace(question, question=turn.question, choices=None, prompt=prompt)

    return text(question), [(text(example(turn)), turn.answer) for turn in chat.examples]


def _question_alone(question: Question) -> str:
    """The question as asked, with each option on a line of its own after it: "(A) 24"."""
    options = (f"\n({letter}) {text}" for letter, text in zip(ascii_uppercase, question.choices or (), strict=False))
    return f"{question.question}{''.join(options)}"


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", text: str, examples: Sequence[tuple[str, str]] = ()
) -> list[int]:
    """Token ids of a prompt, opening special tokens included and nothing after it.

    In the style "chat" the text is the message of a user, after those of the system and the examples (what is asked and
    what is answered), and all that opens the answer belongs to the prompt.
    """
    if prompt_style(tokenizer) == "chat":
        return list(_chat(tokenizer, text, examples, return_dict=False))
    ids = list(tokenizer(text)["input_ids"])  # type: ignore[arg-type]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _chat(tokenizer: "PreTrainedTokenizerBase", text: str, examples: Sequence[tuple[str, str]], **options: bool) -> Any:
    """What the chat template makes of a prompt."""
    chat = chat_settings(tokenizer)
    given: dict[str, Any] = {**chat.chat_template_kwargs, "add_generation_prompt": True, **options}
    return tokenizer.apply_chat_template(conversation(chat, examples, text), **given)


def encode_response(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a response and its end-of-sequence token."""
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], end_token(tokenizer)]  # type: ignore[list-item]


def decode_response(
    tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int], ends: Collection[int] | None = None
) -> str:
    """The text of a response as the token ids say it, blanks included, without the token that ends it.

    `ends` are the ids of such tokens (None: the tokenizer's end-of-sequence token).
    """
    ends = [end_token(tokenizer)] if ends is None else ends
    text_ids = token_ids[:-1] if token_ids and token_ids[-1] in ends else token_ids
    return str(tokenizer.decode(list(text_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def unscored_tokens(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> int:
    """How many first tokens of a response are read only, neither imitated nor scored.

    None, or under `learn_thoughts: false` those up to the end of the last `</think>`, the token that completes it
    included. A response without a `</think>` counts as a whole; of one that is over with its thought, the last token.
    """
    if chat_settings(tokenizer).learn_thoughts:
        return 0

    def closed(count: int) -> int:
        return decode_response(tokenizer, token_ids[:count]).count("</think>")

    whole = closed(len(token_ids))
    return min(bisect_left(range(len(token_ids)), whole, key=closed), len(token_ids) - 1) if whole else 0
