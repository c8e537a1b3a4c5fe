"""ECQA (Aggarwal et al., ACL 2021): everyday questions with five options and an explanation that judges each of them.

The explanations are of CommonsenseQA's questions, in a split of their own: 7,598 / 1,090 / 2,194, the AFT paper's, too
(arXiv 2309.02144). That split leaks: 32 train and 11 validation questions are test questions as well. Test stays whole,
so that results compare, and the others lose them.
"""

from collections.abc import Mapping
from typing import Any

from aft.bounds import CountOrZero
from aft.checked import checked
from aft.errors import DataError
from aft.tasks.base import Question
from aft.tasks.multiple_choice import answers_equal, choice_question, extract_answer, prompt
from aft.tasks.rows import field, file_rows, text_field, without_repeats

__all__ = ["Settings", "answers_equal", "extract_answer", "load_questions", "prompt"]


@checked
class Settings:
    """Where ECQA comes from."""

    path: str
    """Folder with the authors' split as `train.jsonl`, `val.jsonl` and `test.jsonl`, plain or packed with gzip.

    One object a line: `question`, `choices` (five texts), `answer` (A to E) and `free_flow`, the explanation in one
    piece. The copies on the hub name the answer by its text, which in some questions is that of two options.
    """

    train_limit: CountOrZero | None = None
    """Only the first so many training questions in published order, for small trials."""

    validation_limit: CountOrZero | None = None
    """Only the first so many validation questions in published order, for small trials."""

    test_limit: CountOrZero | None = None
    """Only the first so many test questions in published order, for small trials."""


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """Questions of each split in published order, named by the published set and the 0-based row in it.

    A question that is asked twice (by `content_hash`) is kept once, in test rather than in validation rather than in
    train; a warning counts what that drops. Raises `DataError` for a missing file or a malformed row.
    """
    test, asked = without_repeats(_published(settings, "test", "test"), frozenset(), "test questions of ECQA")
    val, asked = without_repeats(_published(settings, "val", "validation"), asked, "validation questions of ECQA")
    train, _ = without_repeats(_published(settings, "train", "train"), asked, "train questions of ECQA")
    return {
        "train": train[: settings.train_limit],
        "validation": val[: settings.validation_limit],
        "test": test[: settings.test_limit],
    }


def _published(settings: Settings, name: str, split: str) -> list[Question]:
    return [
        _question(row, where, f"ecqa/{name}/{number:05d}", split)
        for number, (where, row) in enumerate(file_rows(settings.path, f"{name}.jsonl"))
    ]


def _question(row: Any, where: str, question_id: str, split: str) -> Question:
    question = choice_question(
        question_id=question_id,
        split=split,
        question=text_field(row, "question", where),
        choices=field(row, "choices", where),
        answer=field(row, "answer", where),
        reasoning=text_field(row, "free_flow", where),
        where=where,
    )
    if extract_answer(question.reference) != question.answer:
        raise DataError(
            f"{where} has an explanation that is read as another answer than {question.answer}: it holds a '####', or "
            "goes on to a next question; restore the published file."
        )
    return question
