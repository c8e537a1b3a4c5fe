"""What lies beside a finished model in the data folder: its recipe's test questions, and what it reached on them."""

import json
from pathlib import Path

from aft.errors import DataError
from aft.files import MANIFEST
from aft.models.directory import ModelDirectory
from aft.models.push import Results
from aft.pipelines.tables import to_questions
from aft.tasks import Question

_QUESTIONS = "03_primary/{recipe}/test_questions.parquet"
_FIGURES = "08_reporting/{recipe}/{seed}/metrics/{variant}.json"


def questions_beside(model: ModelDirectory, path: Path | None = None) -> list[Question]:
    """The test questions of the model's recipe, or those of the table at `path`.

    Raises `DataError` if there is no such table, or none of its questions.
    """
    import pandas as pd

    path = path or _beside(model, _QUESTIONS)
    if not path.is_file():
        raise DataError(f"There are no test questions in {path}; run ingest, or name their table with --questions.")
    questions = to_questions(pd.read_parquet(path))
    if not questions:
        raise DataError(f"The table {path} has no question.")
    return questions


def results_of(model: ModelDirectory) -> Results | None:
    """What the model reached when it was evaluated; None if it was not, or was made anew since then."""
    figures, questions = _beside(model, _FIGURES), _beside(model, _QUESTIONS)
    if not (figures.is_file() and questions.is_file()):
        return None
    if figures.stat().st_mtime < (model.path / MANIFEST).stat().st_mtime:
        return None
    datasets = sorted({question.dataset for question in questions_beside(model)})
    return Results(" and ".join(datasets), json.loads(figures.read_text(encoding="utf-8")))


def _beside(model: ModelDirectory, pattern: str) -> Path:
    """A path of the data folder that the model lies in, as <data>/06_models/<recipe>/seed_<n>/<variant>."""
    folder = model.path.absolute()
    seed, recipe = folder.parent, folder.parent.parent
    return recipe.parent.parent / pattern.format(recipe=recipe.name, seed=seed.name, variant=folder.name)
