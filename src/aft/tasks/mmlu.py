"""MMLU (Hendrycks et al., arXiv 2009.03300): questions of 57 subjects with four options, only evaluated on.

The AFT paper (arXiv 2309.02144) answers the 14,042 test questions zero-shot, to see what alignment does to a model
outside of what it is trained on. There is no reasoning to train on: a reference is the line of its answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aft.tasks.base import Question
from aft.tasks.multiple_choice import LETTERS, answers_equal, choice_question, extract_answer, prompt
from aft.tasks.rows import (
    check_not_negative,
    draw,
    field,
    hub_rows,
    json_lines,
    only_tested,
    text_field,
    without_repeats,
)

__all__ = ["Settings", "answers_equal", "extract_answer", "load_questions", "prompt"]

HUB_DATASET = "cais/mmlu"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where MMLU comes from."""

    path: str | None = None
    """Folder with `test.jsonl`, plain or packed with gzip: `question`, `choices`, and `answer` as letter or index.

    Without it, the hub's `cais/mmlu`, which has the same rows.
    """

    revision: str = "c30699e8356da336a370243923dbaf21066bb9fe"
    """Commit of the hub's data set; not used with `path`."""

    test_limit: int | None = None
    """So many questions, drawn by seeded hash from all subjects, for small trials; they are published by subject."""

    split_seed: int = 0
    """Seed of the hash order in which `test_limit` questions are drawn."""

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a value that has no meaning."""
        check_not_negative(self, "test_limit")


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """All test questions in published order, and neither train nor validation questions.

    A question that is asked twice (by `content_hash`) is kept once; a warning counts what that drops. Raises
    `DataError` for a missing file or a malformed row.
    """
    rows = (
        hub_rows(HUB_DATASET, "all", "test", settings.revision)
        if settings.path is None
        else json_lines(settings.path, "test.jsonl")
    )
    published = [_question(row, where, f"mmlu/test/{number:05d}") for number, (where, row) in enumerate(rows)]
    questions, _ = without_repeats(published, frozenset(), "test questions of MMLU")
    if settings.test_limit is not None:
        questions = draw(questions, settings.test_limit, settings.split_seed)
    return only_tested(questions)


def _question(row: Any, where: str, question_id: str) -> Question:
    answer = field(row, "answer", where)
    if type(answer) is int and 0 <= answer < len(LETTERS):
        answer = LETTERS[answer]
    return choice_question(
        question_id=question_id,
        split="test",
        question=text_field(row, "question", where),
        choices=field(row, "choices", where),
        answer=answer,
        reasoning="",
        where=where,
    )
