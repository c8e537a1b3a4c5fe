"""GSM-hard (Gao et al., arXiv 2211.10435): GSM8K's test questions with larger numbers in them, only evaluated on.

Prompt and answer extraction are GSM8K's. There is no reasoning to train on: a reference is the line of its answer.
Answers are floats, computed by programs, and some make no sense in their story, such as a negative count; two are the
same if they agree to thousandths, as published results count them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from aft.tasks.answers import numbers_agree
from aft.tasks.base import Question
from aft.tasks.gsm8k import extract_answer, prompt
from aft.tasks.rows import (
    check_not_negative,
    field,
    hub_rows,
    json_lines,
    number_question,
    only_tested,
    text_field,
    without_repeats,
)

__all__ = ["Settings", "answers_equal", "extract_answer", "load_questions", "prompt"]

HUB_DATASET = "reasoning-machines/gsm-hard"

answers_equal = numbers_agree


@dataclass(frozen=True, slots=True)
class Settings:
    """Where GSM-hard comes from."""

    path: str | None = None
    """Folder with `test.jsonl`, plain or packed with gzip: one object a line, with `question` and `answer`.

    Without it, the hub's `reasoning-machines/gsm-hard`, which calls these fields `input` and `target`.
    """

    revision: str = "960448f73503112d4226baeb8eb41d3fb5ae2506"
    """Commit of the hub's data set; not used with `path`."""

    test_limit: int | None = None
    """Only the first so many questions in published order, for small trials."""

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a value that has no meaning."""
        check_not_negative(self, "test_limit")


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """All questions in published order as test, and neither train nor validation questions.

    A question that is asked twice (by `content_hash`) is kept once; a warning counts what that drops. Raises
    `DataError` for a missing file or a malformed row.
    """
    if settings.path is None:
        question_field, answer_field = "input", "target"
        rows = hub_rows(HUB_DATASET, None, "train", settings.revision)  # its only split
    else:
        question_field, answer_field = "question", "answer"
        rows = json_lines(settings.path, "test.jsonl")
    published = [
        number_question(
            question_id=f"gsm_hard/test/{number:05d}",
            question=text_field(row, question_field, where),
            answer=field(row, answer_field, where),
            where=where,
        )
        for number, (where, row) in enumerate(rows)
    ]
    questions, _ = without_repeats(published, frozenset(), "questions of GSM-hard")
    return only_tested(questions[: settings.test_limit])
