"""Where the variants answer, which results are compared, and what becomes of questions that are too long."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft import tasks
from aft.code import deciding
from aft.directories import finish_directory
from aft.errors import SettingsError, StoreError
from aft.evaluation.compare import Results, comparison_table
from aft.evaluation.predictions import measure
from aft.models.directory import ModelDirectory
from aft.pipelines.evaluate import nodes, report
from aft.pipelines.parameters import Evaluation, Labelling
from aft.pipelines.tables import to_table
from aft.reporting.answers import drawn
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings
from aft.tasks import Question
from aft.training.settings import Objective, TrainingSettings

ON_TWO = SamplerSettings(cluster=ClusterSettings(workers=2))
SERVED = SamplerSettings(
    engine="server", server=ServerSettings(base_url="http://127.0.0.1:1", model="other"), cluster=ON_TWO.cluster
)


@pytest.mark.parametrize(("sampler", "used"), [(ON_TWO, ON_TWO), (SERVED, SamplerSettings())])
def test_variants_answer_on_the_cluster_unless_a_server_has_another_model(
    sampler: SamplerSettings,
    used: SamplerSettings,
    pocket_directory: ModelDirectory,
    pocket_questions: list[Question],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("aft.sampling.run.sample_responses", lambda *given: asked.append(given[-1]) or [])
    evaluation = Evaluation(SamplingSettings(samples=1, greedy=True), ks=[1], level=0.95, resamples=10)
    questions: pd.DataFrame = to_table(pocket_questions)
    for answer in (nodes.generate, nodes.generate_others):
        answer(pocket_directory, questions, evaluation, sampler, 0, str(tmp_path))
    assert asked == [used, used]


EVALUATION = Evaluation(SamplingSettings(samples=1, greedy=True), ks=[1], level=0.5, resamples=1)


def _tables(right: list[bool]) -> dict[str, pd.DataFrame]:
    """What evaluate keeps of one variant and seed, whose answers to a, b, c … are right or wrong."""
    answers = [
        {"question_id": question, "sample_index": index, "extracted_answer": "7", "is_correct": flag, "score": -1.0}
        for question, flag in zip("abcdef", right, strict=False)
        for index in (-1, 0)
    ]
    groups = [
        {"question_id": question, "sample_index": kind, "is_correct": kind == 0, "score": -1.0 * (flag == (kind == 1))}
        for question, flag in zip("abcdef", right, strict=False)
        for kind in (0, 1)
    ]
    predicted, assessed = (pd.DataFrame(rows).assign(identity="same") for rows in (answers, groups))
    kinds = (predicted, assessed, predicted.assign(set="other")[:0])
    return dict(zip(nodes.KINDS, kinds, strict=True))


def _partitions(seeds: dict[str, dict[int, list[bool]]]) -> dict[str, nodes.Partitions]:
    """The partitions of every variant that a plain run compares: those of rft unless they are given."""
    found: dict[str, nodes.Partitions] = {}
    for name in ("vft", "rft", "aft", "aft_dc", "aft_bc"):
        tables = {seed: _tables(right) for seed, right in seeds.get(name, seeds["rft"]).items()}
        for kind in nodes.KINDS:
            own = {f"seed_{seed}": (lambda table=rows[kind]: table) for seed, rows in tables.items()}
            found[f"{kind}.{name}"] = own
    return found


def test_a_comparison_is_over_the_seeds_that_all_variants_have(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """aft lacks seed 1, under which all others have everything right: it says nothing here."""
    half = [True, False]
    partitions = _partitions({"rft": {0: half, 1: [True, True]}, "aft": {0: half}})
    with caplog.at_level(logging.WARNING):
        table, paired = nodes.compare(EVALUATION, 0, str(tmp_path), **partitions)
    assert set(table["seeds"]) == {"0"} and set(table["accuracy"]) == {0.5}
    assert set(paired["shared_seeds"]) == {"0"}
    assert "Compared over seed 0 only" in caplog.text and "vft of seed 1" in caplog.text
    assert " aft of seed" not in caplog.text


def test_variants_of_the_same_seeds_are_compared_over_all_of_them(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    partitions = _partitions({"rft": {1: [True, True], 0: [True, False]}})
    table, _ = nodes.compare(EVALUATION, 0, str(tmp_path), **partitions)
    assert set(table["seeds"]) == {"0 1"} and set(table["accuracy"]) == {0.75}
    assert "Compared over" not in caplog.text


def test_level_and_resamples_reach_the_figures_of_a_seed(tmp_path: Path) -> None:
    """Of one resample both ends of the bootstrap are one point; half of Wilson's 95 % would be wider."""
    kinds = _tables([True, False, True, True])
    kept: list[nodes.Partitions] = [{"seed_3": lambda table=table: table} for table in kinds.values()]
    figures = nodes.summarise_variant(*kept, seed=3, evaluation=EVALUATION, score_cache=str(tmp_path))
    assert figures["assessment_accuracy_low"] == figures["assessment_accuracy_high"]
    assert figures["accuracy_high"] - figures["accuracy_low"] < 0.35


