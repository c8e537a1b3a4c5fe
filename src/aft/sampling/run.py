"""k responses to each question, from a model, through the store: what is finished is never made again."""

import logging
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft.code import deciding
from aft.directories import Description
from aft.errors import DataError
from aft.files import digest, warn_of_space
from aft.models.directory import ModelDirectory, on_device
from aft.models.tokens import decode_response, encode_question, known_tokens
from aft.progress import bar
from aft.sampling.room import with_room
from aft.sampling.served import compare_with_own
from aft.sampling.settings import ROOMS, SamplerSettings, SamplingSettings, ServerSettings
from aft.shards import Shards, ShardStore, encode, n_rows
from aft.tasks import Question, get_task

if TYPE_CHECKING:
    import pandas as pd

    from aft.sampling.engine import Request, Response

logger = logging.getLogger(__name__)

_LOCAL = SamplerSettings()
_BYTES = 8  # of a shard per token, at the most: 2 to 4 of text, 3 of its id, and a share of the row
COLUMNS = {  # of the candidates table, also where there is no response
    **{"question_id": "str", "sample_index": "int64", "seed": "int64", "response": "str", "token_ids": "object"},
    **{"finish_reason": "str", "sum_logprob": "float64", "n_tokens": "int64"},
    **{"model_fingerprint": "str", "settings_hash": "str"},
}


def sample_responses(
    source: ModelDirectory,
    questions: Sequence[Question],
    settings: SamplingSettings,
    seed: int,
    root: Path,
    label: str,
    sampler: SamplerSettings = _LOCAL,
) -> list[Path]:
    """Shards with the responses of `source` to the questions, in the questions' order; one row per response.

    A killed run continues with the same result. If what is missing may not fit on the disk, a warning says so before
    it is made. A question whose prompt leaves no room for a response is left out, see
    `with_room`; with the engine `server`, a response that `ask_server` cannot have has no row. Raises what `with_room`,
    `ShardStore.fill` and, by `sampler`, `generate`, `ask_server` and `make_on_cluster` raise, and `DataError` if there
    is no response at all.
    """
    questions = with_room(source, questions, settings.max_new_tokens, root)
    server = sampler.server if sampler.engine == "server" else None
    store = ShardStore(root, _description(source, settings, seed, server), *ROOMS)
    rows = _Rows(source, settings, seed, server)
    size = settings.block_size
    blocks = [questions[i : i + size] for i in range(0, len(questions), size)]

    responses = settings.samples + settings.greedy

    asked: list[int] = []  # the blocks that this run makes

    def make(missing: Sequence[int]) -> Generator[tuple[int, bytes], None, None]:
        asked.extend(missing)
        wanted = responses * sum(len(blocks[number]) for number in missing)
        needed = wanted * settings.max_new_tokens * _BYTES
        warn_of_space(root, needed, f"{label}: {wanted:,} responses of up to {settings.max_new_tokens} tokens")
        if sampler.cluster is None:
            yield from ((number, encode(rows.of(blocks[number]))) for number in missing)
        else:
            from aft.sampling.cluster import make_on_cluster

            yield from make_on_cluster(rows.of, missing, lambda number: (blocks[number],), sampler.cluster, ROOMS)

    with bar(label, len(questions), "question") as shown:
        shards = store.fill(
            [_block_hash(block) for block in blocks],
            make,
            report=lambda finished: shown.update(min(finished * size, len(questions)) - shown.n),
        )
    if server is not None:
        _tell_missing(shards, len(questions) * responses, server)
        _compare(source, questions, Shards([shards[number] for number in asked]), settings)
    return shards


def _compare(source: ModelDirectory, questions: Sequence[Question], made: Shards, settings: SamplingSettings) -> None:
    """Compare what a server said of the first question that has responses, of those that it was asked now."""
    for table in made:
        if not table.empty:
            first = table["question_id"].iloc[0]
            question = next(one for one in questions if one.question_id == first)
            compare_with_own(source, question, table[table["question_id"] == first], settings.precision)
            return


def _tell_missing(shards: Sequence[Path], wanted: int, server: ServerSettings) -> None:
    """Count what a server was asked for in vain, in this run or an earlier one, wherever it was asked."""
    missing = wanted - sum(map(n_rows, shards))
    if missing and missing == wanted:
        raise DataError(
            f"None of {wanted} responses could be had from the server at {server.base_url}: they were refused as too "
            "long, cut by the server, or hold tokens that the tokenizer does not know, see the log; mend that, and "
            "serve the model under another name (sampler.server.model)."
        )
    if missing:
        logger.warning(
            "%d of %d responses could not be had from the server and are left out; a server with more room is asked "
            "for them under another name of the model (sampler.server.model).",
            *(missing, wanted),
        )


def _description(
    source: ModelDirectory, settings: SamplingSettings, seed: int, server: ServerSettings | None
) -> Description:
    """What samples follow from. Where they are drawn is no part of it, but that another program drew them is.

    The server's address is none either: the same model is the same wherever it is served.
    """
    description = {
        "kind": "samples",
        "model": source.fingerprint,
        "settings": deciding(settings),
        "seed": seed,
    }
    return description if server is None else {**description, "engine": "server", "served_as": server.model}


def _block_hash(block: Sequence[Question]) -> str:
    """Hash of what the responses of a block follow from, beside the store's description: ids (seeds) and prompts."""
    return digest([[question.question_id, get_task(question.dataset).prompt(question)] for question in block])


class _Rows:
    """Makes the rows of blocks, here or in a worker; loads what it needs with the first one.

    A finished store costs no loading, and what is sent to a worker is small.
    """

    def __init__(
        self, source: ModelDirectory, settings: SamplingSettings, seed: int, server: ServerSettings | None
    ) -> None:
        self.source = replace(source, path=source.path.absolute())  # a worker may begin in another folder
        self.settings, self.seed, self.server = settings, seed, server
        self.settings_hash = digest(deciding(settings))
        self.model: Any = None
        self.tokenizer: Any = None
        self.ends: frozenset[int] = frozenset()

    def of(self, block: Sequence[Question]) -> "pd.DataFrame":
        """The candidates table of one block of questions."""
        import pandas as pd

        from aft.sampling.engine import Request

        self.tokenizer, self.ends = self.tokenizer or self.source.tokenizer(), self.ends or self.source.end_tokens()
        requests = [Request(q.question_id, encode_question(self.tokenizer, q)) for q in block]
        rows = [
            {
                "question_id": question.question_id,
                "sample_index": response.sample_index,
                "seed": response.seed,
                "response": decode_response(self.tokenizer, response.token_ids, self.ends),
                "token_ids": response.token_ids,
                "finish_reason": response.finish_reason,
                "sum_logprob": response.sum_logprob,
                "n_tokens": len(response.token_ids),
                "model_fingerprint": self.source.fingerprint,
                "settings_hash": self.settings_hash,
            }
            for question, responses in zip(block, self._responses(requests), strict=True)
            for response in responses
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)

    def _responses(self, requests: Sequence["Request"]) -> list[list["Response"]]:
        from aft.sampling.engine import generate
        from aft.sampling.server import ask_server

        if self.server is not None:
            return ask_server(self.server, self.tokenizer, requests, self.settings, self.seed, self.ends)
        if self.model is None:
            self.model = on_device(self.source.model(self.settings.precision))
        return generate(self.model, requests, self.settings, self.seed, self.ends, known_tokens(self.tokenizer))
