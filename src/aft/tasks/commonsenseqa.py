"""CommonsenseQA 1.11 (Talmor et al., arXiv 1811.00937): everyday questions with five options, only evaluated on.

Its test set is published without answers, so its 1,221 dev questions are the test here. ECQA explains the questions of
its train and dev sets: beside ECQA, a mere 8 of the 1,221 are new. It is a test of models trained on something else.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aft.errors import DataError
from aft.tasks.base import Question
from aft.tasks.multiple_choice import LETTERS, answers_equal, choice_question, extract_answer, prompt
from aft.tasks.rows import (
    check_not_negative,
    field,
    hub_rows,
    json_lines,
    only_tested,
    text_field,
    without_repeats,
)

__all__ = ["Settings", "answers_equal", "extract_answer", "load_questions", "prompt"]

HUB_DATASET = "tau/commonsense_qa"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where CommonsenseQA comes from."""

    path: str | None = None
    """Folder with `dev_rand_split.jsonl` as published, or packed with gzip; else the hub's `tau/commonsense_qa`."""

    revision: str = "94630fe30dad47192a8546eb75f094926d47e155"
    """Commit of the hub's data set; not used with `path`."""

    test_limit: int | None = None
    """Only the first so many questions in published order, for small trials."""

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a value that has no meaning."""
        check_not_negative(self, "test_limit")


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """All dev questions in published order as test, and neither train nor validation questions.

    A question that is asked twice (by `content_hash`) is kept once; a warning counts what that drops. Raises
    `DataError` for a missing file or a malformed row.
    """
    rows = (
        hub_rows(HUB_DATASET, None, "validation", settings.revision)
        if settings.path is None
        else json_lines(settings.path, "dev_rand_split.jsonl")
    )
    published = [_question(row, where, f"commonsenseqa/dev/{number:05d}") for number, (where, row) in enumerate(rows)]
    questions, _ = without_repeats(published, frozenset(), "dev questions of CommonsenseQA")
    return only_tested(questions[: settings.test_limit])


def _question(row: Any, where: str, question_id: str) -> Question:
    """A row as published, {question: {stem, choices: [{label, text}]}}, or as on the hub, {question, choices}."""
    asked = field(row, "question", where)
    if isinstance(asked, dict):
        stem, choices = text_field(asked, "stem", where), field(asked, "choices", where)
        pairs = [(field(option, "label", where), field(option, "text", where)) for option in _listed(choices, where)]
    else:
        stem, choices = text_field(row, "question", where), field(row, "choices", where)
        labels, texts = (_listed(field(choices, name, where), where) for name in ("label", "text"))
        pairs = list(itertools.zip_longest(labels, texts))
    if [label for label, _ in pairs] != list(LETTERS):
        raise DataError(f"{where} has no options {', '.join(LETTERS)}, in this order; restore the published file.")
    return choice_question(
        question_id=question_id,
        split="test",
        question=stem,
        choices=[text for _, text in pairs],
        answer=field(row, "answerKey", where),
        reasoning="",
        where=where,
    )


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{where} has no list of options; restore the published file.")
    return value
