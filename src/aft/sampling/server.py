"""The `server` engine: responses of a model that an OpenAI-compatible server serves, as vLLM does.

Prompts are sent as token ids, and of a response the token ids are kept that the server says it drew (vLLM does, with
`return_token_ids`): text that is encoded again may become other tokens. Where a server tells none, its text is encoded,
and believed if that is as many tokens as were drawn and gives the same text back; other responses are left out.

Each response has the seed that it has in the local engine; but a server batches as it likes, so that its samples cannot
be had again bit by bit. That it serves the very weights of the model's folder is not checked. Log-probabilities count
as those at temperature 1 before any filter: vLLM's are, unless it was started with another `--logprobs-mode`.
"""

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aft.errors import DataError, StoreError
from aft.models.tokens import decode_response, encode_response, end_token
from aft.sampling.engine import GREEDY, Request, Response, response_seed, sample_indices
from aft.sampling.settings import SamplingSettings, ServerSettings
from aft.server import Errand, at, explain, open_client, read_json, run, side_by_side

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def ask_server(
    server: ServerSettings,
    tokenizer: "PreTrainedTokenizerBase",
    requests: Sequence[Request],
    settings: SamplingSettings,
    run_seed: int,
) -> list[list[Response]]:
    """The responses to each request, greedy first if wanted, then samples; without those that are not told in tokens.

    Raises `StoreError` if the server cannot be reached or its answers are no completions, `SettingsError` for a key or
    a model that it refuses, and `DataError` if it refuses a request or tells no response at all in tokens.
    """
    indices = sample_indices(settings)
    responses: dict[tuple[int, int], Response | None] = {}

    async def ask_all() -> None:
        async with open_client(server) as client:
            asker = _Asker(client, server, tokenizer, settings)

            async def ask(number: int, index: int) -> None:
                seed = response_seed(run_seed, requests[number].question_id, index)
                responses[number, index] = await asker.ask(requests[number], index, seed)

            works = (ask(number, index) for number in range(len(requests)) for index in indices)
            await side_by_side(works, server.concurrency)

    run(ask_all())
    untold = sum(response is None for response in responses.values())
    if untold and untold == len(responses):
        raise DataError(
            f"The server at {server.base_url} does not tell which tokens it drew, and none of {untold} texts can be "
            "had again from its tokens; use one that knows return_token_ids, such as vLLM."
        )
    if untold:
        logger.warning(
            "%d of %d responses are left out: the server does not tell their tokens, and their texts do not either.",
            *(untold, len(responses)),
        )
    return [
        [response for index in indices if (response := responses[number, index]) is not None]
        for number in range(len(requests))
    ]


class _Asker:
    """Asks for responses, one for each request, and reads what comes defensively."""

    def __init__(
        self,
        client: "AsyncOpenAI",
        server: ServerSettings,
        tokenizer: "PreTrainedTokenizerBase",
        settings: SamplingSettings,
    ) -> None:
        self.client, self.server, self.tokenizer, self.settings = client, server, tokenizer, settings
        self.end, self.tokens = end_token(tokenizer), len(tokenizer)

    async def ask(self, request: Request, index: int, seed: int) -> Response | None:
        """One response; None if it is not told in tokens. Answers that are none are asked for again, like faults."""
        from openai import APIError

        choice: Any = None
        for _ in range(self.server.retries + 1):
            try:
                # Raw: see the judge's client; a body may be anything.
                raw = await self.client.completions.with_raw_response.create(**self._body(request, index, seed))
            except APIError as error:
                errand = Errand(
                    server="The server",
                    model="model",
                    request=f"a response to {request.question_id}",
                    remedy="choose settings that it takes, or serve the model with more room (vLLM: --max-model-len)",
                    kept="finished shards are kept",
                )
                # Without its cause: the server's own words may repeat the key.
                raise explain(error, self.server, self.client.api_key, errand) from None
            choice = at(read_json(raw.http_response.content), "choices", 0)
            reason, logprobs = at(choice, "finish_reason"), at(choice, "logprobs", "token_logprobs")
            if reason in ("stop", "length") and _are_logprobs(logprobs):
                ids = self._token_ids(choice, reason, len(logprobs))
                if ids is None:
                    return None
                if self._is_response(ids, reason, len(logprobs)):
                    return Response(index, seed, ids, reason, min(0.0, math.fsum(logprobs)))
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
            },
        }

    def _token_ids(self, choice: Any, reason: str, drawn: int) -> list[int] | None:
        """The token ids as they are told, else of the text if it is sure to be them, else None."""
        told, text = at(choice, "token_ids"), at(choice, "text")
        if isinstance(told, list):
            return told
        if not isinstance(text, str):
            return None
        ids = encode_response(self.tokenizer, text)
        ids = ids if reason == "stop" else ids[:-1]
        return ids if len(ids) == drawn and decode_response(self.tokenizer, ids) == text else None

    def _is_response(self, ids: list[Any], reason: str, drawn: int) -> bool:
        """Whether ids are those of a response: one for each log-probability, and the end only and surely at the end."""
        known = all(type(one) is int and 0 <= one < self.tokens for one in ids)
        ended = ids[-1:] == [self.end] if reason == "stop" else len(ids) > 0
        return known and ended and self.end not in ids[:-1] and len(ids) == drawn <= self.settings.max_new_tokens

    def _fault(self, choice: Any) -> str:
        """What is wrong with the last answer, in a few words."""
        reason, ids = at(choice, "finish_reason"), at(choice, "token_ids")
        if reason not in ("stop", "length"):
            return f"no response that ended or was cut, finish_reason {str(reason)[:40]!r}"
        if not _are_logprobs(at(choice, "logprobs", "token_logprobs")):
            return "no log-probabilities of the tokens, logprobs.token_logprobs"
        if reason == "stop" and isinstance(ids, list) and ids[-1:] != [self.end]:
            return f"it stopped at another token than {self.end}, the tokenizer's end: generation_config.json names it"
        return "token ids that are not those of the text or of this tokenizer"


def _are_logprobs(values: Any) -> bool:
    """Whether a server's log-probabilities are numbers, one at least."""
    return (
        isinstance(values, list)
        and bool(values)
        and all(type(one) in (int, float) and math.isfinite(one) for one in values)
    )
