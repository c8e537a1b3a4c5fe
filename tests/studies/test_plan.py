import math

import pytest

from aft.errors import SettingsError
from aft.studies.definition import Study, Sweep, read_studies
from aft.studies.plan import Cell, batches_of, label_of, nested, points_of

SWEPT = Study(
    title="Margin",
    question="Where?",
    variants=["aft_bc"],
    seeds=[1, 2],
    baselines=["vft"],
    sweep=Sweep(parameter="align.aft_bc.objective.beta", values=[-0.8, 0.15], label="beta"),
)
SWEEP = {"parameter": "a", "values": [1], "label": "a"}
ROUNDED = {"rounds": "aft", "n_rounds": 2}
VARIANTS = ("vft", "rft", "aft", "aft_bc")
PLAIN = Study(title="Plain", question="Which?", variants=["vft", "aft_bc"], seeds=[1, 2])
ROUNDS = Study(title="Rounds", question="Again?", variants=["vft", "aft"], seeds=[1], rounds="aft", n_rounds=3)


def test_a_label_is_the_recipe_and_what_differs_from_it() -> None:
    params = {"sampling.samples": 8, "align.rrhf.objective.weight": 0.1}
    assert label_of("pocket", {}) == "pocket.study"
    assert label_of("pocket", params) == "pocket.study.rrhf.weight=0.1.sampling.samples=8"
    assert label_of("pocket", dict(reversed(params.items()))) == label_of("pocket", params)


def test_values_that_are_no_names_are_told_by_their_hash() -> None:
    one, other = (label_of("p", {"sample_from": f"data/{name}/seed_{{seed}}"}) for name in "ab")
    assert one != other
    assert "/" not in one and "{" not in one


def test_long_labels_are_cut_and_stay_different() -> None:
    one, other = (label_of("p", {f"align.aft.objective.{'x' * 90}": value}) for value in (1, 2))
    assert len(one) == len(other) == 79
    assert one != other


def test_a_sweep_has_a_point_per_value_after_its_baselines() -> None:
    points = points_of(SWEPT, "pocket", "data")
    assert [(point.value, point.label, point.variants) for point in points] == [
        (None, "pocket.study", ("vft",)),
        (-0.8, "pocket.study.aft_bc.beta=-0.8", ("aft_bc",)),
        (0.15, "pocket.study.aft_bc.beta=0.15", ("aft_bc",)),
    ]


def test_studies_share_cells_of_the_same_settings_and_seed() -> None:
    """Both need the folder "pocket.study": one cell per seed with both variants; the sweep adds two per seed."""
    (batch,) = batches_of((study, points_of(study, "pocket", "data")) for study in (SWEPT, PLAIN))
    assert batch[0] == Cell("pocket.study", {}, 1, ("vft", "aft_bc"))
    assert [cell.seed for cell in batch] == [1, 1, 1, 2, 2, 2]


def test_each_round_waits_for_the_one_before_and_samples_from_its_model() -> None:
    points = points_of(ROUNDS, "pocket", "data")
    batches = batches_of([(ROUNDS, points)])
    assert [len(batch) for batch in batches] == [1, 1, 1]
    assert points[1].params == {"sample_from": "data/06_models/pocket.study/seed_{seed}/aft"}
    assert points[2].params == {"sample_from": f"data/06_models/{points[1].label}/seed_{{seed}}/aft"}
    assert points[0].variants == ("vft", "aft") and points[1].variants == ("aft",)