FIRST = {"rft": {0: [True, False]}}


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, int]]:
    """Measure VFT and compare all variants; how often either has been computed until then."""
    counts = {"measure": 0, "comparison_table": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            counts[name] += 1
            return function(*given)

        return call

    for name in counts:
        monkeypatch.setattr(nodes, name, counted(name, getattr(nodes, name)))

    def run(seeds: Any = FIRST, evaluation: Evaluation = EVALUATION, cache: Path = tmp_path) -> dict[str, int]:
        partitions = _partitions(seeds)
        kinds = [partitions[f"{kind}.vft"] for kind in nodes.KINDS]
        nodes.summarise_variant(*kinds, seed=0, evaluation=evaluation, score_cache=str(cache))
        nodes.compare(evaluation, 0, str(cache), **partitions)
        return dict(counts)

    return run


def test_what_was_measured_is_read_again(measured: Callable[..., dict[str, int]], tmp_path: Path) -> None:
    """Tables and figures to the last bit, columns and variants in their order."""
    assert set(measured().values()) == set(measured().values()) == {1}
    partitions = _partitions({"rft": {0: [True, False], 1: [True, True]}})
    fresh, first, again = (nodes.compare(EVALUATION, 0, str(tmp_path / where), **partitions) for where in "abb")
    for one, two, three in zip(fresh, first, again, strict=True):
        assert one.to_csv() == two.to_csv() == three.to_csv()
        pd.testing.assert_frame_equal(one, three, check_exact=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"seeds": {"rft": {0: [False, True]}}},
        {"evaluation": replace(EVALUATION, level=0.9)},
        {"evaluation": replace(EVALUATION, resamples=2)},
    ],
    ids=str,
)
def test_other_predictions_and_settings_are_measured_again(
    changed: dict[str, Any], measured: Callable[..., dict[str, int]]
) -> None:
    measured()
    assert set(measured(**changed).values()) == {2}
    assert set(measured().values()) == {2}


@pytest.mark.parametrize("room", ["evaluation", "pipelines/evaluate/nodes.py"])
def test_edited_code_measures_again(
    room: str, measured: Callable[..., dict[str, int]], edit_code: Callable[[str], None]
) -> None:
    measured()
    edit_code(room)
    assert set(measured().values()) == {2}


def test_a_figure_is_drawn_again_if_its_data_or_its_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit_code: Callable[[str], None]
) -> None:
    from aft.reporting import figures

    drawn: list[int] = []

    def draw(*given: Any) -> Any:
        drawn.append(len(drawn))
        return accuracy_figure(*given)

    draw.__name__, accuracy_figure = "accuracy_figure", figures.accuracy_figure
    monkeypatch.setattr(figures, "accuracy_figure", draw)
    table = pd.DataFrame([{"variant": "vft", "accuracy": 0.5, "low": 0.4, "high": 0.6, "per_seed": "0.5"}])
    first, again = (nodes.draw_accuracy(table, {}, str(tmp_path)) for _ in range(2))
    assert first == again and first.startswith(b"\x89PNG") and len(drawn) == 1
    assert nodes.draw_accuracy(table.assign(high=0.7), {}, str(tmp_path)) != first and len(drawn) == 2
    edit_code("reporting/figures.py")
    assert nodes.draw_accuracy(table, {}, str(tmp_path)) == first and len(drawn) == 3


