"""Alignment: one variant's objective over the training questions and their feedback."""

from pathlib import Path

import pandas as pd

from aft.errors import SettingsError
from aft.models.directory import ModelDirectory
from aft.pipelines.parameters import Training, Variant
from aft.pipelines.training import train_on, with_reference_scores


def train_variant(
    base_model: ModelDirectory,
    vft_model: ModelDirectory,
    train_questions: pd.DataFrame,
    feedback: pd.DataFrame,
    held_out: list[str],
    training: Training,
    objective: Variant,
    start: str,
    seed: int,
    model_cache: str,
    score_cache: str,
) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
    """The variant's model and its curve; it starts from the base model or, as a setting, from the VFT model."""
    starts = {"base": base_model, "vft": vft_model}
    if start not in starts:
        raise SettingsError(f"align_from is '{start}'; choose base or vft.")
    if objective.term == "dpo":
        feedback = with_reference_scores(feedback, vft_model, train_questions, Path(score_cache))
    return train_on(starts[start], train_questions, feedback, held_out, training, objective, seed, model_cache)
