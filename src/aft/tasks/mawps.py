"""MAWPS (Koncel-Kedziorski et al., NAACL 2016): collected arithmetic word problems, only evaluated on.

It comes in sets, which overlap. Prompt and answer extraction are GSM8K's. There is no reasoning to train on: a
reference is the line of its answer. Answers are floats, 0.8333333333333334 for 5/6, so that two are the same if they
agree to thousandths.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from aft.errors import DataError, SettingsError
from aft.tasks.answers import numbers_agree
from aft.tasks.base import Question, content_hash
from aft.tasks.gsm8k import extract_answer, prompt
from aft.tasks.rows import (
    check_not_negative,
    field,
    json_array,
    json_lines,
    number_question,
    only_tested,
    text_field,
    without_repeats,
)

__all__ = ["Settings", "answers_equal", "extract_answer", "load_questions", "prompt"]

MawpsSet = Literal["AddSub", "MultiArith", "SingleEq", "mawps_1920"]

answers_equal = numbers_agree


@dataclass(frozen=True, slots=True)
class Settings:
    """Where MAWPS comes from, and which of its sets are asked."""

    path: str
    """Folder with `<set>.json` as published (`sQuestion`, `lSolutions`).

    Of `mawps_1920`, the selection of SVAMP's authors, it is `mawps_1920.jsonl` (`question`, `answer`). Each file may be
    packed with gzip.
    """

    sets: tuple[MawpsSet, ...] = ("AddSub", "MultiArith", "SingleEq")
    """The sets that are asked, one after the other."""

    test_limit: int | None = None
    """Only the first so many questions, for small trials."""

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a value that has no meaning."""
        check_not_negative(self, "test_limit")
        unknown = sorted(set(self.sets) - set(get_args(MawpsSet)))
        if unknown or not self.sets:
            raise SettingsError(
                f"The setting 'sets' is {list(self.sets)}; choose of {', '.join(get_args(MawpsSet))}, at least one."
            )


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """All questions as test, set by set in published order, and neither train nor validation questions.

    A question that is asked twice, up to case and spaces, is kept once, in the first set that has it; a warning counts
    what that drops. Raises `DataError` for a missing file or a malformed row.
    """
    asked: set[str] = set()
    questions: list[Question] = []
    for name in settings.sets:
        new, asked = without_repeats(_published(settings.path, name), asked, f"questions of MAWPS' {name}")
        questions += new
    return only_tested(questions[: settings.test_limit])


def _published(path: str, name: str) -> list[Question]:
    is_selection = name == "mawps_1920"
    rows = json_lines(path, f"{name}.jsonl") if is_selection else json_array(path, f"{name}.json")
    questions = [
        number_question(
            question_id=f"mawps/{name}/{number:05d}",
            question=text_field(row, "question" if is_selection else "sQuestion", where),
            answer=field(row, "answer", where) if is_selection else _solution(row, where),
            where=where,
        )
        for number, (where, row) in enumerate(rows)
    ]
    # Some sets write "the beach ." where others write "the beach.".
    return [replace(question, content_hash=content_hash("".join(question.question.split()))) for question in questions]


def _solution(row: Any, where: str) -> Any:
    solutions = field(row, "lSolutions", where)
    if not isinstance(solutions, list) or len(solutions) != 1:
        raise DataError(f"{where} has no list of one number in 'lSolutions'; restore the published file.")
    return solutions[0]
