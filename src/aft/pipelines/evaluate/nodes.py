"""Evaluation: every variant answers the same test questions and scores the same held-out groups."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from aft.errors import DataError
from aft.evaluation.compare import comparison_table, paired_differences
from aft.evaluation.predictions import GREEDY, measure, predictions, score_groups
from aft.feedback.label import label_responses, rank_binary
from aft.files import digest
from aft.models.directory import ModelDirectory
from aft.pipelines.parameters import Evaluation
from aft.pipelines.tables import by_id, to_questions
from aft.pipelines.tables import candidates as check_candidates
from aft.pipelines.training import seed_key
from aft.pipelines.variants import BASELINE, VARIANTS

logger = logging.getLogger(__name__)

Figure = Any  # matplotlib's: Kedro resolves annotations when it starts, and must not import matplotlib for it
Partitions = dict[str, Callable[[], pd.DataFrame]]  # tables of several seeds, loaded when asked for


def generate(
    model: ModelDirectory, test_questions: pd.DataFrame, evaluation: Evaluation, seed: int, sample_cache: str
) -> list[Path]:
    """The shards with the variant's greedy answer and its samples for every test question."""
    from aft.sampling.run import sample_responses

    questions = to_questions(test_questions)
    return sample_responses(model, questions, evaluation.sampling, seed, Path(sample_cache), "answer test questions")


def predict(
    generations: pd.DataFrame, test_questions: pd.DataFrame, seed: int, parameters: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    """The predictions of this seed, under the seed's key; they carry the hash of all settings but the seed."""
    labelled = label_responses(check_candidates(generations), by_id(test_questions))
    return {seed_key(seed): predictions(labelled).assign(settings_hash=_settings_hash(parameters, test_questions))}


def build_assessment_groups(generations: pd.DataFrame, test_questions: pd.DataFrame) -> pd.DataFrame:
    """Held-out groups to assess models on: the distinct samples of the VFT model for the test questions, labelled."""
    sampled = generations[generations["sample_index"] != GREEDY]
    return rank_binary(label_responses(sampled, by_id(test_questions)), deduplicate=True)


def assess(
    model: ModelDirectory, assessment_groups: pd.DataFrame, test_questions: pd.DataFrame, seed: int
) -> dict[str, pd.DataFrame]:
    """The scores that the variant gives the held-out groups, under the seed's key."""
    scored = score_groups(model, assessment_groups, by_id(test_questions), "score held-out groups")
    return {seed_key(seed): scored[["question_id", "sample_index", "is_correct", "score"]]}


def summarise_variant(
    predictions: Partitions, assessment: Partitions, seed: int, evaluation: Evaluation
) -> dict[str, float]:
    """All figures of this seed."""
    key = seed_key(seed)
    return measure(predictions[key](), assessment[key](), evaluation.ks)


def compare(
    evaluation: Evaluation, parameters: dict[str, Any], test_questions: pd.DataFrame, **partitions: Partitions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The comparison table and all paired differences, over every seed that was run under the present settings."""
    current = _settings_hash(parameters, test_questions)
    names = (BASELINE, *VARIANTS)
    predicted = {name: _current(name, partitions[f"{name}_predictions"], current) for name in names}
    assessed = {
        name: {seed: partitions[f"{name}_assessment"][seed_key(seed)]() for seed in predicted[name]} for name in names
    }
    table = comparison_table(predicted, assessed, evaluation.ks, BASELINE, evaluation.level, evaluation.resamples)
    return table, paired_differences(predicted, evaluation.level, evaluation.resamples)


def draw_accuracy(comparison: pd.DataFrame) -> Figure:
    """Accuracy of every variant with its interval."""
    from aft.evaluation.figures import accuracy_figure

    points = comparison["per_seed"].map(lambda text: [float(value) for value in str(text).split()])
    return accuracy_figure(comparison.assign(per_seed=points))


def draw_scores(seed: int, **assessments: Partitions) -> Figure:
    """Scores of held-out positives and negatives under every variant, for this seed."""
    from aft.evaluation.figures import score_histogram_figure

    tables = [rows[seed_key(seed)]().assign(variant=name) for name, rows in assessments.items()]
    return score_histogram_figure(pd.concat(tables, ignore_index=True))


def draw_training(comparison: pd.DataFrame, **curves: Partitions) -> Figure:
    """Scores of positives and negatives while training, for every variant and every seed of the comparison."""
    from aft.evaluation.figures import training_curves_figure

    compared = comparison.set_index("variant")["seeds"].astype(str).str.split()
    tables = [
        curves[name][seed_key(seed)]().assign(variant=name, seed=seed) for name in curves for seed in compared[name]
    ]
    return training_curves_figure(pd.concat(tables, ignore_index=True))


def _settings_hash(parameters: dict[str, Any], test_questions: pd.DataFrame) -> str:
    """Hash of everything but the seed that decides a result: all parameters and the test questions."""
    settings = {name: str(value) for name, value in parameters.items() if name != "seed"}
    return digest([settings, test_questions["content_hash"].tolist()])


def _current(name: str, seeds: Partitions, settings_hash: str) -> dict[int, pd.DataFrame]:
    """The predictions of the seeds that were made under the present settings; others are named and left out."""
    tables = {int(key.removeprefix(seed_key(""))): load() for key, load in seeds.items()}
    tables = dict(sorted(tables.items()))
    stale = [seed for seed, rows in tables.items() if (rows["settings_hash"] != settings_hash).any()]
    if stale:
        logger.warning(
            "%s: left out %s, made under other settings; run these seeds again to compare them.",
            name,
            ", ".join(f"seed {seed}" for seed in stale),
        )
    kept = {seed: rows.drop(columns="settings_hash") for seed, rows in tables.items() if seed not in stale}
    if not kept:
        raise DataError(f"No predictions of {name} were made under the present settings; run evaluate for it.")
    return kept
