"""Labels of sampled responses (outcome rewards): which are right, which are duplicates, and how they rank."""

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd

from aft.errors import DataError
from aft.tasks import Question, get_task

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
    texts = zip(candidates["question_id"], candidates["response"], candidates["finish_reason"], strict=True)
    for question_id, response, reason in texts:
        question = questions[question_id]
        task = get_task(question.dataset)
        # What a cut response says last may be half a number: only its finished lines count.
        answer = task.extract_answer(response if reason == "stop" else response.rpartition("\n")[0])
        answers.append(answer)
        correct.append(answer is not None and task.answers_equal(answer, question.answer))
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


def summarise(feedback: pd.DataFrame, questions: Mapping[str, Question]) -> dict[str, Any]:
    """What the feedback holds: counts over questions and over responses, duplicates and parse failures included."""
    positives = feedback.groupby("question_id")["is_correct"].sum().reindex(list(questions), fill_value=0)
    totals = feedback.groupby("question_id").size().reindex(list(questions), fill_value=0)
    negatives = totals - positives
    sampled = int(feedback["n_duplicates"].sum())
    return {
        "questions": len(questions),
        "responses_sampled": sampled,
        "responses_distinct": len(feedback),
        "duplicates": sampled - len(feedback),
        "positives": int(positives.sum()),
        "negatives": int(negatives.sum()),
        "positives_per_question": float(positives.mean()),
        "negatives_per_question": float(negatives.mean()),
        "questions_with_both": int(((positives > 0) & (negatives > 0)).sum()),
        "questions_without_positive": int(((positives == 0) & (totals > 0)).sum()),
        "questions_without_negative": int(((negatives == 0) & (totals > 0)).sum()),
        "questions_without_response": int((totals == 0).sum()),
        "parse_failures": int((~feedback["is_parsed"] * feedback["n_duplicates"]).sum()),
        "sample_accuracy": float((feedback["is_correct"] * feedback["n_duplicates"]).sum() / max(sampled, 1)),
    }
