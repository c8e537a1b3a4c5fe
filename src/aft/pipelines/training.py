"""What `vft_train` and `align_train` share: from tables to a trained model and its curve."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from aft.code import deciding
from aft.directories import remembered, reused
from aft.errors import DataError
from aft.files import digest
from aft.models.chat import ChatSettings, PromptStyle, chat_settings, prompt_style
from aft.models.directory import ModelDirectory, on_device, open_model
from aft.models.publish import standing_for
from aft.pipelines.content import told
from aft.pipelines.parameters import Evaluation
from aft.pipelines.tables import lookup, to_questions
from aft.tasks import marking_code
from aft.training.settings import Launch, Objective, TrainingSettings

if TYPE_CHECKING:
    from aft.training.examples import Block, Example
    from aft.training.selection import Exam

logger = logging.getLogger(__name__)

_ROOMS = ("alignment", "feedback", "models", "pipelines", "sampling", "scoring", "server.py", "tasks", "training")
_TELLING = ("aft.training.examples", "aft.sampling.room")  # loggers of what is left out
_BLOCK = 1000  # questions that are read together
PROBE_SIZE = 64  # validation references that the degradation monitor scores while training
NO_REFERENCES = (
    "No training question has a reference: VFT is skipped, and vft is the base model, which has learnt nothing. The "
    "samples come from it, every variant starts from it and imitates right samples alone (rejection sampling)."
)


@dataclass(frozen=True)
class Questions:
    """What a training reads of the questions: those to learn, those to watch, and the hashes of those never to see."""

    train: pd.DataFrame
    validation: pd.DataFrame
    held_out: list[str]


@dataclass(frozen=True)
class Origin:
    """What everything began with: the recipe's name and the base model."""

    recipe: str
    base_model: ModelDirectory

    def provenance(self, datasets: Iterable[str], style: PromptStyle, chat: ChatSettings) -> dict[str, Any]:
        """What the card of a model says that is trained on questions of these datasets, one for each question.

        It is in no key of a cache, see `model_card`.
        """
        made_from, counts = self.base_model.made_from, Counter(datasets)
        return {
            "recipe": self.recipe,
            "data": ", ".join(f"{dataset} ({count})" for dataset, count in counts.items()),
            "prompt_style": style,
            "chat": chat.told,
            "base": made_from.get("name") or made_from.get("kind"),
            "base_fingerprint": made_from.get("fingerprint", self.base_model.fingerprint),  # as it was given
            "base_model": made_from.get("name"),
        }


@dataclass(frozen=True)
class Setup:
    """How something is trained, and where; `evaluation` says how epochs are examined."""

    training: TrainingSettings
    objective: Objective
    seed: int
    model_cache: str
    launch: Launch
    evaluation: Evaluation


def train_on(
    start: ModelDirectory,
    questions: Questions,
    feedback: Iterable[pd.DataFrame],
    setup: Setup,
    origin: Origin,
    feedback_hash: Any = None,
) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
    """Train `start`; the model, and its curve under the seed's key.

    Held-out questions, also as examples in chat prompts, are refused by content hash.

    Where epochs are selected, they answer the validation questions as variants answer those of `evaluation`, greedily.

    A variant that has nothing to learn from beyond the references gets VFT's model, which is not trained again,
    under a manifest that says for which objective it stands; one that learns nothing gets `start`.

    Which model came out is remembered by what it follows from, `feedback_hash` in place of the feedback: then neither
    tokenizer nor examples are needed, and what was warned of is told again.
    """
    from aft.training.run import CURVE_COLUMNS, read_curve

    cache = Path(setup.model_cache)

    def make() -> dict[str, Any]:
        with _overheard(*_TELLING) as warnings:
            model = _model_of(start, questions, feedback, setup, origin)
        return {"model": model.path.name, "warnings": warnings}

    def holds(known: dict[str, Any]) -> bool:
        if not reused(cache / known["model"]):
            return False
        for sentence in known["warnings"]:
            logger.warning("%s", sentence)
        return True

    follows_from = [
        *(start.fingerprint, start.made_from, told([questions.train, questions.validation]), questions.held_out),
        *(feedback_hash, deciding(setup.training), asdict(setup.objective), setup.seed),
        setup.evaluation.sampling.max_new_tokens,
        marking_code([*questions.train["dataset"], *questions.validation["dataset"]]),
    ]
    description = {"kind": f"which model train {setup.objective.label} gives", "of": digest(follows_from)}
    model = open_model(cache / remembered(cache, description, make, *_ROOMS, holds=holds)["model"])
    if not setup.objective.learns:
        return _without_curve(model, setup.seed)
    return model, {seed_key(setup.seed): pd.DataFrame(read_curve(model.path), columns=list(CURVE_COLUMNS))}


