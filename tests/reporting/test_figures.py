"""Facts of the figures: what is drawn where. How they look is judged by eye."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from aft.alignment.variants import Variant
from aft.evaluation.calibration import reliability
from aft.pipelines.comparisons import variants_of
from aft.reporting.figure_style import OTHER_COLOR, variant_color
from aft.reporting.figures import (
    accuracy_figure,
    reliability_figure,
    score_histogram_figure,
    training_curves_figure,
)
from aft.training.settings import Objective

VARIANTS = variants_of(
    yaml.safe_load((Path(__file__).parents[2] / "conf/base/parameters_align_train.yml").read_text("utf-8"))["align"]
)


def titles(fig: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in fig.axes]


@pytest.fixture
def comparison() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "variant": ["vft", "aft", "aft_bc", "of_my_own"],
            "accuracy": [0.40, 0.37, 0.45, 0.41],
            "low": [0.38, 0.34, 0.43, 0.39],
            "high": [0.42, 0.40, 0.47, 0.44],
            "per_seed": [[0.39, 0.41], [0.36, 0.38], [0.45, 0.45], [0.41]],
        }
    )


@pytest.fixture
def scores() -> pd.DataFrame:
    """Two variants, three positives and three negatives each, with medians -0.2 / -0.4 and -0.1 / -0.5."""
    return pd.DataFrame(
        {
            "variant": ["vft"] * 6 + ["aft_dc"] * 6,
            "is_correct": [True, True, True, False, False, False] * 2,
            "score": [-0.1, -0.2, -0.3, -0.2, -0.4, -0.9, -0.05, -0.1, -0.2, -0.3, -0.5, -0.6],
        }
    )


def make_curves(n_steps: int = 100) -> pd.DataFrame:
    """Constant scores: seed 0 at -0.2 and -0.4, seed 1 at -0.4 and -0.8; rft without any."""
    return pd.DataFrame(
        [
            (
                variant,
                seed,
                step,
                np.nan if variant == "rft" else -0.2 * (seed + 1),
                np.nan if variant == "rft" else -0.4 * (seed + 1),
            )
            for variant in ("rft", "aft_dc", "aft_bc")
            for seed in (0, 1)
            for step in range(10, 10 * n_steps + 1, 10)
        ],
        columns=["variant", "seed", "step", "score_positive", "score_negative"],
    )


def test_matplotlib_is_imported_only_to_draw_and_pyplot_never():
    """In a fresh interpreter: nothing on import, and no pyplot even after a figure."""
    code = (
        "import sys, pandas as pd; from aft.reporting import figures;"
        "assert 'matplotlib' not in sys.modules;"
        "row = {'variant': 'vft', 'accuracy': .5, 'low': .4, 'high': .6};"
        "figures.accuracy_figure(pd.DataFrame([row]), {}); assert 'matplotlib' in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr


def rgb(variant, variants=VARIANTS):
    color = variant_color(variant, variants)
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def test_colours_tell_the_families_apart():
    """Unconstrained methods are warm (more red than blue), constrained ones blue, baselines grey."""
    for name in VARIANTS:
        red, green, blue = map(int, rgb(name))
        if name in ("vft", "rft", "rft_rank", "base"):
            assert max(red, green, blue) - min(red, green, blue) < 16
        elif name.endswith(("_dc", "_bc", "_rdc1", "_rdc2", "_rbc", "_dc_plus", "_bc_plus")):
            assert blue > red + 50
        else:
            assert red > blue + 50
    assert variant_color("of_another_time", VARIANTS) == OTHER_COLOR


def test_the_variants_of_a_comparison_have_colours_of_their_own():
    text = (Path(__file__).parents[2] / "conf/base/parameters_evaluate.yml").read_text("utf-8")
    for names in yaml.safe_load(text)["comparisons"].values():
        assert all(np.linalg.norm(rgb(one) - rgb(other)) > 30 for one, other in combinations(names, 2))


def test_a_variant_of_ones_own_is_of_its_familys_colour_and_changes_no_others():
    mine = Variant(Objective(term="dpo", constraint="boundary"), "mine", extension=True)
    more = {**VARIANTS, "mine": mine}
    assert [variant_color(name, more) for name in VARIANTS] == [variant_color(name, VARIANTS) for name in VARIANTS]
    red, _, blue = map(int, rgb("mine", more))
    assert blue > red + 50


def test_extensions_are_marked_wherever_a_variant_is_named(comparison, scores):
    comparison["variant"] = ["vft", "aft", "dpo_bc", "of_my_own"]
    (ax,) = accuracy_figure(comparison, VARIANTS).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["vft", "aft", "dpo_bc*", "of_my_own"]
    assert to_hex(ax.get_yticklabels()[2].get_color()) == variant_color("dpo_bc", VARIANTS)
    assert "not in the paper" in ax.get_xlabel()
    assert titles(score_histogram_figure(scores.replace("aft_dc", "dpo_bc"), VARIANTS)) == ["vft", "dpo_bc*"]


def test_drawn_intervals_are_those_of_the_table(comparison, lines):
    (ax,) = accuracy_figure(comparison, VARIANTS).axes
    drawn = np.array([line.get_xdata() for line in lines(ax, "_interval")], dtype=float)
    assert np.allclose(drawn, 100 * comparison[["low", "high"]].to_numpy())
    points = [float(np.ravel(line.get_xdata())[0]) for line in lines(ax, "_accuracy")]
    assert points == pytest.approx([40, 37, 45, 41])
    assert [label.get_text() for label in ax.get_yticklabels()] == comparison["variant"].tolist()


def test_values_stand_beside_their_intervals(comparison):
    (ax,) = accuracy_figure(comparison, VARIANTS).axes
    texts = [text.get_text() for text in ax.texts]
    assert "45.0  [43.0, 47.0]" in texts
    assert "41.0  [39.0, 44.0]" in texts


def test_seeds_are_dots_where_there_are_any(comparison, lines):
    (ax,) = accuracy_figure(comparison, VARIANTS).axes
    assert [np.size(line.get_xdata()) for line in lines(ax, "_seeds")] == [2, 2, 2, 1]
    assert "seeds" in ax.get_xlabel()
    (ax,) = accuracy_figure(comparison.drop(columns="per_seed"), VARIANTS).axes
    assert not any(np.size(line.get_xdata()) for line in lines(ax, "_seeds"))
    assert "seeds" not in ax.get_xlabel()


def test_reference_line_stands_at_vft_if_it_is_there(comparison, lines):
    (ax,) = accuracy_figure(comparison, VARIANTS).axes
    (reference,) = lines(ax, "_vft")
    assert np.allclose(reference.get_xdata(), 40)
    (ax,) = accuracy_figure(comparison[1:], VARIANTS).axes
    assert not lines(ax, "_vft")


def test_variants_of_a_table_stand_in_its_order_from_the_top(comparison, lines):
    (ax,) = accuracy_figure(comparison, VARIANTS).axes
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert to_hex(lines(ax, "_interval")[2].get_color()) == variant_color("aft_bc", VARIANTS)


def test_one_panel_of_scores_per_variant_on_common_axes(scores):
    """The second is made narrower, so that its bins are higher."""
    scores.loc[scores["variant"] == "aft_dc", "score"] = -0.2
    fig = score_histogram_figure(scores, VARIANTS)
    assert titles(fig) == ["vft", "aft_dc"]
    first, second = fig.axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()


def test_medians_are_marked_and_written(scores, lines):
    """Medians by hand, positives first: -0.2 and -0.4 for vft, -0.1 and -0.5 for aft_dc."""
    fig = score_histogram_figure(scores, VARIANTS)
    marked = [[float(np.ravel(line.get_xdata())[0]) for line in lines(ax, "_median")] for ax in fig.axes]
    assert np.allclose(marked, [[-0.2, -0.4], [-0.1, -0.5]])
    assert [text.get_text() for text in fig.axes[0].texts] == ["median -0.20 (n = 3)", "median -0.40 (n = 3)"]


def test_each_kind_sums_to_one_with_what_lies_below_the_axis(scores):
    for ax in score_histogram_figure(scores, VARIANTS).axes:
        sums = [patch.get_data()[0].sum() for patch in ax.patches if isinstance(patch, StepPatch)]
        assert sums == pytest.approx([1, 1])


def test_a_variant_without_positives_shows_its_negatives(scores):
    fig = score_histogram_figure(scores[(scores["variant"] == "vft") | ~scores["is_correct"]], VARIANTS)
    assert [len(ax.patches) for ax in fig.axes] == [2, 1]


def test_scores_below_minus_one_are_on_a_logarithmic_scale_that_is_named(scores):
    near = score_histogram_figure(scores, VARIANTS)
    far = score_histogram_figure(
        pd.concat([scores, scores.assign(variant="aft", score=4 * scores["score"] - 2)]), VARIANTS
    )
    assert {ax.get_xscale() for ax in near.axes} == {"linear"}
    assert {ax.get_xscale() for ax in far.axes} == {"symlog"}
    assert "logarithmic" not in near.get_supxlabel()
    assert "logarithmic below -1" in far.get_supxlabel()


def test_curves_have_a_panel_per_scored_variant_and_name_the_others():
    fig = training_curves_figure(make_curves(), VARIANTS)
    assert titles(fig) == ["aft_dc", "aft_bc"]
    assert "without scored groups in training: rft" in fig.get_supxlabel()


def test_curves_are_seeds_and_their_mean(lines):
    """Positives at -0.2 and -0.4 have the mean -0.3, negatives at -0.4 and -0.8 the mean -0.6."""
    for ax in training_curves_figure(make_curves(), VARIANTS).axes:
        assert len(lines(ax, "_seed")) == 4
        positive, negative = (np.asarray(line.get_ydata(), dtype=float) for line in lines(ax, "_mean"))
        assert np.allclose(positive, -0.3)
        assert np.allclose(negative, -0.6)
        assert positive.size == 100


@pytest.mark.parametrize(("n_steps", "said"), [(100, "running mean over 4 logged steps"), (10, "not smoothed")])
def test_smoothing_is_stated(n_steps, said):
    assert said in training_curves_figure(make_curves(n_steps), VARIANTS).get_supxlabel()


def test_where_epochs_were_selected_a_panel_shows_their_accuracies_and_rings_the_best(lines):
    """Of every variant, those without scored groups included; of equals the earlier one."""
    curves = make_curves(10)
    curves["validation_accuracy"] = curves["step"].map({30: 0.2, 60: 0.5, 90: 0.5})
    fig = training_curves_figure(curves, VARIANTS)
    assert titles(fig)[:-1] == ["aft_dc", "aft_bc"] and titles(fig)[-1] == "validation accuracy, %"
    assert [len(lines(fig.axes[-1], name)) for name in ("_validation", "_selected")] == [6, 6]
    for line in lines(fig.axes[-1], "_validation"):
        assert np.asarray(line.get_xdata()).tolist() == [30, 60, 90]
    assert {(*line.get_xdata(), *line.get_ydata()) for line in lines(fig.axes[-1], "_selected")} == {(60, 50.0)}
    without = training_curves_figure(curves.assign(validation_accuracy=np.nan), VARIANTS)
    assert titles(without) == ["aft_dc", "aft_bc"]


def test_smoothing_is_a_centred_mean(lines):
    """A single step 1 lower, in a window of 4 of 100 steps, is seen by four points, each 1/4 lower."""
    curves = make_curves()
    curves.loc[curves["step"] == 500, "score_positive"] -= 1
    positive, _ = lines(training_curves_figure(curves, VARIANTS).axes[0], "_mean")
    smooth = np.asarray(positive.get_ydata(), dtype=float)
    assert np.asarray(positive.get_xdata())[smooth < -0.35].tolist() == [490, 500, 510, 520]
    assert np.allclose(smooth[smooth < -0.35], -0.55)


def test_a_step_without_negatives_keeps_its_positives(lines):
    curves = make_curves(10)
    curves.loc[curves["step"] == 50, "score_negative"] = np.nan
    positive, negative = lines(training_curves_figure(curves, VARIANTS).axes[0], "_mean")
    assert 50 in np.asarray(positive.get_xdata())
    assert 50 not in np.asarray(negative.get_xdata())


def test_a_short_training_stands_on_the_axes_of_the_longest():
    curves = make_curves(100)
    lower = curves["score_negative"] - 0.2 * (curves["variant"] == "aft_dc")
    curves = curves.assign(score_negative=lower).query("variant == 'aft_dc' or step <= 300")
    first, second = training_curves_figure(curves, VARIANTS).axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()


def test_nothing_to_show_is_a_figure_and_no_failure(tmp_path):
    curves = make_curves(3)
    empty = training_curves_figure(curves.query("variant == 'rft'"), VARIANTS)
    none = score_histogram_figure(pd.DataFrame({"variant": [], "is_correct": [], "score": []}), VARIANTS)
    for fig in (empty, none):
        assert fig.axes == []
        fig.savefig(tmp_path / "empty.png")
    assert "rft" in empty.get_supxlabel()


@pytest.mark.parametrize("n_variants", [1, 2, 3, 4, 5, 7])
def test_panels_fill_their_grid_and_show_the_step_below(n_variants):
    names = [f"variant_{index}" for index in range(n_variants)]
    curves = make_curves(5)
    one = curves[curves["variant"] == "aft_dc"]
    fig = training_curves_figure(pd.concat([one.assign(variant=name) for name in names]), VARIANTS)
    assert titles(fig) == names
    lowest_of_column = {round(ax.get_position().x0, 3): ax for ax in fig.axes}
    assert all(ax.xaxis.get_tick_params()["labelbottom"] for ax in lowest_of_column.values())


def test_figures_render_as_900_pixels_wide(comparison, scores, tmp_path):
    for fig in (
        accuracy_figure(comparison, VARIANTS),
        score_histogram_figure(scores, VARIANTS),
        training_curves_figure(make_curves(), VARIANTS),
    ):
        width, height = fig.get_size_inches() * fig.dpi
        assert width == 900
        assert 480 <= height <= 560
        fig.savefig(tmp_path / "figure.png")


def test_reliability_shows_the_bins_of_each_variant(lines):
    """Confidences .5 (wrong) and 1 (right) in two bins; the diagonal runs from corner to corner."""
    tables = {"vft": reliability(np.log([0.5, 1.0]), [False, True], bins=2), "aft": reliability([], [])}
    fig = reliability_figure(tables, VARIANTS)
    assert titles(fig) == ["vft", "aft"]
    first, second = fig.axes
    (bins,), (none,) = lines(first, "_bins"), lines(second, "_bins")
    assert np.allclose(bins.get_xydata(), [[50, 0], [100, 100]])
    assert len(np.asarray(none.get_xydata())) == 0
    assert np.allclose(lines(first, "_diagonal")[0].get_xydata(), [[0, 0], [100, 100]])
    assert [text.get_text() for text in first.texts] == ["calibration error 0.250 (n = 2)"]
    assert [text.get_text() for text in second.texts] == ["no sampled responses"]
    assert first.get_xlim() == second.get_xlim() and first.get_xlim()[0] < 50 and first.get_xlim()[1] > 100


def test_reliability_of_nothing_is_a_figure(tmp_path):
    assert reliability_figure({}, VARIANTS).axes == []
    reliability_figure({"vft": reliability([], [])}, VARIANTS).savefig(tmp_path / "empty.png")
