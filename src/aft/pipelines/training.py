"""What `vft_train` and `align_train` share: from tables to a trained model and its curve."""

from pathlib import Path
from typing import Any

import pandas as pd

from aft.models.directory import ModelDirectory
from aft.pipelines.tables import to_questions
from aft.training.settings import Objective, TrainingSettings


def train_on(
    start: ModelDirectory,
    train_questions: pd.DataFrame,
    feedback: pd.DataFrame | None,
    held_out: list[str],
    training: TrainingSettings,
    objective: Objective,
    seed: int,
    model_cache: str,
) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
    """Train `start`; the model, and its curve under the seed's key. Held-out questions are refused by content hash."""
    from aft.training.examples import build_examples, refuse_held_out
    from aft.training.run import CURVE_COLUMNS, train

    questions = to_questions(train_questions)
    refuse_held_out(questions, held_out)
    rows: list[Any] = [] if feedback is None else feedback.to_dict("records")
    examples = build_examples(questions, rows, start.tokenizer(), objective, training.max_tokens)
    trained = train(start, examples, training, objective, seed, Path(model_cache), f"train {objective.label}")
    return trained.directory, {seed_key(seed): pd.DataFrame(trained.curve, columns=list(CURVE_COLUMNS))}


def seed_key(seed: int | str) -> str:
    """The name of one seed's partition, where the results of several seeds lie side by side."""
    return f"seed_{seed}"
