"""Evaluation: every variant answers the same test questions and scores the same held-out groups."""

import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from aft.alignment.variants import BASELINE
from aft.code import deciding, load_rooms, source_hash
from aft.directories import remembered
from aft.errors import DataError, SettingsError
from aft.evaluation.compare import Results, comparison_table, paired_differences
from aft.evaluation.predictions import GREEDY, PREDICTION_COLUMNS, measure, predictions
from aft.feedback.label import label_responses, rank_binary
from aft.files import digest
from aft.models.directory import ModelDirectory
from aft.pipelines.comparisons import variants_of
from aft.pipelines.content import content_hash, told
from aft.pipelines.parameters import Evaluation, Labelling
from aft.pipelines.tables import by_id, lookup, to_questions
from aft.pipelines.tables import candidates as check_candidates
from aft.pipelines.training import seed_key
from aft.sampling.settings import SamplerSettings, SamplingSettings
from aft.shards import Shards
from aft.tasks import get_task, marking_code
from aft.training.settings import Objective, TrainingSettings

if TYPE_CHECKING:  # matplotlib takes its time to import
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_Input = TypeVar("_Input")
Partitions = dict[str, Callable[[], pd.DataFrame]]  # tables of several seeds, loaded when asked for
ROOMS = (  # whose code decides a variant's results: all that make or judge a model
    *("alignment", "evaluation", "feedback", "models", "pipelines", "records.py", "sampling", "scoring", "server.py"),
    *("tasks", "training"),
)
# Of these whatever makes something loads and checks the code; that needs torch, and for what is found nobody does.
_LOADED_LATER = ("alignment", "sampling", "scoring", "training")
COUNTING = ("evaluation", "pipelines/evaluate")  # whose code makes figures of the tables
DRAWING = (*COUNTING, "alignment/variants.py", "pipelines/comparisons.py", "reporting", "tasks")  # and of these, pages
KINDS = ("predictions", "assessment", "other_predictions")  # the tables that a variant's figures come from


def identify(
    model: ModelDirectory,
    vft_model: ModelDirectory,
    train_questions: pd.DataFrame,
    test_questions: pd.DataFrame,
    other_questions: pd.DataFrame,
    training: TrainingSettings,
    objective: Objective,
    sampling: SamplingSettings,
    sampler: SamplerSettings,
    labelling: Labelling,
    sample_from: str | None,
    candidates_from: str | None,
    evaluation: Evaluation,
    seed: int,
) -> str:
    """Hash of all but the seed that decides the variant's results; those of several seeds are compared if it is equal.

    The code is in it, that which trained the model included, and what lies in a file or model that all seeds share.
    Raises `SettingsError` if the model was trained under other settings than the present ones.
    """
    made_from = model.made_from
    # VFT's model stands for an objective that had nothing to learn from beyond the references.
    asked_for = {**made_from, "objective": made_from.get("stands_for", made_from.get("objective"))}
    present = {"training": deciding(training), "objective": asdict(objective), "seed": seed}
    other = [name for name, value in present.items() if asked_for.get(name) != value]
    if other:
        raise SettingsError(
            f"The model in {model.path} was trained with another {' and '.join(other)} than is set now; "
            "train it again (vft_train or align_train), or evaluate with the settings that it was trained with."
        )
    vft = {name: value for name, value in vft_model.made_from.items() if name != "seed"}
    settings = [deciding(one) for one in (objective, sampling, evaluation.sampling, sampler, labelling)]
    tables = (train_questions, test_questions, other_questions)
    own = marking_code(name for table in tables for name in table["dataset"].unique())
    load_rooms(*(room for room in ROOMS if room not in _LOADED_LATER))
    code = [source_hash(*ROOMS), model.made_from.get("code"), own]
    asked = list(map(_asked, tables))
    files = [_shared(path, is_model=False) for path in (labelling.ratings_file, candidates_from)]
    held = [*files, _shared(sample_from, is_model=True)]
    return digest([vft, sample_from, candidates_from, settings, held, asked, code])