def test_dotted_keys_become_nested_ones() -> None:
    assert nested({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variants": ["vft", "ppo"]}, "names ppo"),
        ({"seeds": []}, "needs seeds"),
        ({"rounds": "aft"}, "among variants"),
        ({"seeds": [1, 1]}, "twice"),
        ({"sweep": {"parameter": "a", "values": ["x"], "label": "a"}}, "values"),
        ({"sweep": {"parameter": "a", "values": [1, 1.0], "label": "a"}}, "twice"),
        ({"colour": "red"}, "colour"),
        ({"seeds": [True]}, r"one\.seeds\.0: Input should be a valid integer"),
        ({"seeds": [-1]}, r"one\.seeds\.0: Input should be greater"),
        ({"seeds": [2**32]}, r"one\.seeds\.0: Input should be less"),
        ({"seeds": ["1"]}, r"one\.seeds\.0: Input should be a valid integer"),
        ({"seeds": 1}, r"one\.seeds: Input should be a valid list"),
        ({"variants": ["vft", "vft"]}, "twice"),
        ({"variants": ["vft"], "baselines": ["vft"], "sweep": SWEEP}, "twice"),
        ({"title": ""}, r"one\.title: String should have at least 1"),
        ({"sweep": SWEEP | {"values": [math.nan]}}, "finite"),
        ({"sweep": SWEEP | {"values": [True]}}, "valid"),
        ({"sweep": SWEEP | {"values": []}}, "without values"),
        ({"sweep": SWEEP | {"parameter": ""}}, r"parameter: String should have at least 1"),
        ({"sweep": SWEEP | {"parameter": "a..b"}}, r"cannot set 'a\.\.b'"),
        ({"sweep": SWEEP | {"parameter": "seed"}}, "cannot set 'seed'"),
        ({"params": {"label": "x"}}, "cannot set 'label'"),
        ({"params": {"training": 1, "training.epochs": 2}}, "cannot set 'training'"),
        ({"params": {"a": 1}, "sweep": SWEEP}, "cannot set 'a'"),
        ({"baselines": ["aft"]}, "need a sweep"),
        ({"figure": "pilot"}, "need a sweep"),
        ({"figure": "sweep"}, "needs a sweep or rounds"),
        ({"over_seconds": True}, "over_seconds, which needs the figure sweep"),
        ({"n_rounds": 2}, "no rounds"),
        ({"rounds": "vft", "n_rounds": 0}, r"n_rounds: Input should be greater"),
        ({"paper": {"accuracy": {"aft": 1.0}}}, "no aft beside which"),
        ({"paper": {"accuracy": {"vft": "high"}}}, r"paper\.accuracy\.vft"),
    ],
)
def test_a_study_that_cannot_be_is_refused(change: dict[str, object], words: str) -> None:
    study = {"title": "T", "question": "Q", "variants": ["vft"], "seeds": [0], **change}
    with pytest.raises(SettingsError, match=words):
        read_studies({"one": study}, VARIANTS)


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".lock", "a b", "all"])
def test_a_name_that_is_no_folders_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be called"):
        read_studies({name: {"title": "T", "question": "Q", "variants": ["vft"], "seeds": [0]}}, VARIANTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"figures": ["maj_at_8"]}, "ks are"),
        ({"figures": []}, "needs figures"),
        ({"figures": ["speed", "accuracy_other"]}, "reports speed, accuracy_other"),
        ({"figures": ["maj_at_all"]}, "reports maj_at_all"),
        ({"figures": ["auroc"], "figure": "sweep", "sweep": SWEEP}, "needs figures"),
        ({"orderings": [{"claim": "c", "above": "aft@2", "below": "vft@2"}], **ROUNDED}, "no vft@2 to order"),
        ({"orderings": [{"claim": "c", "above": "aft", "below": "rft"}]}, "no rft to order"),
        ({"orderings": [{"claim": "c", "above": "aft@2", "below": "vft"}]}, "no aft@2"),
        ({"orderings": [{"claim": "c", "above": "aft", "below": "vft", "metric": "speed"}]}, "no speed"),
        ({"figures": ["mean_at_8"]}, "reports mean_at_8"),
        ({"orderings": [{"claim": "c", "above": "aft", "below": "vft", "metric": "mean_at_8"}]}, "no mean_at_8"),
    ],
)
def test_what_cannot_be_told_is_refused_before_anything_runs(change: dict[str, object], words: str) -> None:
    study = {"title": "T", "question": "Q", "variants": ["vft", "aft"], "seeds": [0], **change}
    with pytest.raises(SettingsError, match=words):
        read_studies({"one": study}, VARIANTS)["one"].check_reported([4], 6, ["validation"])


def test_what_can_be_told_is_not_refused() -> None:
    orderings = [
        {"claim": "c", "above": "aft_bc@0.15", "below": "vft", "metric": name} for name in ("validation", "mean_at_6")
    ]
    study = {**{name: getattr(SWEPT, name) for name in SWEPT.__dataclass_fields__}, "orderings": orderings}
    study["figures"] = ["accuracy", "mean_at_6", "maj_at_4"]
    read_studies({"one": study}, VARIANTS)["one"].check_reported([4], 6, ["validation"])


def test_the_page_has_the_papers_values_by_variant_and_value_of_the_sweep() -> None:
    paper = {"accuracy": {"vft": 36.48, "aft_bc@0.0": 38.75, "aft_bc@0.15": 39}}
    sweep = Sweep(parameter="align.aft_bc.objective.beta", values=[0.0, 0.15], label="β", log=True)
    study = Study(title="T", question="Q", variants=["aft_bc"], seeds=[1], baselines=["vft"], sweep=sweep, paper=paper)
    page = study.page("beta", {})
    assert (page.name, page.x_label, page.log_x, page.baselines) == ("beta", "β", True, ["vft"])
    assert page.paper["accuracy"] == {("vft", None): 36.48, ("aft_bc", 0.0): 38.75, ("aft_bc", 0.15): 39}
