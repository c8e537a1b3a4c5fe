"""One question to the judge's server, its answer read defensively, and its failures in words for a person."""

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aft.errors import AftError, DataError, SettingsError, StoreError
from aft.feedback.judge_prompt import judge_messages
from aft.feedback.judge_settings import JudgeSettings
from aft.tasks import Question

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

_NO_KEY = "no-key-is-set"  # a server that needs no key takes any, and the client insists on one


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back for one question, and what it took."""

    text: str  # empty if there is none
    is_whole: bool  # False: there is no text, or it was cut at `max_tokens`
    retries: int  # how often the request was sent again
    prompt_tokens: int | None  # None: the server does not say
    completion_tokens: int | None


def open_client(settings: JudgeSettings) -> "AsyncOpenAI":
    """A client that sends failed requests again by itself, after the server's `Retry-After` or ever longer waits.

    Raises `SettingsError` if its package is missing or the key is none.
    """
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise SettingsError("A judge needs the package openai; run pip install 'aft[judge]'.") from error
    key = os.environ.get(settings.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):  # the client's own message would show it
        raise SettingsError(f"The environment variable {settings.api_key_env} holds no key; set it to the key alone.")
    return AsyncOpenAI(
        base_url=settings.base_url,
        api_key=key or _NO_KEY,
        max_retries=settings.retries,
        timeout=settings.timeout_s,
    )


async def complete(
    client: "AsyncOpenAI", settings: JudgeSettings, question: Question, response: str, seed: int
) -> Completion:
    """Ask for the rating of one response, once; raises what `rate_with_server` tells of."""
    from openai import APIError

    messages: Any = judge_messages(question, response)
    try:
        # Raw: a body that is not what it should be is a malformed answer here; there, it is anything from None to a
        # JSONDecodeError.
        raw = await client.chat.completions.with_raw_response.create(
            model=settings.model,
            messages=messages,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            seed=seed,
        )
    except APIError as error:
        # Without its cause: the server's own words may repeat the key.
        raise _explain(error, settings, client.api_key, question.question_id) from None
    body = _read_json(raw.http_response.content)
    text = _at(body, "choices", 0, "message", "content")
    is_text = isinstance(text, str)
    return Completion(
        text=text if is_text else "",
        # A cut answer may end in what its evidence quotes of the candidate, a rating among it.
        is_whole=is_text and _at(body, "choices", 0, "finish_reason") != "length",
        retries=raw.retries_taken,
        prompt_tokens=_count(_at(body, "usage", "prompt_tokens")),
        completion_tokens=_count(_at(body, "usage", "completion_tokens")),
    )


def _explain(error: "APIError", settings: JudgeSettings, key: str, question_id: str) -> AftError:
    """What a person can do about a request that failed for good."""
    import openai

    judge = f"The judge at {settings.base_url}"
    again = "finished ratings are kept, run the same command again"
    if isinstance(error, openai.APITimeoutError):
        return StoreError(f"{judge} was silent for {settings.timeout_s:g} s; raise timeout_s, or see to it; {again}.")
    if isinstance(error, openai.APIConnectionError):
        return StoreError(f"{judge} cannot be reached; start it or correct base_url; {again}.")
    if isinstance(error, openai.AuthenticationError):  # what the server says of it would name part of the key
        fault = "is not set" if key == _NO_KEY else "holds one that it refuses"
        return SettingsError(
            f"{judge} wants a key, but the environment variable {settings.api_key_env} {fault}; set it; {again}."
        )
    said = _words(error, key)
    if isinstance(error, openai.NotFoundError):
        return SettingsError(f"{judge} has no chat model {settings.model}{said}; correct model or base_url; {again}.")
    if isinstance(error, openai.PermissionDeniedError):
        return SettingsError(
            f"{judge} does not allow the model {settings.model} to the key in the environment variable "
            f"{settings.api_key_env}{said}; choose another model or key; {again}."
        )
    status = getattr(error, "status_code", "no status")
    if isinstance(error, openai.RateLimitError | openai.InternalServerError):
        return StoreError(
            f"{judge} still answers {status} after {settings.retries} retries{said}; wait, or lower concurrency; "
            f"{again}."
        )
    return DataError(
        f"{judge} refuses the request for a candidate of {question_id} with {status}{said}; choose settings that the "
        f"model takes, or leave the candidate out; {again}."
    )


def _words(error: "APIError", key: str) -> str:
    """The first line of what the server says about an error, in brackets and without the key; nothing if it is mute."""
    message = _at(error.body, "message")
    line = message.strip().split("\n", 1)[0].rstrip(".") if isinstance(message, str) else ""
    return f" ({line.replace(key, '***')[:200]})" if line else ""


def _read_json(content: bytes) -> Any:
    """What JSON says; None if it is not JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _at(value: Any, *path: str | int) -> Any:
    """What stands at a path of keys and positions in JSON; None if the path leads nowhere."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _count(value: Any) -> int | None:
    return value if type(value) is int else None
