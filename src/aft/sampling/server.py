"""The `server` engine: responses of a model that an OpenAI-compatible server serves, as vLLM does.

Prompts are sent as token ids, and of a response the token ids are kept that the server says it drew (vLLM does, with
`return_token_ids`): text that is encoded again may become other tokens. Where a server tells none, its text is encoded,
and believed if that is as many tokens as were drawn and gives the same text back; its end then counts as the
tokenizer's. Responses that are not told in tokens are left out, and so are those with tokens that the tokenizer does
not know, which the local engine never draws, and those that the server refuses as longer than its context.

Each response has the seed that it has in the local engine; but a server batches as it likes, so that its samples cannot
be had again bit by bit. Log-probabilities count as those at temperature 1 before any filter: vLLM's are, unless it was
started with another `--logprobs-mode`. `served` compares some with those of the model's folder.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from aft.errors import DataError, StoreError
from aft.models.tokens import decode_response, encode_response, known_tokens
from aft.sampling.engine import GREEDY, Request, Response, response_seed, sample_indices
from aft.sampling.room import named
from aft.sampling.settings import SamplingSettings, ServerSettings
from aft.server import ErrorContext, at, only_choice, open_client, read_json, run, run_concurrently, send

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_CONTEXT = ErrorContext(
    server="The server",
    model="model",
    remedy="choose settings that it takes, or serve the model with more room (vLLM: --max-model-len)",
    kept="finished shards are kept",
)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, as JSON may hold one: tokenizers take whole ones only
_LEAST, _MOST = -1e6, 1e-3  # of what counts as a log-probability: rounding may lift one above 0


class LeftOut(Enum):
    """Why a request has no response."""

    NO_TOKEN_IDS = "the server does not tell their tokens, and their texts do not either"
    UNKNOWN_TOKENS = "they hold tokens that the tokenizer does not know"
    TOO_LONG = "their prompts leave no room for max_new_tokens in the server's context (vLLM: --max-model-len)"
    CUT = "the server cut them before max_new_tokens (vLLM: --max-model-len)"


def ask_server(
    server: ServerSettings,
    tokenizer: "PreTrainedTokenizerBase",
    requests: Sequence[Request],
    settings: SamplingSettings,
    run_seed: int,
    ends: frozenset[int],
) -> list[list[Response]]:
    """The responses to each request, greedy first if wanted, then samples; what is left out is counted in the log.

    `ends` are the ids of the tokens that end a response, as in the local engine.

    Raises `StoreError` if the server cannot be reached or its answers are no completions, `SettingsError` for a key or
    a model that it refuses, and `DataError` if it refuses a request for another reason than its length, or tells no
    response at all in tokens.
    """
    indices = sample_indices(settings)
    answers: dict[tuple[int, int], Response | LeftOut] = {}

    async def ask_all() -> None:
        async with open_client(server) as client:
            completions = _CompletionClient(client, server, tokenizer, settings, ends)
            completions.room = await completions.context()

            async def ask(number: int, index: int) -> None:
                seed = response_seed(run_seed, requests[number].question_id, index)
                answers[number, index] = await completions.ask(requests[number], index, seed)

            works = (ask(number, index) for number in range(len(requests)) for index in indices)
            await run_concurrently(works, server.concurrency)

    run(ask_all())
    _log_left_out(answers, requests, server)
    return [
        [answer for index in indices if isinstance(answer := answers[number, index], Response)]
        for number in range(len(requests))
    ]


def _log_left_out(
    answers: Mapping[tuple[int, int], Response | LeftOut], requests: Sequence[Request], server: ServerSettings
) -> None:
    """Log how many responses are left out, to which questions and why; `DataError` if none is told in tokens."""
    for reason in LeftOut:
        missing = sorted(key for key, answer in answers.items() if answer is reason)
        if not missing:
            continue
        if reason is LeftOut.NO_TOKEN_IDS and len(missing) == len(answers):
            raise DataError(
                f"The server at {server.base_url} does not tell which tokens it drew, and none of {len(missing)} texts "
                "can be had again from its tokens; use one that knows return_token_ids, such as vLLM."
            )
        asked = named(list(dict.fromkeys(requests[number].question_id for number, _ in missing)))
        told = len(missing), len(answers), asked, reason.value
        logger.warning("%d of %d responses are left out (%s): %s.", *told)


class _CompletionClient:
    """Asks for responses, one for each request, and reads what comes defensively."""

    def __init__(
        self,
        client: "AsyncOpenAI",
        server: ServerSettings,
        tokenizer: "PreTrainedTokenizerBase",
        settings: SamplingSettings,
        ends: frozenset[int],
    ) -> None:
        self.client, self.server, self.tokenizer, self.settings = client, server, tokenizer, settings
        self.ends, self.known = ends, known_tokens(tokenizer)
        self.room: int | None = None  # tokens of prompt and response that the server takes, if it tells

    async def context(self) -> int | None:
        """How many tokens of prompt and response the server takes, as vLLM's list of models tells; else None."""
        from openai import APIStatusError

        async def listed() -> bytes:
            try:
                return (await self.client.models.with_raw_response.list()).http_response.content
            except APIStatusError:  # it has no such list; what else it lacks shows with the first response
                return b""

        content = await send(listed(), self.server, self.client.api_key, "the list of its models", _CONTEXT)
        models = at(read_json(content or b""), "data")
        served = [one for one in models if at(one, "id") == self.server.model] if isinstance(models, list) else []
        told = at(served, 0, "max_model_len")
        return told if type(told) is int and told > 0 else None

    async def ask(self, request: Request, index: int, seed: int) -> Response | LeftOut:
        """One response, or why there is none. Answers that are none are asked for again, like faults."""
        if self.room is not None and len(request.prompt) + self.settings.max_new_tokens > self.room:
            return LeftOut.TOO_LONG
        choice: Any = None
        for _ in range(self.server.retries + 1):
            # Raw: see the judge's client; a body may be anything.
            call = self.client.completions.with_raw_response.create(**self._body(request, index, seed))
            what = f"a response to {request.question_id}"
            raw = await send(call, self.server, self.client.api_key, what, _CONTEXT)
            if raw is None:
                return LeftOut.TOO_LONG
            choice = only_choice(read_json(raw.http_response.content))
            answer = self._read(choice, index, seed)
            if answer is not None:
                return answer
        raise StoreError(
            f"The server at {self.server.base_url} answers for {request.question_id} with what is no completion "
            f"({self._fault(choice)}); finished shards are kept: see to it, and run the same command again."
        )

    def _body(self, request: Request, index: int, seed: int) -> dict[str, Any]:
        """What is asked; all that a server may have a default of its own for is said."""
        settings = self.settings
        return {
            "model": self.server.model,
            "prompt": list(request.prompt),
            "max_tokens": settings.max_new_tokens,
            "temperature": 0.0 if index == GREEDY else settings.temperature,
            "top_p": 1.0 if settings.top_p is None else settings.top_p,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": seed,
            "logprobs": 0,  # of the tokens that are drawn, and of no others
            "extra_body": {
                "top_k": -1 if settings.top_k is None else settings.top_k,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "skip_special_tokens": False,
                "return_token_ids": True,
                "stop_token_ids": sorted(self.ends),
            },
        }

    def _read(self, choice: Any, index: int, seed: int) -> Response | LeftOut | None:
        """The response that a server's choice tells, or why it is left out; None if it is no choice."""
        reason, logprobs = at(choice, "finish_reason"), at(choice, "logprobs", "token_logprobs")
        if reason not in ("stop", "length") or not _are_logprobs(logprobs):
            return None
        ids = self._token_ids(choice, reason, len(logprobs))
        if ids is None:
            return LeftOut.NO_TOKEN_IDS
        if not self._is_response(ids, reason, len(logprobs)):
            return None
        if not self.known.issuperset(ids):
            return LeftOut.UNKNOWN_TOKENS
        # Some say "length" of an end that comes last of all that may be drawn.
        reason = "stop" if ids[-1] in self.ends else "length"
        if reason == "length" and len(ids) < self.settings.max_new_tokens:
            return LeftOut.CUT
        return Response(index, seed, ids, reason, min(0.0, math.fsum(logprobs)))

    def _token_ids(self, choice: Any, reason: str, drawn: int) -> list[int] | None:
        """The token ids as they are told, else of the text if it is sure to be them, else None."""
        told, text = at(choice, "token_ids"), at(choice, "text")
        if isinstance(told, list):
            return told
        if not isinstance(text, str) or _SURROGATE.search(text):
            return None
        ids = encode_response(self.tokenizer, text)
        ids = ids if reason == "stop" else ids[:-1]
        return ids if len(ids) == drawn and decode_response(self.tokenizer, ids) == text else None

    def _is_response(self, ids: list[Any], reason: str, drawn: int) -> bool:
        """Whether ids are those of a response: one for each log-probability, and an end only and surely at the end."""
        if not ids or not all(type(one) is int and one >= 0 for one in ids):
            return False
        ended = ids[-1] in self.ends or reason == "length"
        return ended and self.ends.isdisjoint(ids[:-1]) and len(ids) == drawn <= self.settings.max_new_tokens

    def _fault(self, choice: Any) -> str:
        """What is wrong with the last answer, in a few words."""
        reason, ids = at(choice, "finish_reason"), at(choice, "token_ids")
        if reason not in ("stop", "length"):
            told = reason[:40] if isinstance(reason, str) else type(reason).__name__
            return f"no single response that ended or was cut, finish_reason {told!r}"
        if not _are_logprobs(at(choice, "logprobs", "token_logprobs")):
            return (
                "no log-probabilities of the tokens, logprobs.token_logprobs; llama.cpp's server can judge, not sample"
            )
        if reason == "stop" and isinstance(ids, list) and all(ids[-1:] != [end] for end in self.ends):
            ends = ", ".join(map(str, sorted(self.ends)))
            return f"it stopped at another token than {ends}, which tokenizer and generation_config.json name"
        return "token ids that are not those of the text or of this tokenizer"


def _are_logprobs(values: Any) -> bool:
    """Whether a server's log-probabilities are such, one at least; whole numbers may be too large for a float."""
    return (
        isinstance(values, list)
        and bool(values)
        and all(type(one) in (int, float) and _LEAST <= one <= _MOST for one in values)
    )
