"""k responses to each question, from a model, through the store: what is finished is never made again."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aft import __version__
from aft.files import digest
from aft.models.directory import ModelDirectory, on_device
from aft.models.tokens import decode_response, encode_prompt, end_token
from aft.sampling.settings import SamplingSettings
from aft.sampling.store import SampleStore
from aft.tasks import Question, get_task

if TYPE_CHECKING:
    import pandas as pd


def sample_responses(
    source: ModelDirectory,
    questions: Sequence[Question],
    settings: SamplingSettings,
    seed: int,
    root: Path,
    label: str,
) -> list[Path]:
    """Shards with the responses of `source` to the questions, in the questions' order; one row per response.

    A killed run continues with the same result. Raises what `SampleStore.fill` and `generate` raise.
    """
    from tqdm import tqdm

    description = {"aft": __version__, "model": source.fingerprint, "settings": asdict(settings), "seed": seed}
    store = SampleStore(root, description)
    sampler = _Sampler(source, settings, seed, digest(asdict(settings)))
    size = settings.block_size
    blocks = [questions[i : i + size] for i in range(0, len(questions), size)]
    with tqdm(total=len(questions), desc=label, unit="question", mininterval=1) as bar:
        return store.fill(
            [(_block_hash(block), lambda block=block: sampler.rows(block)) for block in blocks],
            report=lambda finished: bar.update(min(finished * size, len(questions)) - bar.n),
        )


def _block_hash(block: Sequence[Question]) -> str:
    """Hash of what the responses of a block follow from, beside the store's description: ids (seeds) and prompts."""
    return digest([[question.question_id, get_task(question.dataset).prompt(question)] for question in block])


class _Sampler:
    """Loads the model when the first block is needed: a finished store costs no loading."""

    def __init__(self, source: ModelDirectory, settings: SamplingSettings, seed: int, settings_hash: str) -> None:
        self.source, self.settings, self.seed, self.settings_hash = source, settings, seed, settings_hash
        self.loaded = None

    def rows(self, block: Sequence[Question]) -> "pd.DataFrame":
        """The candidates table of one block of questions."""
        import pandas as pd

        from aft.sampling.engine import Request, generate

        if self.loaded is None:
            self.loaded = (
                on_device(self.source.model(self.settings.precision)),
                self.source.tokenizer(),
            )
        model, tokenizer = self.loaded
        requests = [Request(q.question_id, encode_prompt(tokenizer, get_task(q.dataset).prompt(q))) for q in block]
        end = end_token(tokenizer)
        rows = [
            {
                "question_id": question.question_id,
                "sample_index": response.sample_index,
                "seed": response.seed,
                "response": decode_response(tokenizer, response.token_ids),
                "token_ids": response.token_ids,
                "finish_reason": response.finish_reason,
                "sum_logprob": response.sum_logprob,
                "n_tokens": len(response.token_ids),
                "model_fingerprint": self.source.fingerprint,
                "settings_hash": self.settings_hash,
            }
            for question, responses in zip(block, generate(model, requests, self.settings, self.seed, end), strict=True)
            for response in responses
        ]
        return pd.DataFrame(rows)