def _asked(table: pd.DataFrame) -> list[list[str]]:
    """What results follow from of each question: how it is asked, learnt and checked."""
    return [
        [one.question_id, one.dataset, get_task(one.dataset).prompt(one), one.reference, one.answer]
        for one in to_questions(table)
    ]


def _shared(path: str | None, *, is_model: bool) -> str | None:
    """Hash of what lies at a path that all seeds share; what lies at one with {seed} is to differ between them."""
    return None if path is None or "{seed}" in path else content_hash(Path(path), is_model)


def generate(
    model: ModelDirectory,
    test_questions: pd.DataFrame,
    evaluation: Evaluation,
    sampler: SamplerSettings,
    seed: int,
    sample_cache: str,
) -> Shards:
    """The shards with the variant's greedy answer and its samples for every test question."""
    from aft.sampling.run import sample_responses

    questions, cache = to_questions(test_questions), Path(sample_cache)
    settings = evaluation.sampling
    label = "answer test questions"
    return Shards(sample_responses(model, questions, settings, seed, cache, label, _for_variants(sampler)))


def generate_others(
    model: ModelDirectory,
    other_questions: pd.DataFrame,
    evaluation: Evaluation,
    sampler: SamplerSettings,
    seed: int,
    sample_cache: str,
) -> Shards:
    """The shards with the variant's greedy answer to every question of the other sets."""
    from aft.sampling.run import sample_responses

    questions, cache = to_questions(other_questions), Path(sample_cache)
    settings = replace(evaluation.sampling, samples=0)
    label = "answer other sets"
    return Shards(sample_responses(model, questions, settings, seed, cache, label, _for_variants(sampler)))


def _for_variants(sampler: SamplerSettings) -> SamplerSettings:
    """Where a variant answers: the workers of a cluster that have the model serve for any, a server has another one."""
    return sampler if sampler.engine == "local" else SamplerSettings()


def predict(generations: Shards, test_questions: pd.DataFrame, seed: int, identity: str) -> dict[str, pd.DataFrame]:
    """The predictions of this seed, under the seed's key; they carry the identity of what made them.

    A question without a response counts as wrong, and the log says how many there are.
    """
    asked = lookup(test_questions)
    labelled = pd.concat(
        [
            label_responses(check_candidates(rows), asked(rows["question_id"])).drop(columns="token_ids")
            for rows in generations
        ],
        ignore_index=True,
    )
    table = predictions(labelled, test_questions["question_id"])
    unanswered = table["question_id"].nunique() - labelled["question_id"].nunique()
    if unanswered:
        logger.warning(
            "%d of %d questions were too long to be answered and count as wrong.", unanswered, len(test_questions)
        )
    return {seed_key(seed): table.assign(identity=identity)}


def predict_others(
    generations: Shards,
    other_questions: pd.DataFrame,
    predictions: Partitions,
    test_questions: pd.DataFrame,
    seed: int,
    identity: str,
) -> dict[str, pd.DataFrame]:
    """As `predict`, for the other sets; the column `set` names a question's set.

    If the test questions are of several datasets, the answers to those of each dataset are a set, too.
    """
    key = seed_key(seed)
    tables = [pd.DataFrame(columns=[*PREDICTION_COLUMNS, "set", "identity"])]
    if generations.paths:
        rows = predict(generations, other_questions, seed, identity)[key]
        tables.append(rows.assign(set=rows["question_id"].map(other_questions.set_index("question_id")["split"])))
    datasets = test_questions.set_index("question_id")["dataset"]
    if datasets.nunique() > 1:
        rows = predictions[key]().query(f"sample_index == {GREEDY}")
        tables.append(rows.assign(set=rows["question_id"].map(datasets)))
    return {key: tables[0] if len(tables) == 1 else pd.concat(tables[1:], ignore_index=True)}


