"""Labels of sampled responses (outcome rewards): which are right, which are duplicates, and how they rank."""

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd

from aft.errors import DataError
from aft.tasks import Question, get_task
from aft.tasks.latex import not_compared

logger = logging.getLogger(__name__)

FEEDBACK_COLUMNS = (
    *("question_id", "sample_index", "response", "token_ids", "n_tokens", "extracted_answer", "is_parsed"),
    *("is_correct", "rating", "rank", "rating_rank", "n_duplicates", "sum_logprob"),
)


def label_responses(candidates: pd.DataFrame, questions: Mapping[str, Question]) -> pd.DataFrame:
    """The candidates with `extracted_answer`, `is_parsed` and `is_correct`, joined to their questions by id.

    Of a response that was cut, the unfinished last line does not count. A response without a final answer in the
    task's own form is negative and has `is_parsed` False. Raises `DataError` for a candidate of an unknown question.
    """
    unknown = sorted(set(candidates["question_id"]) - set(questions))
    if unknown:
        raise DataError(f"Candidates of {len(unknown)} unknown questions ({', '.join(unknown[:3])}); sample again.")
    answers: list[str | None] = []
    correct: list[bool] = []
    late = not_compared()
    task_of = cache(get_task)
    texts = (candidates[name].tolist() for name in ("question_id", "response", "finish_reason"))
    for question_id, response, reason in zip(*texts, strict=True):
        question = questions[question_id]
        task = task_of(question.dataset)
        # What a cut response says last may be half a number: only its finished lines count.
        answer = task.extract_answer(response if reason == "stop" else response.rpartition("\n")[0])
        answers.append(answer)
        correct.append(answer is not None and task.answers_equal(answer, question.answer))
    if late := not_compared() - late:
        logger.warning("%d of %d responses could not be compared in time and count as wrong.", late, len(answers))
    columns = {
        "extracted_answer": pd.Series(answers, dtype="str", index=candidates.index),
        "is_parsed": pd.Series([answer is not None for answer in answers], dtype="bool", index=candidates.index),
        "is_correct": pd.Series(correct, dtype="bool", index=candidates.index),
    }
    return candidates.assign(**columns)


def rank_binary(labelled: pd.DataFrame, deduplicate: bool) -> pd.DataFrame:
    """The feedback table: right responses have rank 0, wrong ones rank 1 (0 where a question has wrong ones only).

    With `deduplicate`, responses of a question with the same tokens become one row with a count in `n_duplicates`, kept
    at the first of them. Ratings and their ranks are left null: binary feedback has none. `sum_logprob` is the
    sampler's, null for samples that came without one.
    """
    rows = labelled.sort_values(["question_id", "sample_index"], kind="stable").copy()
    rows["n_duplicates"] = 1
    if deduplicate:
        rows["tokens"] = rows["token_ids"].map(tuple)
        rows["n_duplicates"] = rows.groupby(["question_id", "tokens"])["sample_index"].transform("size")
        rows = rows.drop_duplicates(["question_id", "tokens"], keep="first")
    has_positive = rows.groupby("question_id")["is_correct"].transform("any")
    rows["rank"] = (has_positive & ~rows["is_correct"]).astype("int64")  # dense: 0 is the best that there is
    rows["sum_logprob"] = rows.get("sum_logprob", pd.Series(float("nan"), index=rows.index, dtype="float64"))
    rows["rating"] = pd.Series(float("nan"), index=rows.index, dtype="float64")
    rows["rating_rank"] = pd.Series(pd.NA, index=rows.index, dtype="Int64")
    return rows[list(FEEDBACK_COLUMNS)].reset_index(drop=True)


def count(feedback: pd.DataFrame) -> dict[str, int]:
    """Counts over the questions and the responses of some feedback; those of other questions can be added to them."""
    by_question = feedback.groupby("question_id")["is_correct"].agg(["sum", "size"])
    positives, negatives = by_question["sum"], by_question["size"] - by_question["sum"]
    sampled = feedback["n_duplicates"]
    counts = {
        "questions_answered": len(by_question),
        "responses_sampled": sampled.sum(),
        "responses_distinct": len(feedback),
        "right_samples": sampled[feedback["is_correct"]].sum(),
        "positives": positives.sum(),
        "negatives": negatives.sum(),
        "questions_with_both": ((positives > 0) & (negatives > 0)).sum(),
        "questions_without_positive": (positives == 0).sum(),
        "questions_without_negative": (negatives == 0).sum(),
        "parse_failures": sampled[~feedback["is_parsed"]].sum(),
    }
    return {name: int(value) for name, value in counts.items()}


def summarise(counts: Mapping[str, int], questions: int) -> dict[str, Any]:
    """What the feedback on so many questions holds, from the sums of `count`: duplicates and parse failures, too."""
    sampled = counts["responses_sampled"]
    return {
        "questions": questions,
        "responses_sampled": sampled,
        "responses_distinct": counts["responses_distinct"],
        "duplicates": sampled - counts["responses_distinct"],
        "positives": counts["positives"],
        "negatives": counts["negatives"],
        "positives_per_question": counts["positives"] / questions,
        "negatives_per_question": counts["negatives"] / questions,
        "questions_with_both": counts["questions_with_both"],
        "questions_without_positive": counts["questions_without_positive"],
        "questions_without_negative": counts["questions_without_negative"],
        "questions_without_response": questions - counts["questions_answered"],
        "parse_failures": counts["parse_failures"],
        "sample_accuracy": counts["right_samples"] / max(sampled, 1),
    }
