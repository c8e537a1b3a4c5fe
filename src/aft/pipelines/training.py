"""What `vft_train` and `align_train` share: from tables to a trained model and its curve."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from aft.models.directory import ModelDirectory
from aft.pipelines.tables import by_id, to_questions
from aft.training.settings import Launch, Objective, TrainingSettings

PROBE_SIZE = 64  # validation references that the degradation monitor scores while training


@dataclass(frozen=True)
class Questions:
    """What a training reads of the questions: those to learn, those to watch, and the hashes of those never to see."""

    train: pd.DataFrame
    validation: pd.DataFrame
    held_out: list[str]


def train_on(
    start: ModelDirectory,
    questions: Questions,
    feedback: pd.DataFrame,
    training: TrainingSettings,
    objective: Objective,
    seed: int,
    model_cache: str,
    launch: Launch,
) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
    """Train `start`; the model, and its curve under the seed's key. Held-out questions are refused by content hash."""
    from aft.training.examples import build_examples, refuse_held_out
    from aft.training.run import CURVE_COLUMNS, train

    rows = to_questions(questions.train)
    refuse_held_out(rows, questions.held_out)
    tokenizer, label = start.tokenizer(), f"train {objective.label}"
    examples = build_examples(rows, feedback.to_dict("records"), tokenizer, objective, training.max_tokens)
    watched = to_questions(questions.validation.head(PROBE_SIZE))
    probe = build_examples(watched, [], tokenizer, Objective(), training.max_tokens) if watched else []
    trained = train(start, examples, training, objective, seed, Path(model_cache), label, probe=probe, launch=launch)
    return trained.directory, {seed_key(seed): pd.DataFrame(trained.curve, columns=list(CURVE_COLUMNS))}


def with_reference_scores(
    feedback: pd.DataFrame, vft_model: ModelDirectory, train_questions: pd.DataFrame, score_cache: Path
) -> pd.DataFrame:
    """The feedback with the scores of DPO's reference model, which is the VFT model, made once for all variants."""
    from aft.scoring.responses import score_responses

    scores = score_responses(
        vft_model, feedback, by_id(train_questions), "score with the reference model", "float32", score_cache
    )
    return feedback.assign(reference_score=scores)


def seed_key(seed: int | str) -> str:
    """The name of one seed's partition, where the results of several seeds lie side by side."""
    return f"seed_{seed}"
