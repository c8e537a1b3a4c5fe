"""Feedback: which sampled responses are right, and how the responses of a question rank."""

import logging
from typing import Any

import pandas as pd

from aft.errors import DataError
from aft.feedback.label import label_responses, rank_binary, summarise
from aft.pipelines.parameters import Labelling
from aft.pipelines.tables import by_id
from aft.pipelines.tables import candidates as check_candidates

logger = logging.getLogger(__name__)


def label_and_rank(
    candidates: pd.DataFrame, train_questions: pd.DataFrame, labelling: Labelling
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The feedback table and its summary."""
    if candidates.empty:
        raise DataError("There is no sampled response to label; run sample_cots with samples of at least 1.")
    questions = by_id(train_questions)
    labelled = label_responses(check_candidates(candidates), questions)
    feedback = rank_binary(labelled, labelling.deduplicate)
    summary = summarise(feedback, questions)
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