def _model_of(
    start: ModelDirectory, questions: Questions, feedback: Iterable[pd.DataFrame], setup: Setup, origin: Origin
) -> ModelDirectory:
    """The model of `train_on`; its examples are made to see whether it was trained on them before."""
    from aft.training.examples import Overview, effective_objective, examples_of, refuse_held_out
    from aft.training.job import Job
    from aft.training.run import train
    from aft.training.stored import stored

    training, objective, seed = setup.training, setup.objective, setup.seed
    tokenizer, cache = start.tokenizer(), Path(setup.model_cache)
    chat = chat_settings(tokenizer)
    refuse_held_out((one for some, _ in blocks(questions.train) for one in some), questions.held_out, chat.examples)
    if not objective.learns:
        return untrained(start, objective, training, seed, setup.model_cache)[0]

    def references(of: pd.DataFrame) -> "Iterator[Example]":
        told = of[of["reference"] != ""]
        return iter(()) if told.empty else examples_of(blocks(told), tokenizer, Objective(), training.max_tokens)

    exam = _exam(start, questions.validation, setup.evaluation, cache) if training.select == "validation" else None
    probe: list[Example] = []
    with suppress(DataError):  # all references that would be watched are too long
        probe += references(watched(questions.validation))
    made = examples_of(blocks(questions.train, feedback), tokenizer, objective, training.max_tokens, start.end_tokens())
    with stored(made, cache) as (examples, overview):
        effective = effective_objective(objective, overview, lambda: Overview(references(questions.train)))
        trained = train(
            start,
            Job(examples, training, effective, seed, f"train {effective.label}", probe, exam),
            cache,
            launch=setup.launch,
            provenance=origin.provenance(questions.train["dataset"], prompt_style(tokenizer), chat),
            overview=overview,
        )
    model = trained.directory
    return model if effective == objective else standing_for(model, asdict(objective), cache)


@contextmanager
def _overheard(*names: str) -> Iterator[list[str]]:
    """The warnings that the loggers of these names tell meanwhile."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in names]
    for one in loggers:
        one.addHandler(handler)
    try:
        yield heard
    finally:
        for one in loggers:
            one.removeHandler(handler)


def untrained(
    start: ModelDirectory,
    objective: Objective,
    training: TrainingSettings,
    seed: int,
    model_cache: str,
    *,
    warnings: Sequence[str] = (),
) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
    """`start` itself as the model of an objective that has nothing to learn, and a curve without a step."""
    under = {"training": deciding(training), "seed": seed}
    model = standing_for(start, asdict(objective), Path(model_cache), under=under, warnings=warnings)
    return _without_curve(model, seed)


def _without_curve(model: ModelDirectory, seed: int) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
    from aft.training.run import CURVE_COLUMNS

    return model, {seed_key(seed): pd.DataFrame(columns=list(CURVE_COLUMNS), dtype=float)}


def _exam(start: ModelDirectory, validation: pd.DataFrame, evaluation: Evaluation, cache: Path) -> "Exam":
    """All validation questions whose prompts leave room for an answer."""
    from aft.sampling.room import with_room
    from aft.training.selection import Exam

    asked = evaluation.sampling
    questions = with_room(start, to_questions(validation), asked.max_new_tokens, cache)
    return Exam(questions, asked.max_new_tokens, asked.batch_rows)


def with_reference_scores(
    feedback: Iterable[pd.DataFrame],
    vft_model: ModelDirectory,
    train_questions: pd.DataFrame,
    training: TrainingSettings,
    score_cache: Path,
) -> Iterator[pd.DataFrame]:
    """The feedback with the scores of DPO's reference model, which is the VFT model, made once for all variants.

    They are made in the precision in which the policy is trained: else the two would differ by rounding alone. (Beside
    four-bit weights the reference model is in float32.)
    """
    from aft.scoring.responses import score_responses

    weights = "bfloat16" if training.weights == "bfloat16" else "float32"
    asked, load = lookup(train_questions), cache(lambda: on_device(vft_model.model(weights)))
    for rows in feedback:
        scores = score_responses(
            *(vft_model, rows, asked(rows["question_id"]), training.precision, score_cache),
            token_budget=training.token_budget,
            weights=weights,
            load=load,
        )
        yield rows.assign(reference_score=scores)


def blocks(questions: pd.DataFrame, feedback: Iterable[pd.DataFrame] = ()) -> "Iterator[Block]":
    """All questions in their order, some at a time, with the rows of the feedback on them, which has the same order."""
    index, done = pd.Index(questions["question_id"]), 0
    for rows in feedback:
        last = max(index.get_indexer(pd.Index(rows["question_id"].unique())), default=-1)
        yield to_questions(questions[done : last + 1]), rows.to_dict("records")
        done = max(done, last + 1)
    for start in range(done, len(questions), _BLOCK):
        yield to_questions(questions[start : start + _BLOCK]), []


def watched(validation: pd.DataFrame) -> pd.DataFrame:
    """The first `PROBE_SIZE` validation questions, as many of each dataset as there are, in the table's order."""
    turn = validation.groupby("dataset").cumcount()  # the first of every dataset come first, then the second ones
    return validation.loc[turn.sort_values(kind="stable").index[:PROBE_SIZE]].sort_index()


def seed_key(seed: int | str) -> str:
    """The name of one seed's partition, where the results of several seeds lie side by side."""
    return f"seed_{seed}"
