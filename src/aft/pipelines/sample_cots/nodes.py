"""Sampling: k chains of thought per question (rollouts), through the store, or those that a file has."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from aft.errors import SettingsError
from aft.models.directory import ModelDirectory, open_model
from aft.pipelines.tables import to_questions
from aft.sampling.settings import SamplerSettings, SamplingSettings
from aft.shards import Shards


def sample_cots(
    vft_model: ModelDirectory,
    train_questions: pd.DataFrame,
    sample_from: str | None,
    sampling: SamplingSettings,
    sampler: SamplerSettings,
    seed: int,
    sample_cache: str,
    candidates_from: str | None = None,
    held_out: Collection[str] = (),
) -> Shards:
    """The shards with k responses of the VFT model, or of another one, to every training question.

    With `candidates_from` nothing is sampled: they hold the responses in that file or folder, without those to
    questions whose content hash is `held_out`. Finished shards are kept. Raises `SettingsError` if `sample_from` is no
    path, `ModelError` if it leads to no model, and what `import_responses` raises.
    """
    from aft.sampling.rollouts import import_responses
    from aft.sampling.run import sample_responses

    questions = to_questions(train_questions)
    if candidates_from is not None:
        path = Path(candidates_from.replace("{seed}", str(seed)))
        cache = Path(sample_cache)
        return Shards(import_responses(vft_model, path, questions, held_out, cache, sampling.block_size))
    model = vft_model if sample_from is None else _other_model(sample_from, seed)
    label = "sample from vft" if sample_from is None else f"sample from {model.path.name}"
    return Shards(sample_responses(model, questions, sampling, seed, Path(sample_cache), label, sampler))


def _other_model(sample_from: str, seed: int) -> ModelDirectory:
    fault = SettingsError(
        f"sample_from is {sample_from!r:.80}, but must be a model's folder ({{seed}} in it stands for the seed), or "
        "null for the VFT model."
    )
    if not isinstance(sample_from, str) or not sample_from.strip():
        raise fault
    try:
        return open_model(Path(sample_from.replace("{seed}", str(seed))))
    except OSError as error:  # longer than a path may be, or not to be read
        raise fault from error
