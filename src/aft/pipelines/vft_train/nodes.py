"""VFT: maximum likelihood on the references (SFT; Eq. 1), from the base model."""

import pandas as pd

from aft.models.directory import ModelDirectory
from aft.pipelines.training import Origin, Questions, train_on, without_references
from aft.training.settings import Launch, Objective, TrainingSettings


def train_vft(
    base_model: ModelDirectory,
    train_questions: pd.DataFrame,
    validation_questions: pd.DataFrame,
    held_out: list[str],
    training: TrainingSettings,
    seed: int,
    model_cache: str,
    launch: Launch,
    recipe: str,
) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
    """The VFT model and its training curve; the base model where there is no reference to learn from."""
    if (train_questions["reference"] == "").all():
        return without_references(base_model, training, seed, model_cache)
    questions = Questions(train_questions, validation_questions, held_out)
    origin = Origin(recipe, base_model)
    return train_on(base_model, questions, (), training, Objective(), seed, model_cache, launch, origin)