TRAINING = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=2)


def made(folder: Path, **made_from: Any) -> ModelDirectory:
    """A handle on a model whose manifest says what it was trained with; it has no weights."""
    trained = {"training": deciding(TRAINING), "objective": asdict(Objective()), "seed": 3, "code": "of the trainer"}
    staged = folder / "staged"
    staged.mkdir(parents=True)
    finish_directory(staged, folder / "model", {**trained, **made_from})
    return ModelDirectory(folder / "model", "fingerprint")


@pytest.fixture
def identify(pocket_questions: list[Question], tmp_path: Path) -> Callable[..., str]:
    """The identity of a variant's results, under settings and models that may be changed."""
    vft, questions = made(tmp_path / "vft"), to_table(pocket_questions)
    usual = {
        **{"vft_model": vft, "model": vft, "train_questions": questions[:2]},
        **{"test_questions": questions, "other_questions": questions[:0]},
        **{"training": TRAINING, "objective": Objective(), "sampling": SamplingSettings(samples=4)},
        **{"sampler": SamplerSettings(), "labelling": Labelling(), "sample_from": None},
        **{"candidates_from": None, "seed": 3},
        "evaluation": Evaluation(SamplingSettings(samples=1, greedy=True), ks=[1]),
    }
    return lambda **changes: nodes.identify(**{**usual, **changes})


@pytest.mark.parametrize(("name", "equal"), [("ratings.csv", False), ("ratings_{seed}.csv", True)])
def test_seeds_with_other_ratings_in_one_file_are_not_compared(
    name: str, equal: bool, identify: Callable[..., str], tmp_path: Path
) -> None:
    """Where each seed has a file of its own, the ratings are to differ."""
    labelling = Labelling(judge="file", ratings_file=str(tmp_path / name))
    identities = []
    for rating in (1, 2):
        (tmp_path / name.replace("{seed}", "3")).write_text(
            f"question_id,sample_index,rating\nq,0,{rating}\n", encoding="utf-8"
        )
        identities.append(identify(labelling=labelling))
    assert (identities[0] == identities[1]) == equal


@pytest.mark.parametrize(("name", "equal"), [("rollouts.jsonl", False), ("rollouts_{seed}.jsonl", True)])
def test_seeds_with_other_rollouts_in_one_file_are_not_compared(
    name: str, equal: bool, identify: Callable[..., str], tmp_path: Path
) -> None:
    identities = []
    for response in "ab":
        (tmp_path / name.replace("{seed}", "3")).write_text(response, encoding="utf-8")
        identities.append(identify(candidates_from=str(tmp_path / name)))
    assert (identities[0] == identities[1]) == equal


@pytest.mark.parametrize(("name", "equal"), [("sampler", False), ("seed_{seed}", True)])
def test_seeds_that_sampled_from_other_models_in_one_folder_are_not_compared(
    name: str, equal: bool, identify: Callable[..., str], pocket_directory: ModelDirectory, tmp_path: Path
) -> None:
    folder = tmp_path / name.replace("{seed}", "3")
    shutil.copytree(pocket_directory.path, folder)
    before = identify(sample_from=str(tmp_path / name))
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}', encoding="utf-8")
    assert (identify(sample_from=str(tmp_path / name)) == before) == equal


@pytest.mark.parametrize("room", nodes.ROOMS)
def test_results_of_edited_code_are_not_compared_with_earlier_ones(
    room: str, identify: Callable[..., str], edit_code: Callable[[str], None]
) -> None:
    before = identify()
    assert identify() == before
    edit_code(room)
    assert identify() != before


def test_metrics_decide_results_and_pages_and_figures_do_not(
    identify: Callable[..., str], edit_code: Callable[[str], None]
) -> None:
    before = identify()
    edit_code("reporting")
    assert identify() == before
    edit_code("evaluation")
    assert identify() != before


