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
    held_out = to_questions(watched(questions.validation))
    probe = build_examples(held_out, [], tokenizer, Objective(), training.max_tokens) if held_out else []
    trained = train(start, examples, training, objective, seed, Path(model_cache), label, probe=probe, launch=launch)
    return trained.directory, {seed_key(seed): pd.DataFrame(trained.curve, columns=list(CURVE_COLUMNS))}


def with_reference_scores(
    feedback: pd.DataFrame,
    vft_model: ModelDirectory,
    train_questions: pd.DataFrame,
    training: TrainingSettings,
    score_cache: Path,
) -> pd.DataFrame:
    """The feedback with the scores of DPO's reference model, which is the VFT model, made once for all variants.

    They are made in the precision in which the policy is trained: else the two would differ by rounding alone.
    """
    from aft.scoring.responses import score_responses

    scores = score_responses(
        *(vft_model, feedback, by_id(train_questions), "score with the reference model", training.precision),
        score_cache,
        token_budget=training.token_budget,
        autocast=True,
    )
    return feedback.assign(reference_score=scores)


def watched(validation: pd.DataFrame) -> pd.DataFrame:
    """The first `PROBE_SIZE` validation questions, as many of each dataset as there are, in the table's order."""
    turn = validation.groupby("dataset").cumcount()  # the first of every dataset come first, then the second ones
    return validation.loc[turn.sort_values(kind="stable").index[:PROBE_SIZE]].sort_index()


def seed_key(seed: int | str) -> str:
    """The name of one seed's partition, where the results of several seeds lie side by side."""
    return f"seed_{seed}"
