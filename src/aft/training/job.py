"""A training run as files: what every process of it reads, whichever machine it runs on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aft.code import load_rooms, source_hash
from aft.errors import WorkerError
from aft.files import write_json
from aft.models.directory import ModelDirectory
from aft.tasks import Question
from aft.training import selection
from aft.training.examples import Example
from aft.training.settings import Objective, Sharding, TrainingSettings
from aft.training.stored import StoredExamples, write_examples

ROOMS = ("alignment", "models", "scoring", "training")  # whose code decides what a model learns
_ORDER, _EXAMPLES, _PROBE = "order.json", "examples.arrow", "probe.arrow"


@dataclass(frozen=True, slots=True)
class Job:
    """What a model is trained on, and how."""

    examples: Sequence[Example]
    settings: TrainingSettings
    objective: Objective
    seed: int
    label: str  # of the progress bar, the log and the kind of model
    probe: Sequence[Example] = ()  # right responses to questions that are not trained on, see `aft.training.loop`
    exam: selection.Exam | None = None  # what epochs are selected by (`select: validation`)
    card: str = ""  # of the finished model


def rooms_of(exam: selection.Exam | None) -> tuple[str, ...]:
    """The rooms whose code decides what a model learns and, with an exam, which epoch of it is kept."""
    return ROOMS if exam is None else (*ROOMS, *selection.ROOMS)


def write_job(folder: Path, job: Job, start: ModelDirectory, sharding: Sharding) -> None:
    """Write a job into `folder`, with the model that it starts from."""
    write_examples(folder / _EXAMPLES, job.examples)
    write_examples(folder / _PROBE, job.probe)
    order = {
        "settings": asdict(job.settings),
        "objective": asdict(job.objective),
        **{"seed": job.seed, "label": job.label, "card": job.card},
        **{"start": str(start.path.absolute()), "fingerprint": start.fingerprint, "sharding": sharding},
        "exam": None if job.exam is None else asdict(job.exam),
        "code": source_hash(*rooms_of(job.exam)),
    }
    write_json(folder / _ORDER, order)


def read_job(folder: Path) -> tuple[Job, ModelDirectory, Sharding]:
    """The job in `folder`, the model that it starts from, and how its weights are sharded.

    Raises `WorkerError` if it was written by other code than that of this process: the model has that code in its key.
    """
    order: dict[str, Any] = json.loads((folder / _ORDER).read_text(encoding="utf-8"))
    exam = None if order["exam"] is None else _exam(**order["exam"])
    if order["code"] != load_rooms(*rooms_of(exam)):
        raise WorkerError(
            "The code has changed while the run was going, or is another one on this machine; "
            "run the same command again, with the same code everywhere."
        )
    job = Job(
        StoredExamples(folder / _EXAMPLES),
        TrainingSettings(**order["settings"]),
        Objective(**order["objective"]),
        order["seed"],
        order["label"],
        list(StoredExamples(folder / _PROBE)),
        exam,
        order["card"],
    )
    return job, ModelDirectory(Path(order["start"]), order["fingerprint"]), order["sharding"]


def _exam(questions: list[dict[str, Any]], **settings: int) -> selection.Exam:
    """The exam as it was before JSON made a list of a question's choices."""
    asked = [{**one, "choices": one["choices"] and tuple(one["choices"])} for one in questions]
    return selection.Exam([Question(**one) for one in asked], **settings)
