"""Sampling: k chains of thought per question, through the store."""

from pathlib import Path

import pandas as pd

from aft.models.directory import ModelDirectory
from aft.pipelines.parameters import Sampling
from aft.pipelines.tables import to_questions


def sample_cots(
    vft_model: ModelDirectory, train_questions: pd.DataFrame, sampling: Sampling, seed: int, sample_cache: str
) -> list[Path]:
    """The shards with k responses of the VFT model to every training question; finished ones are kept."""
    from aft.sampling.run import sample_responses

    questions = to_questions(train_questions)
    return sample_responses(vft_model, questions, sampling, seed, Path(sample_cache), "sample from vft")