def build_assessment_groups(generations: Shards, test_questions: pd.DataFrame) -> pd.DataFrame:
    """Held-out groups to assess models on: the distinct samples of the VFT model for the test questions, labelled."""
    sampled = generations.table().query(f"sample_index != {GREEDY}")
    return rank_binary(label_responses(sampled, by_id(test_questions)), deduplicate=True)


def assess(
    model: ModelDirectory,
    assessment_groups: pd.DataFrame,
    test_questions: pd.DataFrame,
    evaluation: Evaluation,
    training: TrainingSettings,
    seed: int,
    identity: str,
    score_cache: str,
) -> dict[str, pd.DataFrame]:
    """The scores that the variant gives the held-out groups, under the seed's key."""
    from aft.scoring.responses import score_responses

    questions, precision = by_id(test_questions), evaluation.sampling.precision
    budget = training.token_budget
    scores = score_responses(model, assessment_groups, questions, precision, Path(score_cache), token_budget=budget)
    scored = assessment_groups[["question_id", "sample_index", "is_correct"]]
    return {seed_key(seed): scored.assign(score=scores, identity=identity)}


def summarise_variant(
    predictions: Partitions,
    assessment: Partitions,
    other_predictions: Partitions,
    seed: int,
    evaluation: Evaluation,
    score_cache: str,
) -> dict[str, float]:
    """All figures of this seed."""
    key = seed_key(seed)
    rows, scored, others = (rows[key]() for rows in (predictions, assessment, other_predictions))
    asked = (rows, scored, evaluation.ks, evaluation.level, others, evaluation.resamples)
    return kept(score_cache, "figures of a variant", asked, lambda: measure(*asked), *COUNTING)