@pytest.mark.parametrize("which", ["train_questions", "test_questions", "other_questions"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("prompt", "x"), ("question", "HOW MANY"), ("answer", "x"), ("reference", ""), ("dataset", "gsm8k")],
)
def test_the_same_question_asked_learnt_or_checked_otherwise_is_another(
    which: str, field: str, value: str, identify: Callable[..., str], pocket_questions: list[Question]
) -> None:
    """What the settings of a user's own questions decide; where VFT is skipped, its model tells nothing of them."""
    dataset = "jsonl/number/hashes" if field == "prompt" else "pocket"
    table = to_table([replace(one, dataset=dataset, prompt=f"{one.question}:") for one in pocket_questions])
    assert identify(**{which: table.assign(**{field: value})}) != identify(**{which: table})
    assert identify(**{which: table}) == identify(**{which: table.copy()})


def test_results_under_another_check_of_an_own_family_are_others(
    identify: Callable[..., str], pocket_questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test set's family, of which no model knows."""
    family = tmp_path / "own_family_of_tests" / "asked.py"
    family.parent.mkdir()
    family.write_text("from aft.tasks.gsm8k import *\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    table = to_table([replace(one, dataset="own_family_of_tests.asked") for one in pocket_questions])
    before = identify(test_questions=table)
    family.write_text("from aft.tasks.gsm8k import *\nLIMIT = 2\n", encoding="utf-8")
    with pytest.raises(StoreError, match="has changed since this run began"):
        identify(test_questions=table)
    monkeypatch.setattr(tasks, "_imported", {})  # another process
    assert identify(test_questions=table) != before


def test_results_of_a_model_that_other_code_trained_are_others(identify: Callable[..., str], tmp_path: Path) -> None:
    assert identify(model=made(tmp_path / "earlier", code="of before")) != identify()


def test_how_a_model_was_computed_does_not_matter(identify: Callable[..., str]) -> None:
    """A smaller budget, which a run that ran out of memory went on with, is no other setting; the rate is."""
    smaller = replace(TRAINING, token_budget=512, scoring="naive", checkpoint_every=1)
    rows = SamplingSettings(samples=4, batch_rows=3, block_size=7)
    assert identify(training=smaller, sampling=rows, sampler=ON_TWO) == identify()
    with pytest.raises(SettingsError, match="trained with another training than is set now"):
        identify(training=replace(TRAINING, learning_rate=1.0))
    assert identify(sampling=SamplingSettings(samples=5)) != identify()


def test_test_questions_that_are_too_long_are_wrong_and_counted(
    tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question], caplog: pytest.LogCaptureFixture
) -> None:
    """Two of six, from generation to the figures: in accuracy, maj@k and the other sets, for two variants alike."""
    asked = [
        replace(one, question=one.question * 60, split="validation" if i % 2 else "ood") if i < 2 else one
        for i, one in enumerate(pocket_questions[:6])
    ]
    questions = to_table(asked)
    evaluation = Evaluation(SamplingSettings(samples=2, greedy=True, max_new_tokens=24), ks=[2], resamples=10)
    generations = nodes.generate(pocket_directory, questions, evaluation, SamplerSettings(), 0, str(tmp_path))
    others = nodes.generate_others(pocket_directory, questions, evaluation, SamplerSettings(), 0, str(tmp_path))
    predicted = nodes.predict(generations, questions, 0, "id")["seed_0"]
    assert "2 of 6 questions were too long to be answered and count as wrong." in caplog.text
    tables = nodes.predict_others(others, questions, {"seed_0": lambda: predicted}, questions, 0, "id")["seed_0"]
    assert tables.groupby("set").size().to_dict() == {"ood": 1, "train": 4, "validation": 1}
    groups = nodes.build_assessment_groups(generations, questions)
    assert set(groups["question_id"]) == {one.question_id for one in asked[2:]}
    # The random model is never right: as if it were wherever it answered, all shares are 4 of 6.
    answered, groups = predicted["score"].notna(), groups.assign(score=-1.0)
    right = predicted.assign(is_correct=answered, extracted_answer=answered.map({True: "1", False: None}))
    figures = measure(right, groups, [2], others=tables)
    assert figures["questions_without_response"] == 2
    assert {figures[name] for name in ("accuracy", "maj_at_2", "pass_at_2", "best_of_2")} == {4 / 6}
    assert (figures["accuracy_ood"], figures["accuracy_validation"]) == (0.0, 0.0)
    results = {name: Results({0: own}, {0: groups}) for name, own in (("vft", predicted), ("aft", right))}
    table = comparison_table(results, [2], "vft", 0.95, 10)
    assert table["questions"].tolist() == [6, 6] and table["questions_without_response"].tolist() == [2, 2]
    assert table["accuracy"].tolist() == [0.0, 4 / 6] and table["difference"].iloc[1] == pytest.approx(4 / 6)


def test_generations_in_many_shards_are_predicted_as_in_one(
    tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question]
) -> None:
    """Of each shard all but the token ids is kept, which are dropped before the next one is read."""
    questions = to_table(pocket_questions[:6])

    def predicted(block_size: int) -> pd.DataFrame:
        sampling = SamplingSettings(samples=2, greedy=True, max_new_tokens=4, block_size=block_size)
        evaluation, place = Evaluation(sampling, ks=[2]), str(tmp_path / str(block_size))
        shards = nodes.generate(pocket_directory, questions, evaluation, SamplerSettings(), 0, place)
        assert len(shards.paths) == 6 // block_size
        return nodes.predict(shards, questions, 0, "id")["seed_0"]

    pd.testing.assert_frame_equal(predicted(2), predicted(6))


