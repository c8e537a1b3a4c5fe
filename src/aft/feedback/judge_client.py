"""One question to the judge's server, and its answer read defensively."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aft.feedback.judge_prompt import judge_messages
from aft.feedback.judge_settings import JudgeSettings
from aft.server import ErrorContext, at, only_choice, read_json, send
from aft.tasks import Question

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CONTEXT = ErrorContext(
    server="The judge",
    model="chat model",
    remedy="choose settings that the model takes (token_limit: max_completion_tokens, if it is max_tokens), or leave "
    "the candidate out",
    kept="finished ratings are kept",
)
_MOST_TOKENS = 10**9  # of one request: what a server counts beyond is no count


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back for one question, and what it took."""

    text: str  # empty if there is none
    is_whole: bool  # False: there is no text, or it was cut at `max_tokens`
    retries: int  # how often the request was sent again
    prompt_tokens: int | None  # None: the server does not say
    completion_tokens: int | None


async def complete(
    client: "AsyncOpenAI", settings: JudgeSettings, question: Question, response: str, seed: int
) -> Completion | None:
    """Ask for the rating of one response, once; None if it is too long for the judge.

    Raises what `rate_with_server` tells of.
    """
    messages: Any = judge_messages(question, response)
    limit: Any = {settings.token_limit: settings.max_tokens}
    # Raw: a body that is not what it should be is a malformed answer here; there, it is anything from None to a
    # JSONDecodeError.
    request = client.chat.completions.with_raw_response.create(
        model=settings.model, messages=messages, temperature=settings.temperature, seed=seed, **limit
    )
    raw = await send(request, settings, client.api_key, f"a candidate of {question.question_id}", _CONTEXT)
    if raw is None:
        return None
    body = read_json(raw.http_response.content)
    choice = only_choice(body)
    text = at(choice, "message", "content")
    is_text = isinstance(text, str)
    return Completion(
        text=text if is_text else "",
        # A cut answer may end in what its evidence quotes of the candidate, a rating among it.
        is_whole=is_text and at(choice, "finish_reason") != "length",
        retries=raw.retries_taken,
        prompt_tokens=_count(at(body, "usage", "prompt_tokens")),
        completion_tokens=_count(at(body, "usage", "completion_tokens")),
    )


def _count(value: Any) -> int | None:
    """A number of tokens; None if it is none that could be."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
