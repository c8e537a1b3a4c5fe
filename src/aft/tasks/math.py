r"""MATH (Hendrycks et al., arXiv 2103.03874) and sets of its form: competition mathematics, answered in `\boxed{}`.

MATH-500 (Lightman et al., arXiv 2305.20050) has 500 of its test questions. An answer is what the last box holds; two
are compared as numbers, else by math-verify (`aft.tasks.latex`).
"""

from collections.abc import Mapping
from pathlib import Path

from aft.bounds import CountOrZero
from aft.checked import checked
from aft.errors import DataError
from aft.tasks import gsm8k, latex
from aft.tasks.base import SPLITS, Question, content_hash
from aft.tasks.checks import AnswerCheck
from aft.tasks.rows import MEND, Row, file_rows, hub_rows, text_field, without_repeats

HUB_DATASET = "HuggingFaceH4/MATH-500"

_ASKED = "{question}\n\nReason step by step, and put your final answer within \\boxed{{}}."
_CHECK = AnswerCheck("math", "boxed")

extract_answer = _CHECK.extract_answer
answers_equal = _CHECK.answers_equal


@checked
class Settings:
    """Where the questions come from."""

    path: str | None = None
    """Folder with `test.jsonl` and, to train on, `train.jsonl` and `validation.jsonl`, plain or packed with gzip.

    One object a line: `problem` and `solution`, which ends in the answer in a box. Without it, the hub's MATH-500: 500
    test questions.
    """

    revision: str = "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"
    """Commit of the hub's data set; not used with `path`."""

    train_limit: CountOrZero | None = None
    """Only the first so many training questions in published order, for small trials."""

    validation_limit: CountOrZero | None = None
    """Only the first so many validation questions in published order, for small trials."""

    test_limit: CountOrZero | None = None
    """Only the first so many test questions in published order, for small trials."""


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """Questions of each split in published order, named by the published set and the 0-based row in it.

    A question that is asked twice (by `content_hash`) is kept once, in test rather than in validation rather than in
    train; a warning counts what that drops. Raises `DataError` for a missing file or a malformed row, `SettingsError`
    if math-verify is not installed.
    """
    latex.check_installed()
    limits = {"train": settings.train_limit, "validation": settings.validation_limit, "test": settings.test_limit}
    kept: dict[str, list[Question]] = {}
    asked: set[str] = set()
    for split in reversed(SPLITS):
        rows = enumerate(_published(settings, split))
        questions = [_question(row, f"math/{split}/{number:05d}", split) for number, row in rows]
        kept[split], asked = without_repeats(questions, asked, f"{split} questions of MATH")
    return {split: kept[split][: limits[split]] for split in SPLITS}


def prompt(question: Question) -> str:
    """Alpaca's template, in which the question is followed by the wish to reason and to box the answer."""
    return gsm8k.PROMPT.format(question=_ASKED.format(question=question.question))


def _published(settings: Settings, split: str) -> list[Row]:
    """The rows of a split; of a folder all but the test questions may be missing."""
    if settings.path is None:
        return list(hub_rows(HUB_DATASET, None, split, settings.revision)) if split == "test" else []
    names = (f"{split}.jsonl", f"{split}.jsonl.gz")
    if split != "test" and not any((Path(settings.path) / name).is_file() for name in names):
        return []
    return list(file_rows(settings.path, names[0]))


def _question(row: Row, question_id: str, split: str) -> Question:
    where, fields = row
    asked, solution = (text_field(fields, name, where) for name in ("problem", "solution"))
    answer = extract_answer(solution)
    if answer is None:
        raise DataError(f"{where} has no answer in a box in its solution; {MEND}.")
    return Question(
        question_id=question_id,
        dataset="math",
        split=split,
        question=asked,
        choices=None,
        reference=solution,
        answer=answer,
        content_hash=content_hash(asked),
    )
