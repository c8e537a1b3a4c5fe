"""The pocket base model as it ships with the package: pretrained once, measured, and written into the package."""

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from aft.models.directory import ModelDirectory
from aft.models.shipped import ship
from aft.pipelines.parameters import PocketBase
from aft.sampling.settings import SamplerSettings, SamplingSettings
from aft.tasks import pocket
from aft.tasks.base import Question
from aft.tasks.pocket.steps import WRONG_ARITHMETIC, WRONG_DIRECTION

logger = logging.getLogger(__name__)

LOSSES = 100  # of so many first steps are kept: whoever makes the model again can compare them
MEASURED = pocket.Settings(train=1, validation=1, test=1000, seed=1)  # the questions on which its faults are measured
_ANSWERS = SamplingSettings(samples=0, greedy=True, max_new_tokens=80, block_size=250, batch_rows=250)


def make_pocket_base(made: PocketBase, cache: Path, folder: Path) -> ModelDirectory:
    """Pretrain the model (once per settings and `cache`), measure it, and write it into `folder`."""
    from aft.training.pretrain import pretrain_pocket

    trained = pretrain_pocket(made.corpus, made.architecture, made.training, cache)
    losses = [round(row["loss"], 6) for row in trained.curve[:LOSSES]]
    measured = measure(trained.directory, pocket.load_questions(MEASURED)["test"], cache)
    logger.info("The pocket base model: %s.", measured)
    ship(trained.directory, {"losses": losses, "measured": measured}, folder)
    return trained.directory


def measure(model: ModelDirectory, questions: list[Question], cache: Path) -> dict[str, Any]:
    """How `model` answers pocket questions greedily: as shares of the questions, rounded to thousandths.

    `right`, and `right_by_misconceived`: by how many events of the story have a verb whose direction the corpus
    mostly gets wrong; `wrong_direction` and `wrong_sum`: with a step of that fault.
    """
    from aft.sampling.run import sample_responses

    shards = sample_responses(model, questions, _ANSWERS, 0, cache, "answer questions", SamplerSettings())
    answers = pd.concat([pd.read_parquet(shard) for shard in shards]).set_index("question_id")["response"]
    right: dict[int, list[bool]] = defaultdict(list)
    faults = {"wrong_direction": 0, "wrong_sum": 0}
    for question in questions:
        story, response = pocket.parse_story(question.question), answers[question.question_id]
        assert story is not None  # pocket tells nothing else
        misconceived = sum(event.verb in pocket.MISCONCEIVED for event in story.events)
        right[misconceived].append(pocket.extract_answer(response) == question.answer)
        wrong = " ".join(pocket.wrong_steps(question, response))
        faults["wrong_direction"] += WRONG_DIRECTION in wrong
        faults["wrong_sum"] += WRONG_ARITHMETIC in wrong
    return {
        "questions": len(questions),
        "right": _share(sum(map(sum, right.values())), len(questions)),
        "right_by_misconceived": {str(n): _share(sum(right[n]), len(right[n])) for n in sorted(right)},
        **{name: _share(count, len(questions)) for name, count in faults.items()},
    }


def _share(count: int, of: int) -> float:
    return round(count / of, 3)
