"""From tables to a trained model: what the monitor watches, and in which precision DPO's two models are."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.directories import MANIFEST
from aft.errors import DataError, SettingsError
from aft.models.card import CARD
from aft.models.chat import CHAT_KEY
from aft.models.directory import ModelDirectory, open_model
from aft.models.publish import publish
from aft.models.tokens import encode_response
from aft.pipelines.align_train.nodes import train_variant
from aft.pipelines.evaluate import nodes
from aft.pipelines.parameters import Evaluation, Labelling
from aft.pipelines.tables import to_table
from aft.pipelines.training import NO_REFERENCES
from aft.pipelines.vft_train.nodes import train_vft
from aft.sampling.settings import SamplerSettings, SamplingSettings
from aft.tasks import Question
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import kept_warnings
from aft.training.settings import Launch, Objective, TrainingSettings

EVALUATION = Evaluation(SamplingSettings(samples=1, greedy=True), ks=[1])
TRAINING = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=4, monitor_every=None)

Train = Callable[..., tuple[ModelDirectory, dict[str, pd.DataFrame]]]


@pytest.fixture
def feedback(pocket_questions: list[Question], pocket_tokenizer: Any) -> pd.DataFrame:
    """Four distinct samples of each of four questions, the first two of them right."""
    texts = [question.reference for question in pocket_questions]
    rows = [
        {"question_id": question.question_id, "sample_index": j, "token_ids": encode_response(pocket_tokenizer, text)}
        for i, question in enumerate(pocket_questions[:4])
        for j, text in enumerate(texts[i + 1 : i + 5])
    ]
    right = [row["sample_index"] < 2 for row in rows]
    ranks = pd.Series([int(not one) for one in right], dtype="Int64")
    return pd.DataFrame(rows).assign(
        is_correct=right, rank=ranks, rating_rank=ranks, distinct_equations=True, sum_logprob=-9.0
    )


@pytest.fixture
def train(
    pocket_directory: ModelDirectory, pocket_questions: list[Question], feedback: pd.DataFrame, tmp_path: Path
) -> Train:
    """Train a variant, or VFT if none is given, on the first four questions."""

    def run(
        objective: Objective | None = None,
        training: TrainingSettings = TRAINING,
        feedback: pd.DataFrame = feedback,
        validation: pd.DataFrame | None = None,
        asked: list[Question] = pocket_questions[:4],
        held_out: Sequence[str] = (),
    ) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
        tables = (to_table(asked), to_table([]) if validation is None else validation)
        options = {"seed": 0, "model_cache": str(tmp_path / "models"), "launch": Launch(), "recipe": "r"}
        options["evaluation"] = EVALUATION
        if objective is None:
            return train_vft(pocket_directory, *tables, list(held_out), training, **options)
        options["score_cache"] = str(tmp_path / "scores")
        models = (pocket_directory, pocket_directory)
        return train_variant(*models, *tables, [feedback], list(held_out), training, objective, **options)

    return run


# --- the monitor's probe ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "watched"),
    [
        ({"gsm8k": 80, "aqua_rat": 70, "ecqa": 100}, {"gsm8k": 22, "aqua_rat": 21, "ecqa": 21}),
        ({"gsm8k": 80, "ecqa": 5}, {"gsm8k": 59, "ecqa": 5}),  # a short one is filled up for
        ({"gsm8k": 80}, {"gsm8k": 64}),
        ({"gsm8k": 2, "ecqa": 1}, {"gsm8k": 2, "ecqa": 1}),
    ],
)
def test_the_monitor_watches_the_first_questions_of_every_dataset_in_equal_shares(
    sizes: dict[str, int],
    watched: dict[str, int],
    train: Train,
    pocket_questions: list[Question],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 in all, in the order of the table."""
    probes: list[Sequence[Example]] = []

    def stop(start: ModelDirectory, job: Job, *given: Any, **options: Any) -> None:
        probes.append(job.probe)
        raise KeyboardInterrupt

    monkeypatch.setattr("aft.training.run.train", stop)
    rows = [(name, i) for name, size in sizes.items() for i in range(size)]
    held_out = [
        dataclasses.replace(pocket_questions[5], question_id=f"{name}/{i}", dataset=name, choices=("a", "b"))
        for name, i in rows
    ]
    with pytest.raises(KeyboardInterrupt):
        train(validation=to_table(held_out))
    expected = [f"{name}/{i}" for name, size in watched.items() for i in range(size)]
    assert [example.question_id for example in probes[0]] == expected


