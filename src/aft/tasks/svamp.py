"""SVAMP (Patel et al., arXiv 2103.07191): 1,000 arithmetic word problems in varied wording, only evaluated on.

Prompt and answer check are GSM8K's. There is no reasoning to train on: a reference is the line of its answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aft.tasks.base import Question
from aft.tasks.gsm8k import answers_equal, extract_answer, prompt
from aft.tasks.rows import (
    Row,
    check_not_negative,
    field,
    hub_rows,
    json_array,
    number_question,
    only_tested,
    text_field,
    without_repeats,
)

__all__ = ["Settings", "answers_equal", "extract_answer", "load_questions", "prompt"]

HUB_DATASET = "ChilleD/SVAMP"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where SVAMP comes from."""

    path: str | None = None
    """Folder with `SVAMP.json` as published; without it, the hub's `ChilleD/SVAMP`, whose two parts are the whole."""

    revision: str = "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef"
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
    published = [
        number_question(
            question_id=f"svamp/test/{number:05d}",
            question=f"{text_field(row, 'Body', where)} {text_field(row, 'Question', where)}",
            answer=field(row, "Answer", where),
            where=where,
        )
        for number, (where, row) in enumerate(_rows(settings))
    ]
    questions, _ = without_repeats(published, frozenset(), "questions of SVAMP")
    return only_tested(questions[: settings.test_limit])


def _rows(settings: Settings) -> Iterator[Row]:
    if settings.path is not None:
        yield from json_array(settings.path, "SVAMP.json")
        return
    for part in ("train", "test"):
        yield from hub_rows(HUB_DATASET, None, part, settings.revision)
