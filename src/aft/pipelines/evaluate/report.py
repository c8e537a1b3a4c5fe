"""The nodes of the pages for people: the HTML report, and the page of answers, from what the other nodes made."""

from typing import Any

import pandas as pd

from aft import __version__
from aft.files import digest
from aft.pipelines.comparisons import variants_of
from aft.pipelines.evaluate.nodes import DRAWING, Partitions, by_variant, kept
from aft.pipelines.parameters import Evaluation
from aft.pipelines.recorded import recorded_parameters
from aft.pipelines.tables import to_questions
from aft.pipelines.training import seed_key
from aft.reporting.answers import MOST_QUESTIONS, answers_page, drawn
from aft.reporting.report import Compared, MadeOf, html_report
from aft.tasks import marking_code
from aft.training.run import kept_warnings

FIGURES = ("accuracy_figure", "score_figure", "training_figure", "reliability_figure")


def write_report(
    comparison: pd.DataFrame,
    paired_differences: pd.DataFrame,
    feedback_summary: dict[str, Any],
    parameters: dict[str, Any],
    recipe: str,
    evaluation: Evaluation,
    train_questions: pd.DataFrame,
    test_questions: pd.DataFrame,
    task: dict[str, Any],
    test_sets: dict[str, Any],
    **others: Any,
) -> str:
    """The page, in HTML; `task` and `test_sets` say where the questions are from.

    `others` are the pictures of `FIGURES`, `base_model`, and `model.<variant>` of each.
    """
    models = {f"{name}_model": model for name, model in by_variant(others, "model").items()}
    models["base_model"] = others["base_model"]
    data = {"train_questions": train_questions, "test_questions": test_questions}
    objectives = {variant: parameters["align"][variant]["objective"] for variant in comparison["variant"]}
    compared = Compared(
        *(recipe, comparison, paired_differences, variants_of(parameters["align"])), level=evaluation.level
    )
    made_of = MadeOf(
        feedback_summary,
        settings={**recorded_parameters({**parameters, "task": task, "test_sets": test_sets}), "align": objectives},
        hashes={
            "models": {name: model.fingerprint for name, model in models.items()},
            "questions": {name: digest(table["content_hash"].tolist()) for name, table in data.items()},
        },
        version=__version__,
        warnings=[
            f"{name}: {told}"
            for name, model in by_variant(others, "model").items()
            for told in kept_warnings(model.path)
        ],
    )
    return html_report(compared, made_of, {name: others[name] for name in FIGURES})


def write_answers(
    recipe: str, seed: int, test_questions: pd.DataFrame, score_cache: str, **predictions: Partitions
) -> str:
    """The page of this seed's answers, in HTML; `predictions` are `predictions.<variant>` of each.

    Of each variant's answers those alone are kept that the page has.
    """
    questions = to_questions(test_questions)
    shown = [one.question_id for one in drawn(questions, MOST_QUESTIONS)]
    loaded = ((name, rows[seed_key(seed)]()) for name, rows in by_variant(predictions, "predictions").items())
    given = {name: table[table["question_id"].isin(shown)] for name, table in loaded}
    asked = (recipe, seed, test_questions, given, __version__, marking_code(test_questions["dataset"]))

    def page() -> str:
        return answers_page(recipe=recipe, seed=seed, questions=questions, predictions=given, version=__version__)

    return kept(score_cache, "page of answers", asked, page, *DRAWING)
