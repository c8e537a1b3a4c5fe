"""Tuning: as many trials for every variant, judged on validation alone, under seeds that nothing else is run under."""

from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from aft.errors import SettingsError
from aft.pipeline_registry import register_pipelines
from aft.pipelines.comparisons import dataset
from aft.pipelines.training import seed_key
from aft.studies.definition import Study, Tuning, read_studies
from aft.studies.run import Workplace
from aft.studies.tuning import check_selects, choose, final_points, selected, trial_cells, trials_of, tuned_columns
from aft.training.selection import ACCURACY

LR, BETA = "training.learning_rate", "objective.beta"
GRID: dict[str, Any] = {"vft": {LR: [0.1, 0.2, 0.3, 0.4]}, "aft_bc": {LR: [0.1, 0.2], BETA: [0.0, 0.5]}}
TUNED: dict[str, Any] = {
    **{"title": "Tuned", "question": "Q", "variants": ["vft", "aft_bc"], "seeds": [3, 4]},
    **{"params": {"training.select": "validation"}, "tuning": {"seeds": [103, 104], "grid": GRID}},
}
VARIANTS = ("vft", "aft", "aft_bc")


def study_of(content: dict[str, Any] = TUNED) -> tuple[Study, Tuning]:
    study = read_studies({"one": content}, VARIANTS)["one"]
    assert study.tuning is not None
    return study, study.tuning


class Place:
    """A project with curves of these accuracies, epoch by epoch, by label and seed."""

    def __init__(self, accuracies: dict[tuple[str, int], list[float]], select: str = "validation") -> None:
        self.accuracies, self.select = accuracies, select

    def context(self, label: str, seed: int, params: dict[str, Any]) -> Any:
        del seed, params
        seeds = {one: own for (name, one), own in self.accuracies.items() if name == label}
        curves = {seed_key(one): lambda own=own: curve_of(own) for one, own in seeds.items()}
        params = {"training": SimpleNamespace(select=self.select)}
        return SimpleNamespace(params=params, catalog=SimpleNamespace(load=lambda _: curves))


