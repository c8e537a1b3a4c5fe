"""Facts of the figures over several runs: what is drawn where. How they look is judged by eye."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_hex

from aft.pipelines.comparisons import variants_of
from aft.reporting.figure_style import variant_color
from aft.reporting.study_figures import scatter_figure, sweep_figure

ROWS = pd.DataFrame(
    {
        "variant": ["aft_bc", "aft_bc", "aft_bc", "aft_dc", "aft_dc"],
        "x": [8, 2, 4, 2, 8],
        "accuracy": [0.5, 0.4, 0.45, 0.42, 0.52],
        "low": [0.48, 0.38, 0.43, 0.40, 0.50],
        "high": [0.52, 0.42, 0.47, 0.44, 0.54],
        "per_seed": [[0.49, 0.51], [0.4], [0.44, 0.46], [0.42], [0.51, 0.53]],
    }
)

VARIANTS = variants_of(
    yaml.safe_load((Path(__file__).parents[2] / "conf/base/parameters_align_train.yml").read_text("utf-8"))["align"]
)
PAPER = pd.DataFrame({"variant": ["aft_bc"] * 3, "x": [0, 8, 64], "accuracy": [0.3648, 0.3997, 0.4309]})
MODELS = pd.DataFrame({"model": ["s", "m", "l"], "accuracy": [0.3, 0.4, 0.5], "assessment_accuracy": [0.6, 0.7, 0.8]})


def legend(fig) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_a_sweep_is_a_line_per_variant_in_the_order_of_x(lines):
    fig = sweep_figure(ROWS, "k", VARIANTS)
    (ax,) = fig.axes
    boundary, detached = lines(ax, "_accuracy")
    assert np.allclose(boundary.get_xydata(), [[2, 40], [4, 45], [8, 50]])
    assert np.allclose(detached.get_xydata(), [[2, 42], [8, 52]])
    assert to_hex(boundary.get_color()) == variant_color("aft_bc", VARIANTS)
    assert boundary.get_marker() != detached.get_marker()
    assert legend(fig) == ["aft_bc", "aft_dc"]
    assert ax.get_xlabel() == "k"


def test_a_sweep_shows_intervals_and_single_seeds(lines):
    (ax,) = sweep_figure(ROWS, "k", VARIANTS).axes
    ends = sorted(tuple(np.asarray(line.get_ydata(), dtype=float)) for line in lines(ax, "_interval"))
    assert np.allclose(ends, [[38, 42], [40, 44], [43, 47], [48, 52], [50, 54]])
    seeds = sorted(value for line in lines(ax, "_seeds") for value in np.asarray(line.get_ydata(), dtype=float))
    assert seeds == pytest.approx([40, 42, 44, 46, 49, 51, 51, 53])


def test_all_that_is_drawn_lies_within_the_axes():
    """Variants stand beside each other at the same x: the limits count all the same."""
    (ax,) = sweep_figure(ROWS, "k", VARIANTS).axes
    low, high = ax.get_ylim()
    assert low < 38 and high > 54
    left, right = ax.get_xlim()
    assert left < 2 and right > 8


def test_variants_at_the_same_x_stand_beside_each_other(lines):
    fig = sweep_figure(ROWS, "k", VARIANTS)
    fig.canvas.draw()
    first, second = (line.get_transform().transform((2, 40)) for line in lines(fig.axes[0], "_accuracy"))
    assert second[0] - first[0] == pytest.approx(5 / 72 * fig.dpi)
    assert second[1] == pytest.approx(first[1])


def test_baselines_are_level_lines(lines):
    fig = sweep_figure(ROWS, "k", VARIANTS, baselines={"vft": 0.35})
    (line,) = lines(fig.axes[0], "_baseline")
    assert np.allclose(line.get_ydata(), 35)
    assert to_hex(line.get_color()) == variant_color("vft", VARIANTS)
    assert legend(fig) == ["aft_bc", "aft_dc", "vft"]


def test_the_papers_points_have_a_panel_and_axes_of_their_own(lines):
    ours, paper = sweep_figure(ROWS, "k", VARIANTS, paper=PAPER, log_x=True).axes
    drawn = next(line for line in lines(paper, "_accuracy") if np.size(line.get_xdata()))
    assert np.allclose(drawn.get_xydata(), [[0, 36.48], [8, 39.97], [64, 43.09]])
    assert ours.get_ylim() != paper.get_ylim()
    assert "arXiv 2309.02144" in paper.get_title(loc="left") and "other models" in paper.get_title(loc="left")
    assert "paper" not in ours.get_title(loc="left")
    assert not lines(paper, "_interval")


def test_doublings_are_equal_steps_and_zero_is_one_of_them():
    _, paper = sweep_figure(ROWS, "k", VARIANTS, paper=PAPER, log_x=True).axes
    at = {x: paper.transScale.transform((x, 0))[0] for x in (0, 8, 16, 32, 64)}
    assert at[32] - at[16] == pytest.approx(at[64] - at[32])
    assert at[0] < at[8] < at[16]
    assert list(paper.get_xticks()) == [0, 8, 64]


def test_negative_settings_are_on_a_linear_axis():
    margins = ROWS.assign(x=[-0.8, -0.2, 0.15, 0.4, 0.8])
    (ax,) = sweep_figure(margins, "margin", VARIANTS).axes
    assert ax.get_xscale() == "linear"
    assert list(ax.get_xticks()) == [-0.8, -0.2, 0.15, 0.4, 0.8]


def test_a_scatter_has_a_labelled_point_per_model_and_states_the_correlation(lines):
    """On a rising line r is 1; with the accuracies .3, .5, .4 it is half: Σ dx dy / √(Σ dx² Σ dy²) = .01 / .02."""
    (ax,) = scatter_figure(MODELS).axes
    assert np.allclose(lines(ax, "_models")[0].get_xydata(), [[60, 30], [70, 40], [80, 50]])
    assert [text.get_text() for text in ax.texts] == ["s", "m", "l"]
    assert ax.get_title(loc="left") == "Pearson r = 1.00 over 3 models"
    (ax,) = scatter_figure(MODELS.assign(accuracy=[0.3, 0.5, 0.4])).axes
    assert ax.get_title(loc="left") == "Pearson r = 0.50 over 3 models"


def test_no_correlation_is_stated_where_there_is_none():
    for models in (MODELS[:2], MODELS[:0], MODELS.assign(accuracy=0.4)):
        (ax,) = scatter_figure(models).axes
        assert "for a correlation" in ax.get_title(loc="left")


def test_the_figures_render(tmp_path):
    for fig in (sweep_figure(ROWS, "k", VARIANTS, {"vft": 0.4}, PAPER, log_x=True), scatter_figure(MODELS)):
        assert fig.get_size_inches()[0] * fig.dpi == 900
        fig.savefig(tmp_path / "figure.png")
