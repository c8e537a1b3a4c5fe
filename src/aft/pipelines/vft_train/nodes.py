"""VFT: maximum likelihood on the references (SFT; Eq. 1), from the base model."""

import logging

import pandas as pd

from aft.models.chat import chat_settings
from aft.models.directory import ModelDirectory
from aft.pipelines.parameters import Evaluation
from aft.pipelines.tables import to_questions
from aft.pipelines.training import NO_REFERENCES, Origin, Questions, Setup, train_on, untrained
from aft.training.settings import Launch, Objective, TrainingSettings

logger = logging.getLogger(__name__)


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
    evaluation: Evaluation,
) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
    """The VFT model and its training curve; the base model where there is no reference to learn from."""
    from aft.training.examples import refuse_held_out

    if (train_questions["reference"] == "").all():
        shown = chat_settings(base_model.tokenizer()).examples
        refuse_held_out(to_questions(train_questions), held_out, shown)
        logger.warning(NO_REFERENCES)
        return untrained(base_model, Objective(), training, seed, model_cache, warnings=[NO_REFERENCES])
    questions = Questions(train_questions, validation_questions, held_out)
    origin = Origin(recipe, base_model)
    setup = Setup(training, Objective(), seed, model_cache, launch, evaluation)
    return train_on(base_model, questions, (), setup, origin)
