"""Figures of the evaluation: matplotlib figures made without pyplot or any other global state.

The two kinds of response differ in shape as well as colour (positives filled or solid, negatives outlined or
dashed), and variants keep the colour of `figure_style` and the order of the table they come in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aft.alignment.variants import BASELINE, Variant, marked
from aft.evaluation.calibration import expected_calibration_error
from aft.reporting.figure_style import (
    DASHES,
    INK,
    new_figure,
    panel_title,
    plain,
    small_multiples,
    variant_color,
)

if TYPE_CHECKING:  # matplotlib takes its time to import: only who draws waits for it
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

POSITIVE_COLOR, NEGATIVE_COLOR = "#00806b", "#8e3b8e"
_SCORE_TICKS = (0, -0.5, -1, -2, -5, -10, -20, -50, -100)
_BINS = 40


def accuracy_figure(comparison: pd.DataFrame, variants: Mapping[str, Variant]) -> Figure:
    """Accuracy of each variant with its interval, one row per variant, and a line at VFT if it is there.

    `comparison` holds `variant`, `accuracy`, `low` and `high` (fractions in [0, 1]), and may hold `per_seed`, a list of
    the accuracies of single seeds, drawn as small dots, and `at`, under which setting the row is, "" under none.
    """
    fig = new_figure(height=1 + 0.42 * len(comparison))
    ax = fig.subplots()
    plain(ax, grid_axis="x")
    for row, record in enumerate(comparison.to_dict("records")):
        color = variant_color(record["variant"], variants)
        point, low, high = (100 * record[name] for name in ("accuracy", "low", "high"))
        seeds = 100 * np.atleast_1d(np.asarray(record.get("per_seed", []), dtype=float))
        ax.plot(
            [low, high],
            [row, row],
            color=color,
            linewidth=3,
            alpha=0.55,
            solid_capstyle="butt",
            label="_interval",
        )
        ax.plot(
            point,
            row,
            "o",
            color=color,
            markersize=8,
            markeredgecolor="white",
            markeredgewidth=1.2,
            label="_accuracy",
        )
        ax.plot(seeds, np.full(seeds.size, row + 0.27), ".", color=color, markersize=5, alpha=0.8, label="_seeds")
        text = f"{point:.1f}  [{low:.1f}, {high:.1f}]"
        ax.annotate(text, (1.015, row), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=INK)
        if record["variant"] == BASELINE:
            _mark_vft(ax, point, color)
    labels = [marked(name, variants) for name in comparison["variant"]]
    shown = [
        f"{label}  {at}".rstrip() for label, at in zip(labels, comparison.get("at", [""] * len(labels)), strict=True)
    ]
    ax.set_yticks(range(len(comparison)), shown, fontweight="bold")
    for label, variant in zip(ax.get_yticklabels(), comparison["variant"], strict=True):
        label.set_color(variant_color(variant, variants))
    ax.set_ylim(len(comparison) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    note = "; small dots: single seeds" if "per_seed" in comparison else ""
    note += "; *: not in the paper" if labels != list(comparison["variant"]) else ""
    ax.set_xlabel(f"accuracy, % (bars: intervals{note})", fontsize=9, color=INK)
    return fig


def score_histogram_figure(scores: pd.DataFrame, variants: Mapping[str, Variant]) -> Figure:
    """Distribution of the scores of positives and of negatives, one panel per variant on common axes.

    `scores` holds `variant`, `is_correct` (bool) and `score` (mean token log-probability), one row per
    response. Each kind has its median marked and sums to one. The axis starts at the lowest hundredth of all
    scores; what lies below is counted in the first bin. Below -1 the axis is logarithmic, with bins of equal
    width on it, so that a variant that collapsed leaves the others readable.
    """
    names = list(dict.fromkeys(scores["variant"]))
    fig, panels = small_multiples(len(names))
    ends = np.quantile(scores["score"].to_numpy(), [0.01, 1]) if names else np.array([-1.0, 0.0])
    for ax, variant in zip(panels, names, strict=True):
        _score_scale(ax.set_xscale, ax.xaxis, ends[0])
        scale = ax.xaxis.get_transform()
        edges = scale.inverted().transform(np.linspace(*scale.transform(ends), num=_BINS + 1))
        own = scores[scores["variant"] == variant]
        for is_correct in (True, False):
            score = own.loc[own["is_correct"] == is_correct, "score"].to_numpy()
            _draw_histogram(ax, score, edges, is_correct)
        ax.margins(y=0.38)  # the upper quarter stays free for the text of the medians
        panel_title(ax, variant, variants)
    _kinds_legend(fig)
    fig.supxlabel(
        f"score: mean token log-probability{_scale_note(ends[0])} (first bin: all below {ends[0]:.2f})",
        fontsize=9,
        color=INK,
    )
    fig.supylabel("share of responses", fontsize=9, color=INK)
    return fig


def training_curves_figure(curves: pd.DataFrame, variants: Mapping[str, Variant]) -> Figure:
    """Mean score of positives and of negatives over training, one panel per variant on common axes; then, where epochs
    were selected, validation accuracy over training in one panel, with a ring at each epoch that became the model.

    `curves` holds `variant`, `seed`, `step`, `score_positive` and `score_negative`, one row per logged step, and may
    hold `validation_accuracy` (fraction in [0, 1]; NaN but at the ends of epochs).
    Thin lines are seeds, bold ones their mean; all are running means over 1/25 of the logged steps; the
    figure states the window. A variant that scores no groups (all NaN) has no panel and is named below. Below
    -1 the axis is logarithmic, so that a variant that collapsed leaves the others readable.
    """
    scored = curves.dropna(subset=["score_positive", "score_negative"], how="all")
    names = list(dict.fromkeys(scored["variant"]))
    left_out = [variant for variant in dict.fromkeys(curves["variant"]) if variant not in names]
    lowest = float(np.nanmin(scored[["score_positive", "score_negative"]].to_numpy(), initial=0))
    window = max(1, round(len(curves["step"].unique()) / 25))
    examined = curves.dropna(subset=["validation_accuracy"]) if "validation_accuracy" in curves else curves[:0]
    fig, panels = small_multiples(len(names) + (len(examined) > 0))
    if len(examined):
        _draw_validation(panels.pop(), examined, variants)
    for ax, variant in zip(panels, names, strict=True):
        own = scored[scored["variant"] == variant]
        for is_correct, column in ((True, "score_positive"), (False, "score_negative")):
            _draw_curves(ax, own.pivot_table(index="step", columns="seed", values=column), window, is_correct)
        _score_scale(ax.set_yscale, ax.yaxis, lowest)
        panel_title(ax, variant, variants)
    _kinds_legend(fig)
    smoothing = f"running mean over {window} logged steps" if window > 1 else "not smoothed"
    missing = f"\nwithout scored groups in training: {', '.join(left_out)}" if left_out else ""
    fig.supxlabel(f"training step ({smoothing}; thin: single seeds){missing}", fontsize=9, color=INK)
    fig.supylabel(f"mean score of the batch{_scale_note(lowest)}", fontsize=9, color=INK)
    return fig


def reliability_figure(tables: Mapping[str, pd.DataFrame], variants: Mapping[str, Variant]) -> Figure:
    """Accuracy by confidence of the sampled responses, one panel per variant on common axes.

    `tables` holds a table of `aft.evaluation.calibration.reliability` per variant. A dot is a bin, its bar the span of
    its confidences (that of the lowest may leave the panel); on the dashed diagonal confidence would equal accuracy. A
    variant without responses has a panel that says so.
    """
    fig, panels = small_multiples(len(tables))
    for ax, (variant, table) in zip(panels, tables.items(), strict=True):
        color, percent = variant_color(variant, variants), 100 * table[["low", "high", "confidence", "accuracy"]]
        ax.plot([0, 100], [0, 100], color=INK, linestyle=DASHES, linewidth=1, alpha=0.6, label="_diagonal")
        ax.hlines(percent["accuracy"], percent["low"], percent["high"], color=color, linewidth=3, alpha=0.35)
        ax.plot(percent["confidence"], percent["accuracy"], "o-", color=color, markersize=4, label="_bins")
        error, n = expected_calibration_error(table), int(table["count"].sum())
        text = f"calibration error {error:.3f} (n = {n:,})" if n else "no sampled responses"
        ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=8, color=color)
        panel_title(ax, variant, variants)
    if panels:  # on common axes; the lowest bin reaches far down and is cut at its mean
        lowest = min((100 * table["confidence"].min() for table in tables.values() if len(table)), default=0)
        panels[0].set(xlim=(lowest - 0.1 * (100 - lowest), 101), ylim=(-2, 118), yticks=range(0, 101, 25))
    fig.supxlabel("confidence, %: geometric mean token probability, exp(score)", fontsize=9, color=INK)
    fig.supylabel("accuracy, %", fontsize=9, color=INK)
    return fig


def _mark_vft(ax: Axes, accuracy: float, color: str) -> None:
    ax.axvline(accuracy, color=color, linestyle=DASHES, linewidth=1, zorder=0, label="_vft")
    ax.annotate(BASELINE, (accuracy, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=9, color=color)


def _draw_histogram(ax: Axes, score: np.ndarray, edges: np.ndarray, is_correct: bool) -> None:
    if score.size == 0:
        return
    color = POSITIVE_COLOR if is_correct else NEGATIVE_COLOR
    share = np.histogram(np.clip(score, edges[0], edges[-1]), edges)[0] / score.size
    ax.stairs(share, edges, fill=is_correct, color=color, alpha=0.45 if is_correct else 1, linewidth=1.3)
    median = float(np.median(score))
    ax.axvline(
        median,
        ymax=0.72,
        color=color,
        linestyle="-" if is_correct else DASHES,
        linewidth=1.4,
        label="_median",
    )
    text, height = f"median {median:.2f} (n = {score.size:,})", 0.97 if is_correct else 0.85
    ax.text(0.03, height, text, transform=ax.transAxes, va="top", fontsize=8, color=color)


def _draw_curves(ax: Axes, scores: pd.DataFrame, window: int, is_correct: bool) -> None:
    """Draw scores [step, seed] of one kind, smoothed along the steps."""
    color, style = (POSITIVE_COLOR, "-") if is_correct else (NEGATIVE_COLOR, DASHES)
    smooth = scores.rolling(window, center=True, min_periods=1).mean()
    for seed in smooth:
        ax.plot(scores.index, smooth[seed], color=color, linewidth=0.7, alpha=0.4, label="_seed")
    mean = scores.mean(axis=1).rolling(window, center=True, min_periods=1).mean()
    ax.plot(scores.index, mean, color=color, linestyle=style, linewidth=2, label="_mean")


def _draw_validation(place: Axes, examined: pd.DataFrame, variants: Mapping[str, Variant]) -> None:
    """Put a panel on axes of its own in this place: accuracy of every variant and seed over the steps."""
    ax = place.figure.add_subplot(place.get_subplotspec())  # type: ignore[arg-type]
    place.remove()
    plain(ax, grid_axis="y")
    for variant, own in examined.groupby("variant", sort=False):
        color, accuracies = variant_color(str(variant), variants), own.pivot(index="step", columns="seed")
        for _, accuracy in (100 * accuracies["validation_accuracy"]).items():
            ax.plot(accuracy.index, accuracy, color=color, linewidth=1, label="_validation")
            ax.plot(accuracy.idxmax(), accuracy.max(), "o", color=color, markerfacecolor="white", label="_selected")
        ax.plot([], [], color=color, label=marked(str(variant), variants))
    ax.legend(frameon=False, fontsize=7, labelcolor="linecolor", ncols=2)
    ax.set_title("validation accuracy, %", loc="left", fontsize=10, color=INK)


def _score_scale(set_scale: Callable[..., None], axis: Axis, lowest: float) -> None:
    """Scores are read linearly down to -1 and logarithmically below, where only a collapse leads."""
    if lowest < -1:
        set_scale("symlog", linthresh=1)
        axis.set_ticks([tick for tick in _SCORE_TICKS if tick >= lowest])
        axis.set_ticks([], minor=True)
        axis.set_major_formatter("{x:g}")


def _scale_note(lowest: float) -> str:
    return ", logarithmic below -1" if lowest < -1 else ""


def _kinds_legend(fig: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=POSITIVE_COLOR, linewidth=2, label="positives (correct)"),
        Line2D([], [], color=NEGATIVE_COLOR, linewidth=2, linestyle=DASHES, label="negatives (wrong)"),
    ]
    fig.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False, fontsize=9, labelcolor="linecolor")
