"""OpenAI-compatible servers: how one is reached, concurrent requests, and its failures in words for a person."""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

from aft.bounds import Bounds, Must, counted
from aft.checked import checked
from aft.code import How
from aft.errors import AftError, DataError, SettingsError, StoreError

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

_Answer = TypeVar("_Answer")
_LONGEST_BODY = 2**26  # bytes: a longer answer is none
_TOO_LONG = re.compile(r"context[ _](?:length|size|window)|maximum model length", re.IGNORECASE)
_NO_KEY = "no-key-is-set"  # a server that needs no key takes any, and the client insists on one


def _is_plain_url(text: str) -> bool:
    """Whether an address is one of a web server and holds nothing secret."""
    try:
        url = urlsplit(text)
        secret = url.username is not None or url.password is not None or "?" in text or "#" in text
        named = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False
    return named and not secret and text.isprintable() and " " not in text


_Url = Annotated[
    str,
    Must(
        _is_plain_url,
        "be an http or https address such as http://localhost:8000/v1, without user, password, query or fragment; the "
        "key comes from the environment variable that api_key_env names",
    ),
]
_Model = Annotated[str, Must(bool, "name a model that the server at base_url serves")]
_Variable = Annotated[
    str, Must(re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch, "be the name of an environment variable, not the key")
]
Concurrency = Annotated[int, counted(most=10_000)]
_Retries = Annotated[int, counted(0, 1000)]
Timeout = Annotated[float, Bounds(0.001, 86_400)]


@checked
class Connection:
    """A model behind a server, and how patiently it is asked."""

    base_url: How[_Url]  # of the server, as in "http://localhost:8000/v1"
    model: _Model  # the name under which the server knows the model
    api_key_env: How[_Variable] = "OPENAI_API_KEY"  # the one that holds the key; unset where none is needed
    concurrency: How[Concurrency] = 8  # requests under way at a time
    retries: How[_Retries] = 5  # how often a request that failed is sent again, waiting longer each time
    timeout_s: How[Timeout] = 60.0  # how long the server may be silent, in seconds


@dataclass(frozen=True, slots=True)
class ErrorContext:
    """The words for a failed request that depend on who sends it."""

    server: str  # "The judge"
    model: str  # "chat model": of what kind the server lacks one
    remedy: str  # what to do about a refusal
    kept: str  # "finished ratings are kept": what is not lost


def open_client(connection: Connection) -> "AsyncOpenAI":
    """A client that sends failed requests again by itself, after the server's `Retry-After` or ever longer waits.

    Raises `SettingsError` if its package is missing or the key is none.
    """
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise SettingsError("A server needs the package openai; run pip install 'aft[judge]'.") from error
    key = os.environ.get(connection.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):  # the client's own message would show it
        raise SettingsError(f"The environment variable {connection.api_key_env} holds no key; set it to the key alone.")
    return AsyncOpenAI(
        base_url=connection.base_url,
        api_key=key or _NO_KEY,
        max_retries=connection.retries,
        timeout=connection.timeout_s,
    )


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run asynchronous work to its end, in a thread of its own where this one is in a loop already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(asyncio.run, work).result()


async def run_concurrently(
    works: Iterable[Coroutine[Any, Any, None]], most: int, done: Callable[[], object] = lambda: None
) -> None:
    """Do all the works, at most so many at a time, and call `done` after each that succeeds.

    The first failure ends all of it. A work is taken from the iterable when there is room for it, and none after a
    failure.
    """
    free = asyncio.Semaphore(most)

    def finish(task: asyncio.Task[None]) -> None:
        free.release()
        if not task.cancelled() and task.exception() is None:
            done()

    try:
        async with asyncio.TaskGroup() as group:
            works = iter(works)
            while True:
                await free.acquire()
                work = next(works, None)
                if work is None:
                    break
                group.create_task(work).add_done_callback(finish)
    except ExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__


