"""How a question is put into a model's chat template, and whether that template can be learnt with."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, field
from inspect import signature
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, get_args

from aft.checked import checked, read
from aft.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PromptStyle = Literal["plain", "chat"]
# Entries of a tokenizer's configuration, so that they are saved with the model, are in its fingerprint, and stay with
# whatever is trained from it.
STYLE_KEY, CHAT_KEY = "aft_prompt_style", "aft_chat"

_CHANGING = re.compile(r"\blipsum\b|\|\s*random\b|\bstrftime_now\b")  # all that makes one conversation two texts
_ASKED, _ANSWERED = "How many pens\nhas Mia?", "Mia has 4 pens.\n#### 4"
_THOUGHT = "<think>\nOne and three.\n</think>\n\n"


@checked
class Turn:
    """A question and its answer, shown before the question that is asked."""

    question: str  # as the task family writes it into its prompt
    answer: str


@checked
class ChatSettings:
    """What a chat prompt holds beside the question, and what of an answer is learnt; the defaults are the question."""

    system_prompt: str | None = None  # a message of the role system before all others
    examples: list[Turn] = field(default_factory=list)  # few-shot: turns of user and assistant before the question
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)  # as {enable_thinking: false}
    question_only: bool = False  # the user's message is the question with its options, not the task's whole prompt
    learn_thoughts: bool = True  # false: the tokens up to the last `</think>` are neither imitated nor scored

    @property
    def told(self) -> dict[str, Any]:
        """What differs from the defaults."""
        defaults = asdict(ChatSettings())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


Messages = list[dict[str, str]]


def prompt_style(tokenizer: "PreTrainedTokenizerBase") -> PromptStyle:
    """How the model wants its prompts; raises `ModelError` if its tokenizer's configuration names another style."""
    style = tokenizer.init_kwargs.get(STYLE_KEY, "plain")
    if style not in get_args(PromptStyle):
        known = " or ".join(get_args(PromptStyle))
        raise ModelError(f"The tokenizer's configuration says {STYLE_KEY}: {style!r}; it must be {known}.")
    return style


def chat_settings(tokenizer: "PreTrainedTokenizerBase") -> ChatSettings:
    """The settings of the model's chat prompts; raises `SettingsError` if its tokenizer's configuration has others."""
    return read(ChatSettings, tokenizer.init_kwargs.get(CHAT_KEY, {}), CHAT_KEY)


def conversation(chat: ChatSettings, examples: Sequence[tuple[str, str]], text: str) -> Messages:
    """The messages that ask `text`: those of the system and of the examples, then the user's."""
    system = [] if chat.system_prompt is None else [("system", chat.system_prompt)]
    turns = [message for asked, said in examples for message in (("user", asked), ("assistant", said))]
    return [{"role": role, "content": content} for role, content in (*system, *turns, ("user", text))]


def check_chat(tokenizer: "PreTrainedTokenizerBase", name: str, chat: ChatSettings | None = None) -> None:
    """Raise `ModelError` unless the chat template of the model `name` gives prompts that an answer can be learnt after.

    It must say the same every day, write what is said, and know what `chat` gives it. The prompt must be how a
    conversation begins, with the answer right behind it, but for blanks: a prompt must open an answer, or a thought and
    its answer, and open nothing else. And it must end an answer with the end-of-sequence token: a response ends with
    that one, and what the model learnt to end a turn with would never be written.
    """
    chat = chat or ChatSettings()
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # none, or several without a default one
        raise ModelError(
            f"The tokenizer of {name} has no chat template; set base_model.prompt_style to plain, or give the folder "
            "a chat_template.jinja."
        ) from error
    _check_arguments(tokenizer, template, name, chat)
    examples = [(turn.question, turn.answer) for turn in chat.examples]
    asked = conversation(chat, examples, _ASKED)

    def rendered(answer: str | None = None, **more: Any) -> str:
        answered = [] if answer is None else [{"role": "assistant", "content": answer}]
        given = {**chat.chat_template_kwargs, **more}
        return _rendered(tokenizer, [*asked, *answered], name, given, opened=answer is None)

    _refuse_change(template, name, rendered)
    prompt, whole = rendered(), rendered(_ANSWERED)
    said = [message["content"].rpartition("</think>")[2].strip() for message in asked]
    if not all(text in prompt for text in said) or _ANSWERED not in whole:
        raise ModelError(
            f"The chat template of {name} leaves out what is said; set base_model.prompt_style to plain, or mend it in "
            "a copy of the folder."
        )
    opens, answer = whole.startswith(prompt), _ANSWERED
    if not opens or whole[len(prompt) :].partition(_ANSWERED)[0].strip():
        thoughtful = rendered(_THOUGHT + _ANSWERED)  # a template may write an empty thought where there is none
        if thoughtful.startswith(prompt) and thoughtful[len(prompt) :].lstrip().startswith(_THOUGHT + _ANSWERED):
            opens, whole, answer = True, thoughtful, _THOUGHT + _ANSWERED
    if not opens:
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False)))
        raise ModelError(
            f"The chat template of {name} ends a prompt with {prompt[shared:]!r}, which is not before the answer "
            "in a conversation: what follows such a prompt is no answer yet; mend what it writes for "
            "add_generation_prompt in a copy of the folder, or set base_model.prompt_style to plain."
        )
    between, _, rest = whole[len(prompt) :].partition(answer)
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


def _check_arguments(tokenizer: "PreTrainedTokenizerBase", template: str, name: str, chat: ChatSettings) -> None:
    """Raise `ModelError` for an argument that the template does not read, or that says how it is applied."""
    own = signature(tokenizer.apply_chat_template).parameters.keys()
    for argument in chat.chat_template_kwargs:
        if argument in own or not re.search(rf"\b{re.escape(argument)}\b", template):
            raise ModelError(
                f"base_model.chat.chat_template_kwargs names {argument!r}, which the chat template of {name} does not "
                "read; leave it out, or name what it reads."
            )


def _refuse_change(template: str, name: str, rendered: Callable[..., str]) -> None:
    """Raise `ModelError` for a template that writes another text every time, or another date."""
    changing = _CHANGING.search(template)
    if changing is None:
        return
    days = [f"{{% macro strftime_now(form) %}}{day}{{% endmacro %}}{template}" for day in (1, 2)]
    if changing[0] == "strftime_now" and len({rendered(chat_template=one) for one in days}) == 1:
        return  # what it is given stands in place of the date
    raise ModelError(
        f"The chat template of {name} writes another text every time or day ({changing[0]}), so that no prompt "
        "could be had again; write a fixed text in its place, in a copy of the folder, or give the date that it asks "
        "for in base_model.chat.chat_template_kwargs."
    )


def _rendered(
    tokenizer: "PreTrainedTokenizerBase", messages: Messages, name: str, given: dict[str, Any], *, opened: bool
) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=opened, tokenize=False, **given))
    except Exception as error:  # a template raises what it likes
        reason = str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__
        raise ModelError(f"The chat template of {name} refuses a question and its answer: {reason}.") from error


def _first_token(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return str(tokenizer.convert_ids_to_tokens(ids)[0]) if ids else "nothing"  # type: ignore[arg-type, index]
