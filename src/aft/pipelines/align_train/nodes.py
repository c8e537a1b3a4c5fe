"""Alignment: one variant's objective over the training questions and their feedback."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from aft.models.directory import ModelDirectory
from aft.pipelines.content import told
from aft.pipelines.parameters import Evaluation
from aft.pipelines.training import Origin, Questions, Setup, train_on, with_reference_scores
from aft.training.settings import Launch, Objective, TrainingSettings


def train_variant(
    base_model: ModelDirectory,
    vft_model: ModelDirectory,
    train_questions: pd.DataFrame,
    validation_questions: pd.DataFrame,
    feedback: Iterable[pd.DataFrame],
    held_out: list[str],
    training: TrainingSettings,
    objective: Objective,
    seed: int,
    model_cache: str,
    score_cache: str,
    launch: Launch,
    recipe: str,
    evaluation: Evaluation,
) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
    """The variant's model and its curve; it starts from the base model or, as a setting, from the VFT model."""
    feedback_hash = told([feedback, vft_model.fingerprint])  # which may score it
    if "reference_scores" in objective.kind.needs:
        feedback = with_reference_scores(feedback, vft_model, train_questions, training, Path(score_cache))
    start = vft_model if objective.start == "vft" else base_model
    questions = Questions(train_questions, validation_questions, held_out)
    origin = Origin(recipe, base_model)
    setup = Setup(training, objective, seed, model_cache, launch, evaluation)
    return train_on(start, questions, feedback, setup, origin, feedback_hash)