async def send(
    request: Awaitable[_Answer], connection: Connection, key: str, what: str, context: ErrorContext
) -> _Answer | None:
    """The answer to a request for `what`, as in "a candidate of q7"; None if it is longer than the model's context.

    `key` is the one that the client has sent. Raises an `AftError` that says what a person can do about a failure.
    """
    from openai import APIError

    try:
        return await request
    except APIError as error:
        if _is_too_long(error):
            return None
        # Without its cause: the server's own words may repeat the key.
        raise _explained(error, connection, key, what, context) from None


def _explained(error: "APIError", connection: Connection, key: str, what: str, context: ErrorContext) -> AftError:
    import openai

    server, again = f"{context.server} at {connection.base_url}", f"{context.kept}, run the same command again"
    if isinstance(error, openai.APITimeoutError):
        silence = f"{connection.timeout_s:g} s"
        return StoreError(f"{server} was silent for {silence}; raise timeout_s, or see to it; {again}.")
    if isinstance(error, openai.APIConnectionError):
        if type(error.__cause__).__name__ == "ConnectError":  # of httpx or httpx2, whichever the client stands on
            return StoreError(
                f"{server} cannot be reached: nothing answers there; start it, wait until it has loaded its model, or "
                f"correct base_url; {again}."
            )
        return StoreError(f"{server} hung up when asked for {what}; its own log says why; start it again; {again}.")
    if isinstance(error, openai.AuthenticationError):  # what the server says of it would name part of the key
        fault = "is not set" if key == _NO_KEY else "holds one that it refuses"
        return SettingsError(
            f"{server} wants a key, but the environment variable {connection.api_key_env} {fault}; set it; {again}."
        )
    said = _words(error, key)
    if isinstance(error, openai.NotFoundError):
        return SettingsError(
            f"{server} has no {context.model} {connection.model}{said}; correct model or base_url; {again}."
        )
    if isinstance(error, openai.PermissionDeniedError):
        return SettingsError(
            f"{server} does not allow the model {connection.model} to the key in the environment variable "
            f"{connection.api_key_env}{said}; choose another model or key; {again}."
        )
    status = getattr(error, "status_code", "no status")
    if isinstance(error, openai.RateLimitError | openai.InternalServerError):
        return StoreError(
            f"{server} still answers {status} after {connection.retries} retries{said}; wait, or lower concurrency; "
            f"{again}."
        )
    return DataError(f"{server} refuses the request for {what} with {status}{said}; {context.remedy}; {again}.")


def _is_too_long(error: "APIError") -> bool:
    """Whether a request is refused as longer than the model's context: in OpenAI's, vLLM's or llama.cpp's words."""
    words = [at(error.body, name) for name in ("code", "type", "message")]
    refused = getattr(error, "status_code", None) in (400, 413, 422)
    return refused and any(isinstance(one, str) and _TOO_LONG.search(one) is not None for one in words)


def read_json(content: bytes) -> Any:
    """What JSON says; None if it is not JSON, or far too long for an answer."""
    try:
        return json.loads(content) if len(content) <= _LONGEST_BODY else None
    except (ValueError, RecursionError):
        return None


def only_choice(body: Any) -> Any:
    """The one choice of a completion; None if there are several, or none."""
    choices = at(body, "choices")
    is_one = isinstance(choices, list) and len(choices) == 1 and at(choices, 0, "index") in (None, 0)
    return choices[0] if is_one else None


def at(value: Any, *path: str | int) -> Any:
    """What stands at a path of keys and positions in JSON; None if the path leads nowhere."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _words(error: "APIError", key: str) -> str:
    """The first line of what the server says about an error, in brackets and without the key; nothing if it is mute."""
    message = at(error.body, "message")
    line = message.strip().split("\n", 1)[0].rstrip(".") if isinstance(message, str) else ""
    shown = line.replace(key, "***")[:200]
    return f" ({''.join(one if one.isprintable() else '?' for one in shown)})" if line else ""