def test_a_comparison_keeps_no_text_of_a_response() -> None:
    rows = pd.DataFrame({"question_id": ["a"], "response": ["It is 5."], "is_correct": [True], "identity": "id"})
    (alike,) = nodes.alike_seeds("vft", {"seed_0": lambda: rows}, seed=0)
    assert list(alike[0]) == ["question_id", "is_correct"]


def test_of_many_questions_those_answers_are_kept_that_the_page_has(
    pocket_questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page itself would draw its own sample of the rest."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(report, "MOST_QUESTIONS", 3)
    monkeypatch.setattr(report, "answers_page", lambda **arguments: given.update(arguments) or "")
    table = pd.DataFrame({"question_id": [one.question_id for one in pocket_questions], "sample_index": -1})
    predictions = {"predictions.vft": {"seed_0": lambda: table}}
    report.write_answers("pocket", 0, to_table(pocket_questions), str(tmp_path), **predictions)
    shown = [one.question_id for one in drawn(pocket_questions, 3)]
    assert given["predictions"]["vft"]["question_id"].tolist() == shown
    assert len(given["questions"]) == len(pocket_questions), "of which the page tells how many it leaves out"


def test_the_page_of_answers_is_of_this_seed_and_of_the_variants_compared(
    pocket_questions: list[Question], tmp_path: Path
) -> None:
    def answered(text: str) -> Callable[[], pd.DataFrame]:
        row = {"question_id": pocket_questions[0].question_id, "sample_index": -1, "response": text, "score": -1.0}
        return lambda: pd.DataFrame([{**row, "extracted_answer": None, "is_correct": False}])

    def other_seed() -> pd.DataFrame:
        raise AssertionError("The answers of another seed were read.")

    predictions = {"seed_0": other_seed, "seed_3": answered("of vft")}, {"seed_3": answered("of aft_dc")}
    asked = {f"predictions.{name}": one for name, one in zip(("vft", "aft_dc"), predictions, strict=True)}
    page = report.write_answers("pocket", 3, to_table(pocket_questions), str(tmp_path), **asked)
    assert "of vft" in page and "of aft_dc" in page
    assert all(question.question_id in page for question in pocket_questions)


@pytest.mark.parametrize(
    "edited", ["reporting/templates/answers.html.j2", "reporting/answers.py", "tasks/pocket/steps.py"]
)
def test_the_page_of_answers_is_made_again_if_its_template_or_code_changes(
    edited: str,
    pocket_questions: list[Question],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit_code: Callable[[str], None],
) -> None:
    made: list[str] = []
    monkeypatch.setattr(report, "answers_page", lambda **asked: made.append(asked["recipe"]) or "page")
    predictions = _partitions(FIRST)

    def write() -> str:
        return report.write_answers("pocket", 0, to_table(pocket_questions), str(tmp_path), **predictions)

    assert write() == write() == "page" and len(made) == 1
    edit_code(edited)
    assert write() == "page" and len(made) == 2