# --- DPO's reference model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_dpo_compares_the_policy_with_a_reference_of_its_own_precision(precision: Any, train: Train) -> None:
    """Before its first step a policy that starts from the reference model is that model: all log-ratios are 0.

    So each of two positives above two negatives has log(1 + 2 e^0), whatever the scores; a large beta tells them apart.
    """
    training = dataclasses.replace(TRAINING, precision=precision)
    curve = train(Objective(term="dpo", start="vft", dpo_beta=10.0), training)[1]["seed_0"]
    assert curve["alignment_term"][0] == pytest.approx(2 * math.log(3), abs=2e-3)


@pytest.mark.parametrize(
    ("term", "expected"),
    [("dpo_pairs", math.log(2)), ("ipo", 5**2), ("dpop", math.log(2)), ("apo_zero", 1 / 2)],
)
def test_every_term_with_a_reference_model_begins_where_all_log_ratios_are_zero(
    term: Any, expected: float, train: Train
) -> None:
    """-log sigmoid(0); the square of 1 / (2 x .1); sigmoid(0), right or wrong."""
    curve = train(Objective(term=term, start="vft"))[1]["seed_0"]
    assert curve["alignment_term"][0] == pytest.approx(expected, rel=1e-4)


def test_samples_of_unknown_origin_are_refused_before_anything_is_trained(
    train: Train, feedback: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aft.training.run.train", None)
    with pytest.raises(DataError, match=r"has no log-probability under the model .* the term topr needs: sample with"):
        train(Objective(term="topr"), feedback=feedback.assign(sum_logprob=float("nan")))


# --- nothing beyond the references ------------------------------------------------------------------------------------

RANKING = {"feedback": "ranking"}
SAME_AS_VFT: list[dict[str, Any]] = [
    {"learn_positives": True},
    {"term": "aft"},
    {"term": "aft", "constraint": "detached"},
    {"term": "aft", "constraint": "boundary", "beta": 0.3},
    {"term": "rrhf", "imitate": "best"},
    {"term": "dpo", "weight": 3.0},
    {"term": "pro", **RANKING},
    {"learn_positives": True, **RANKING},
    {"term": "simpo"},
    {"term": "gspo"},
]


def all_wrong(feedback: pd.DataFrame) -> pd.DataFrame:
    """As the weakest model samples: no right response, no two ranks."""
    return feedback.assign(is_correct=False, rank=0, rating_rank=0, rating=1.0)


@pytest.mark.parametrize("objective", SAME_AS_VFT, ids=str)
def test_a_variant_with_nothing_to_align_gets_the_model_of_vft(
    objective: dict[str, Any],
    train: Train,
    feedback: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not trained again, nor kept again: its files are VFT's. Its curve is VFT's, and one sentence says so."""
    vft, its_curve = train()
    variant = Objective(**objective)
    monkeypatch.setattr("aft.training.run.fit", None)
    found, curve = train(variant, feedback=all_wrong(feedback))
    assert found.fingerprint == vft.fingerprint == open_model(found.path).fingerprint
    files = [path for path in found.path.iterdir() if path.name != MANIFEST]
    assert {path.name for path in files} == {path.name for path in vft.path.iterdir()} - {MANIFEST}
    assert all(path.samefile(vft.path / path.name) for path in files if path.name != CARD)
    pd.testing.assert_frame_equal(curve["seed_0"], its_curve["seed_0"])
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.startswith(f"{variant.label} has nothing to learn from beyond the references (0 of 4 questions have ")
    assert told.endswith("its model is VFT's.")


@pytest.mark.parametrize(
    "objective",
    [
        {"start": "vft"},
        {"vft_weight": 0.5},
        {"vft_reduction": "sum"},
        {"imitate": "best", **RANKING},
        {"imitate": "positives"},
    ],
    ids=str,
)
def test_what_imitates_otherwise_is_trained_all_the_same(
    objective: dict[str, Any], train: Train, feedback: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    """And told that it only imitates: another start, another loss, or other responses than the references."""
    vft, _ = train()
    found, _ = train(Objective(term="aft", **objective), feedback=all_wrong(feedback))
    assert found.path != vft.path and found.made_from["objective"]["term"] == "aft"
    assert "aft has nothing to rank (0 of 4 questions have " in caplog.text


@pytest.mark.parametrize(
    "objective",
    [
        {"term": "dpo", "start": "vft", "vft_weight": 0.0, "score_reduction": "sum", **RANKING},  # dpo_published
        {"term": "pro", "imitate": "best", "vft_weight": 0.05, "vft_reduction": "pro", **RANKING},  # pro_published
        {"term": "aft", "vft_weight": 0.0},
        {"term": "dpo_pairs", "start": "vft", "vft_weight": 0.0},
    ],
    ids=str,
)
def test_a_loss_that_is_zero_whatever_the_weights_is_refused(
    objective: dict[str, Any], train: Train, feedback: pd.DataFrame
) -> None:
    with pytest.raises(
        DataError, match=r"has nothing to learn from: 0 of 4 questions have .*sampling\.samples.*easier"
    ):
        train(Objective(**objective), feedback=all_wrong(feedback))


@pytest.mark.parametrize("objective", SAME_AS_VFT, ids=str)
def test_a_single_question_with_two_ranks_is_something_to_align(
    objective: dict[str, Any], train: Train, feedback: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    ratings = feedback["rating_rank"].rsub(10).astype(float)
    one = feedback["question_id"] == feedback["question_id"][0]
    mixed = pd.concat([feedback.assign(rating=ratings)[one], all_wrong(feedback)[~one]])
    variant = Objective(**objective)
    assert train(variant, feedback=mixed)[0].made_from["objective"] == dataclasses.asdict(variant)
    assert "nothing" not in caplog.text


def test_the_model_of_vft_under_a_variants_name_is_evaluated(
    train: Train, feedback: pd.DataFrame, pocket_questions: list[Question], tmp_path: Path
) -> None:
    """Published as the catalog does; under another name's own model the present objective still counts."""
    objective = Objective(term="aft")
    vft, _ = train()
    same, own = train(objective, feedback=all_wrong(feedback))[0], train(objective)[0]
    evaluation = EVALUATION

    def identify(model: ModelDirectory, objective: Objective, training: TrainingSettings = TRAINING) -> str:
        questions = to_table(pocket_questions[8:])
        settings = (training, objective, SamplingSettings(samples=1), SamplerSettings(), Labelling())
        inputs = (model, publish(vft, tmp_path / "vft"), questions, questions, questions, *settings)
        return nodes.identify(*inputs, sample_from=None, candidates_from=None, evaluation=evaluation, seed=0)

    published = publish(same, tmp_path / "aft")
    assert identify(published, objective) == identify(own, objective)
    later = Objective(term="aft", reference_as_positive=True)  # which would have something to learn
    for model in (own, published):
        with pytest.raises(SettingsError, match="trained with another objective than is set now"):
            identify(model, later)
    other = Objective(term="aft", constraint="detached")  # which has as little: the same files under another manifest
    published = publish(train(other, feedback=all_wrong(feedback))[0], tmp_path / "aft")
    assert identify(published, other)
    with pytest.raises(SettingsError, match="trained with another training than is set now"):
        identify(published, other, dataclasses.replace(TRAINING, epochs=2))


def test_an_objective_without_any_weight_stands_for_the_model_that_it_starts_from(
    train: Train, pocket_directory: ModelDirectory, pocket_questions: list[Question], tmp_path: Path
) -> None:
    """The base model as a row: not trained, whatever the samples are, and refused under other settings or seeds."""
    objective = Objective(vft_weight=0.0)
    base, curve = train(objective, feedback=pd.DataFrame())
    assert base.fingerprint == pocket_directory.fingerprint and curve["seed_0"].empty
    published = publish(base, tmp_path / "base")
    tables = (to_table(pocket_questions[:4]), to_table(pocket_questions[8:]), to_table([]))
    evaluation = Evaluation(SamplingSettings(samples=1, greedy=True), ks=[1])
    settings = (SamplingSettings(samples=1), SamplerSettings(), Labelling(), None, None, evaluation)

    def identify(training: TrainingSettings, asked: Objective, seed: int = 0) -> str:
        return nodes.identify(published, base, *tables, training, asked, *settings, seed=seed)

    assert identify(TRAINING, objective)
    longer = dataclasses.replace(TRAINING, epochs=2)
    for name, other in (
        ("training", lambda: identify(longer, objective)),
        ("objective", lambda: identify(TRAINING, Objective())),
        ("seed", lambda: identify(TRAINING, objective, 1)),
    ):
        with pytest.raises(SettingsError, match=f"trained with another {name} than is set now"):
            other()


# --- found again ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a tokenizer, which takes seconds to import, fails."""

    def refuse(self: ModelDirectory) -> None:
        raise AssertionError("a tokenizer was loaded")

    monkeypatch.setattr(ModelDirectory, "tokenizer", refuse)


@pytest.mark.parametrize("objective", [None, Objective(term="aft"), Objective(term="dpo"), Objective(vft_weight=0.0)])
def test_a_model_is_found_again_without_a_tokenizer(
    objective: Objective | None, train: Train, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    model, curve = train(objective)
    request.getfixturevalue("no_tokenizer")
    with caplog.at_level("INFO"):
        again, its_curve = train(objective)
    assert again == model and f"Reusing {model.path.name} (" in caplog.text
    pd.testing.assert_frame_equal(its_curve["seed_0"], curve["seed_0"])


def test_what_was_warned_of_is_told_again_when_the_model_is_found(
    train: Train, feedback: pd.DataFrame, pocket_questions: list[Question], caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> list[str]:
        caplog.clear()
        train(Objective(term="aft"), feedback=all_wrong(feedback), asked=asked)
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    long = dataclasses.replace(pocket_questions[3], reference="so " * TRAINING.max_tokens)
    asked = [*pocket_questions[:3], long]
    train()
    first = warned()
    assert len(first) > 1 and warned() == first


def test_examples_are_made_again_if_anything_that_decides_them_changes(
    train: Train, feedback: pd.DataFrame, pocket_questions: list[Question], request: pytest.FixtureRequest
) -> None:
    train(Objective(term="aft"))
    request.getfixturevalue("no_tokenizer")
    retold = [dataclasses.replace(pocket_questions[0], reference="#### 1"), *pocket_questions[1:4]]
    changes: list[dict[str, Any]] = [
        {"feedback": feedback[:-1]},
        {"feedback": feedback.assign(rank=feedback["rank"].rsub(1))},
        {"training": dataclasses.replace(TRAINING, max_tokens=TRAINING.max_tokens - 1)},
        {"asked": retold},
        {"validation": to_table(pocket_questions[5:6])},
        {"held_out": ["of another question"]},
    ]
    for change in changes:
        with pytest.raises(AssertionError, match="a tokenizer was loaded"):
            train(Objective(term="aft"), **change)
    with pytest.raises(AssertionError, match="a tokenizer was loaded"):
        train(Objective(term="aft", constraint="detached"))
    train(Objective(term="aft"), dataclasses.replace(TRAINING, token_budget=999))  # says only how it is computed


@pytest.mark.parametrize("room", ["training/examples.py", "models/tokens.py", "tasks/pocket/__init__.py"])
def test_examples_are_made_again_by_edited_code(
    room: str, train: Train, edit_code: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    train(Objective(term="aft"))
    edit_code(room)
    request.getfixturevalue("no_tokenizer")
    with pytest.raises(AssertionError, match="a tokenizer was loaded"):
        train(Objective(term="aft"))


def test_a_found_model_that_is_damaged_or_gone_is_trained_again(train: Train) -> None:
    model, _ = train()
    weights = model.path / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert train()[0] == model and weights.read_bytes() == kept
    shutil.rmtree(model.path)
    assert train()[0] == model and weights.read_bytes() == kept


# --- no reference at all ----------------------------------------------------------------------------------------------


def test_without_references_vft_is_the_base_model_and_says_so(
    train: Train,
    feedback: pd.DataFrame,
    pocket_directory: ModelDirectory,
    pocket_questions: list[Question],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is trained in its name, what stands there is evaluated like any other, and a variant can learn."""
    untold = [dataclasses.replace(question, reference="") for question in pocket_questions[:4]]
    vft, curve = train(asked=untold)
    assert vft.fingerprint == pocket_directory.fingerprint and curve["seed_0"].empty
    assert kept_warnings(vft.path) == [NO_REFERENCES] and NO_REFERENCES in caplog.text
    published = publish(vft, tmp_path / "vft")
    assert kept_warnings(published.path) == [NO_REFERENCES]
    questions = to_table(pocket_questions[8:])
    evaluation = Evaluation(SamplingSettings(samples=1, greedy=True), ks=[1])
    settings = (Objective(), SamplingSettings(samples=1), SamplerSettings(), Labelling(), None, None, evaluation)
    asked = [(to_table(train), questions, questions) for train in (untold, untold[1:])]
    told = [nodes.identify(published, published, *tables, TRAINING, *settings, seed=0) for tables in asked]
    assert told[0] != told[1], "the model does not tell what was trained on"
    with pytest.raises(SettingsError, match="trained with another seed than is set now"):
        nodes.identify(published, published, *asked[0], TRAINING, *settings, seed=1)
    aft, _ = train(Objective(term="aft"), asked=untold)
    assert aft.made_from["start"] == pocket_directory.fingerprint != aft.fingerprint


@pytest.mark.parametrize("objective", [None, Objective(term="aft"), Objective(vft_weight=0)])
@pytest.mark.parametrize("has_references", [True, False])
def test_an_example_of_a_chat_that_is_held_out_is_refused_whatever_is_trained(
    objective: Objective | None,
    has_references: bool,
    train: Train,
    pocket_directory: ModelDirectory,
    pocket_questions: list[Question],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would stand in every prompt; none is trained, and none stands for a training."""
    tokenizer, secret = pocket_directory.tokenizer(), pocket_questions[7]
    tokenizer.init_kwargs[CHAT_KEY] = {"examples": [{"question": f"{secret.question} ", "answer": "#### 1"}]}
    monkeypatch.setattr(ModelDirectory, "tokenizer", lambda self: tokenizer)
    asked = [one if has_references else dataclasses.replace(one, reference="") for one in pocket_questions[:4]]
    with pytest.raises(DataError, match=r"1 of base_model\.chat\.examples ask validation or test questions \('"):
        train(objective, asked=asked, held_out=[secret.content_hash])


def test_held_out_groups_are_scored_under_the_token_budget_of_training(
    pocket_directory: ModelDirectory,
    pocket_questions: list[Question],
    feedback: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budgets = []
    monkeypatch.setattr(
        "aft.scoring.responses.score_responses", lambda *given, **options: budgets.append(options["token_budget"])
    )
    evaluation, training = (
        EVALUATION,
        dataclasses.replace(TRAINING, token_budget=77),
    )
    nodes.assess(
        pocket_directory, feedback, to_table(pocket_questions), evaluation, training, 0, "identity", str(tmp_path)
    )
    assert budgets == [77]
