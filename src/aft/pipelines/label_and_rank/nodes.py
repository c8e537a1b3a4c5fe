"""Feedback: which sampled responses are right, how they are rated, and how the responses of a question rank."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from aft.errors import DataError, SettingsError
from aft.feedback.equations import mark_distinct_equations
from aft.feedback.given import given_ratings, with_given_labels
from aft.feedback.judge import rate_with_server
from aft.feedback.label import label_responses, rank_binary, summarise
from aft.feedback.ratings import read_ratings, with_ratings
from aft.feedback.steps import rate_steps
from aft.pipelines.parameters import Labelling
from aft.pipelines.tables import by_id
from aft.pipelines.tables import candidates as check_candidates
from aft.tasks import Question

logger = logging.getLogger(__name__)


def label_and_rank(
    candidates: pd.DataFrame, train_questions: pd.DataFrame, labelling: Labelling, seed: int, rating_cache: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The feedback table and its summary."""
    if candidates.empty:
        raise DataError("There is no sampled response to label; run sample_cots with samples of at least 1.")
    questions = by_id(train_questions)
    labelled = label_responses(check_candidates(candidates), questions)
    labelled, compared = with_given_labels(labelled, use=labelling.given_labels == "use")
    feedback = mark_distinct_equations(rank_binary(labelled, labelling.deduplicate), questions)
    ratings, judged = _ratings(feedback, candidates, questions, labelling, seed, Path(rating_cache))
    feedback = with_ratings(feedback, ratings)
    summary = {**summarise(feedback, questions), **compared, "judge": labelling.judge, **judged}
    logger.info(
        "Feedback: %(positives)d right and %(negatives)d wrong distinct responses, %(questions_with_both)d of "
        "%(questions)d questions have both kinds; %(duplicates)d duplicates, %(parse_failures)d without an answer.",
        summary,
    )
    if not summary["questions_with_both"]:
        logger.warning(
            "No question has both right and wrong responses: nothing can be aligned; sample more, or a better model."
        )
    return feedback, summary


def _ratings(
    feedback: pd.DataFrame,
    candidates: pd.DataFrame,
    questions: Mapping[str, Question],
    labelling: Labelling,
    seed: int,
    cache: Path,
) -> tuple[pd.Series, dict[str, Any]]:
    """The rating of every row by the chosen judge, NaN where there is none, and the judge's report."""
    match labelling.judge:
        case "none":
            return pd.Series(float("nan"), index=feedback.index), {}
        case "steps":
            return rate_steps(feedback, questions), {}
        case "given":
            return given_ratings(candidates, feedback), {}
        case "file":
            if labelling.ratings_file is None:
                raise SettingsError("labelling.judge is 'file': set labelling.ratings_file to the ratings' file.")
            return read_ratings(Path(labelling.ratings_file.replace("{seed}", str(seed))), feedback), {}
        case "openai":
            if labelling.openai is None:
                raise SettingsError("labelling.judge is 'openai': set labelling.openai.base_url and model.")
            return rate_with_server(feedback, questions, labelling.openai, cache)