def compare(
    evaluation: Evaluation, seed: int, score_cache: str, **partitions: Partitions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The comparison table and all paired differences, over every seed that all variants were run for as for this one.

    `partitions` holds `predictions.<variant>`, `assessment.<variant>` and `other_predictions.<variant>`.
    """
    names = by_variant(partitions, KINDS[0])
    alike = {name: alike_seeds(name, *(partitions[f"{kind}.{name}"] for kind in KINDS), seed=seed) for name in names}
    seeds = _common_seeds({name: list(tables[0]) for name, tables in alike.items()})
    results = {name: Results(*({one: rows[one] for one in seeds} for rows in tables)) for name, tables in alike.items()}
    ks, level, resamples = evaluation.ks, evaluation.level, evaluation.resamples

    def columns() -> list[Any]:
        table = comparison_table(results, ks, BASELINE, level, resamples)
        pairs = paired_differences({name: one.predictions for name, one in results.items()}, level, resamples)
        return [one.to_dict("list") for one in (table, pairs)]

    tables = {name: (one.predictions, one.groups, one.others) for name, one in results.items()}
    asked = (tables, ks, level, resamples)
    table, paired = kept(score_cache, "comparison", asked, columns, *COUNTING)
    return pd.DataFrame(table), pd.DataFrame(paired)


def kept(cache: str, kind: str, asked: Sequence[Any], make: Callable[[], Any], *rooms: str) -> Any:
    """What `make` gives, as JSON has it, for what is `asked`: kept in `cache`, and made again if the code changes."""
    return remembered(Path(cache), {"kind": kind, "of": digest(told(asked))}, make, *rooms)


def by_variant(inputs: dict[str, _Input], kind: str) -> dict[str, _Input]:
    """The inputs of a node that are called `<kind>.<variant>`, by variant, in their order."""
    return {name.removeprefix(f"{kind}."): one for name, one in inputs.items() if name.startswith(f"{kind}.")}


def _common_seeds(seeds: dict[str, list[int]]) -> list[int]:
    """The seeds that every variant has; a warning names the others, which are not compared."""
    common = sorted(set.intersection(*map(set, seeds.values())))
    more = {name: [one for one in own if one not in common] for name, own in seeds.items()}
    if any(more.values()):
        logger.warning(
            "Compared over seed %s only, which every variant has; left out: %s. Run these seeds to compare them.",
            ", ".join(map(str, common)),
            "; ".join(f"{name} of seed {', '.join(map(str, own))}" for name, own in more.items() if own),
        )
    return common


def _picture(score_cache: str, draw: "Callable[..., Figure]", *asked: Any) -> bytes:
    """The figure that `draw` makes of what it is asked, as PNG."""

    def drawn() -> str:
        picture = BytesIO()
        draw(*asked).savefig(picture, format="png")
        return b64encode(picture.getvalue()).decode("ascii")

    return b64decode(kept(score_cache, draw.__name__.replace("_", " "), asked, drawn, *DRAWING))


def draw_accuracy(comparison: pd.DataFrame, align: dict[str, Any], score_cache: str) -> bytes:
    """Accuracy of every variant with its interval."""
    from aft.reporting.figures import accuracy_figure

    points = comparison["per_seed"].map(lambda text: [float(value) for value in str(text).split()])
    return _picture(score_cache, accuracy_figure, comparison.assign(per_seed=points), variants_of(align))


def draw_scores(seed: int, align: dict[str, Any], score_cache: str, **assessments: Partitions) -> bytes:
    """Scores of held-out positives and negatives under every variant, for this seed."""
    from aft.reporting.figures import score_histogram_figure

    scored = by_variant(assessments, "assessment")
    tables = [rows[seed_key(seed)]().assign(variant=name) for name, rows in scored.items()]
    return _picture(score_cache, score_histogram_figure, pd.concat(tables, ignore_index=True), variants_of(align))


def draw_training(comparison: pd.DataFrame, align: dict[str, Any], score_cache: str, **curves: Partitions) -> bytes:
    """Scores and validation accuracy while training, for every variant and every seed of the comparison."""
    from aft.reporting.figures import training_curves_figure

    compared = comparison.set_index("variant")["seeds"].astype(str).str.split()
    tables = [
        curve[seed_key(seed)]().assign(variant=name, seed=seed)
        for name, curve in by_variant(curves, "training_curve").items()
        for seed in compared[name]
    ]
    return _picture(score_cache, training_curves_figure, pd.concat(tables, ignore_index=True), variants_of(align))


def draw_reliability(seed: int, align: dict[str, Any], score_cache: str, **predictions: Partitions) -> bytes:
    """How often each variant's sampled answers are right, by the confidence that it has in them, for this seed."""
    from aft.evaluation.calibration import reliability
    from aft.reporting.figures import reliability_figure

    tables = {}
    for name, rows in by_variant(predictions, "predictions").items():
        sampled = rows[seed_key(seed)]().query(f"sample_index != {GREEDY}")
        tables[name] = reliability(sampled["score"], sampled["is_correct"])
    return _picture(score_cache, reliability_figure, tables, variants_of(align))


def alike_seeds(name: str, *tables: Partitions, seed: int) -> list[dict[int, pd.DataFrame]]:
    """The tables of the seeds whose results were made as this seed's were, by seed; others are named and left out.

    `tables` are partitions of one variant with the column `identity`, the first of them its predictions. Figures follow
    from labels, answers and scores: the texts of responses, most of a table, are dropped as it is loaded.
    """
    keys = set.intersection(*(set(table) for table in tables))
    loaded = {
        int(key.removeprefix(seed_key(""))): [
            table[key]().drop(columns="response", errors="ignore") for table in tables
        ]
        for key in keys
    }
    if seed not in loaded:
        raise DataError(f"There are no results of {name} for seed {seed}; run evaluate for it.")
    identity = loaded[seed][0]["identity"].iloc[0]
    alike = {
        one: rows for one, rows in sorted(loaded.items()) if all((row["identity"] == identity).all() for row in rows)
    }
    if len(alike) < len(loaded):
        left_out = ", ".join(f"seed {one}" for one in sorted(loaded.keys() - alike.keys()))
        logger.warning(
            "%s: left out %s, made under other settings or code; run these seeds again to compare them.", name, left_out
        )
    return [{one: rows[i].drop(columns="identity") for one, rows in alike.items()} for i in range(len(tables))]