def curve_of(accuracies: list[float]) -> pd.DataFrame:
    """Two steps per epoch."""
    rows = [{"epoch": step / 2, ACCURACY: accuracies[step // 2 - 1] if step % 2 == 0 else None} for step in range(1, 7)]
    return pd.DataFrame(rows).astype(float)


def test_every_variant_has_as_many_trials_of_its_own_settings() -> None:
    study, tuning = study_of()
    trials = trials_of(study, tuning, "r")
    assert [point.variants for point in trials] == [("vft",)] * 4 + [("aft_bc",)] * 4
    assert [point.params for point in trials[4:6]] == [
        {"training.select": "validation", LR: 0.1, "align.aft_bc.objective.beta": beta} for beta in (0.0, 0.5)
    ]
    cells = trial_cells(trials, tuning)
    assert {cell.seed for cell in cells} == {103, 104} and len(cells) == 16
    assert {cell.wanted for cell in cells} == {"training_curve"}


def test_trials_of_the_same_settings_share_a_cell() -> None:
    grid = {"vft": {LR: [0.1, 0.2]}, "aft_bc": {LR: [0.1, 0.2]}}
    study, tuning = study_of({**TUNED, "tuning": {"seeds": [103], "grid": grid}})
    cells = trial_cells(trials_of(study, tuning, "r"), tuning)
    assert [cell.variants for cell in cells] == [("vft", "aft_bc")] * 2


def test_no_test_question_is_read_while_tuning() -> None:
    """Of all that a trial makes, only what splits the raw data writes test questions; nothing reads them."""
    study, tuning = study_of()
    (made, *_) = trial_cells(trials_of(study, tuning, "r"), tuning)
    every = register_pipelines()["variants"]
    trial = every.to_outputs(*(dataset(name, made.wanted) for name in study.variants))
    of_tests = {"test_questions", "other_questions", "assessment_groups"}
    assert [node.name for node in trial.nodes if of_tests & {*node.inputs}] == []
    assert [node.name for node in trial.nodes if of_tests & {*node.outputs}] == ["ingest.load_questions"]
    assert not any("evaluate" in node.tags for node in trial.nodes)
    tested = every.to_outputs(*(dataset(name, "metrics") for name in study.variants))
    assert any(of_tests & {*node.inputs} for node in tested.nodes), "else this test could see nothing"


def test_the_best_mean_on_validation_is_chosen_and_of_equals_the_first() -> None:
    """Of each trial and seed the best epoch counts: 0.2 has the best single one, 0.3 and 0.4 the best mean."""
    study, tuning = study_of()
    vft, aft_bc = (trials_of(study, tuning, "r")[i : i + 4] for i in (0, 4))
    accuracies = {(point.label, seed): [0.1, 0.1, 0.1] for point in (*vft, *aft_bc) for seed in tuning.seeds}
    for number, (one, other) in {1: (0.9, 0.2), 2: (0.5, 0.7), 3: (0.7, 0.5)}.items():
        accuracies[vft[number].label, 103] = [0.1, one, 0.0]
        accuracies[vft[number].label, 104] = [other, 0.1, 0.0]
    place = Place(accuracies)
    chosen = choose(cast(Workplace, place), study, [*vft, *aft_bc], tuning)
    assert [one.settings for one in chosen.values()] == [{LR: 0.3}, {LR: 0.1, BETA: 0.0}]
    assert chosen["vft"].accuracy == pytest.approx(0.6)
    assert {one.trials for one in chosen.values()} == {8}

    points = final_points(study, chosen, "r")
    assert [(point.value, point.label) for point in points] == [(None, vft[2].label), (None, aft_bc[0].label)]
    tested = {(point.label, seed): [0.1, 0.4, 0.4] for point in points for seed in study.seeds}
    columns = tuned_columns(cast(Workplace, Place(tested)), study, chosen, points)
    assert columns["chosen"] == ["learning_rate 0.3", "learning_rate 0.1, beta 0"]
    assert columns["epochs"] == ["2 2", "2 2"] and columns["trials"] == [8, 8]


def test_a_study_that_does_not_select_on_validation_cannot_be_tuned() -> None:
    study, tuning = study_of()
    trials = trials_of(study, tuning, "r")
    check_selects(study, cast(Workplace, Place({})), trials)
    with pytest.raises(SettingsError, match="to validation in its params"):
        check_selects(study, cast(Workplace, Place({}, select="last")), trials)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grid": {"vft": {LR: [0.1]}}}, "a grid for each of its variants"),
        ({"grid": {**GRID, "aft": {LR: [0.1] * 4}}}, "a grid for each of its variants"),
        ({"grid": {**GRID, "vft": {LR: [0.1]}}}, "vft 1, aft_bc 4; give each variant as many"),
        ({"grid": {"vft": {LR: []}, "aft_bc": {LR: []}}}, "unequal numbers of settings, or none"),
        ({"seeds": []}, "needs seeds to tune with"),
        ({"seeds": [3]}, "and others to test with"),
        ({"grid": {**GRID, "vft": {"training.select": [1, 2, 3, 4]}}}, "cannot set 'training.select'"),
        ({"grid": {**GRID, "vft": {"seed": [1, 2, 3, 4]}}}, "cannot set 'seed'"),
    ],
)
def test_unequal_budgets_and_seeds_of_tests_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        study_of({**TUNED, "tuning": {**TUNED["tuning"], **change}})


def test_a_seed_of_trials_is_used_by_no_other_study() -> None:
    plain = {"title": "Plain", "question": "Q", "variants": ["vft"], "seeds": [3, 104]}
    with pytest.raises(SettingsError, match="'Plain' has the seed 104, under which a study is tuned"):
        read_studies({"one": TUNED, "two": plain}, VARIANTS)


def test_a_variant_that_is_not_trained_cannot_be_tuned():
    """Its curve has no step; a sentence, not a traceback after all the trials."""
    curves = {"seed_5": lambda: pd.DataFrame({"validation_accuracy": []})}
    context = SimpleNamespace(catalog=SimpleNamespace(load=lambda name: curves))
    place: Any = SimpleNamespace(context=lambda *given: context)
    point: Any = SimpleNamespace(label="x", params={})
    with pytest.raises(SettingsError, match=r"^base is not trained, so that nothing of it can be tuned"):
        selected(place, point, "base", [5])
