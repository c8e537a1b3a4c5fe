"""Figures over several runs: a setting that is swept, and base models beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aft.alignment.variants import Variant, marked
from aft.evaluation.statistics import pearson
from aft.reporting.figure_style import DASHES, INK, OTHER_COLOR, new_figure, plain, variant_color

if TYPE_CHECKING:  # matplotlib takes its time to import: only who draws waits for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os^Dvp"
_HERE = "here\n(bars: intervals; small dots: single seeds)"
_PAPER = "the paper (arXiv 2309.02144)\n(other models and data, axes of its own)"
_SIDESTEP = 5  # points between variants at the same x


def sweep_figure(
    rows: pd.DataFrame,
    x_label: str,
    variants: Mapping[str, Variant],
    baselines: Mapping[str, float] | None = None,
    paper: pd.DataFrame | None = None,
    log_x: bool = False,
    measured: bool = False,
) -> Figure:
    """Accuracy of each variant over a setting, with intervals and seeds; beside it what the paper reports, if given.

    `rows` holds `variant`, `x` (the setting), `accuracy`, `low` and `high` (fractions in [0, 1]) and `per_seed`, a list
    of the accuracies of single seeds. `baselines` are accuracies of variants that do not depend on x, drawn as
    horizontal lines. `paper` holds `variant`, `x` and `accuracy`, and may hold `low` and `high`; it has a panel with
    axes of its own, since its models and data are others and only the shapes can be compared. `log_x` spaces x by
    doublings, with 0 one doubling below the least positive x. An x that is `measured` has no tick of its own.
    """
    fig = new_figure(height=0)
    tables = [(_HERE, rows)] if paper is None else [(_HERE, rows), (_PAPER, paper)]
    axes = fig.subplots(1, len(tables), squeeze=False)[0]
    names = list(dict.fromkeys(variant for _, table in tables for variant in table["variant"]))
    for ax, (title, table) in zip(axes, tables, strict=True):
        plain(ax, grid_axis="y")
        _sweep_scale(ax, table["x"].to_numpy(dtype=float), log_x, measured)
        for place, variant in enumerate(names):
            sidestep = _SIDESTEP * (place - (len(names) - 1) / 2) * (not measured)
            own, color = table[table["variant"] == variant].sort_values("x"), variant_color(variant, variants)
            _draw_sweep(ax, own, color, _marker(place), sidestep)
        ax.set_xlabel(x_label, fontsize=9, color=INK)
        ax.set_title(title, loc="left", fontsize=9, color=INK)
    for variant, accuracy in (baselines or {}).items():
        color = variant_color(variant, variants)
        axes[0].axhline(100 * accuracy, color=color, linestyle=DASHES, linewidth=1.2, zorder=0, label="_baseline")
    axes[0].set_ylabel("accuracy, %", fontsize=9, color=INK)
    _sweep_legend(fig, names, list(baselines or {}), variants)
    return fig


def scatter_figure(models: pd.DataFrame) -> Figure:
    """Task accuracy against assessment accuracy, one labelled point per base model, and their Pearson correlation.

    `models` holds `model`, `accuracy` and `assessment_accuracy` (fractions in [0, 1]), one row per model. Two points
    always lie on a line: with fewer than three, or without any spread, no correlation is stated.
    """
    fig = new_figure(height=0)
    ax = fig.subplots()
    plain(ax, grid_axis="both")
    x, y = (100 * models[name].to_numpy(dtype=float) for name in ("assessment_accuracy", "accuracy"))
    ax.plot(x, y, "o", color=OTHER_COLOR, markersize=8, markeredgecolor="white", label="_models")
    for name, place in zip(models["model"], zip(x, y, strict=True), strict=True):
        ax.annotate(str(name), place, xytext=(7, 5), textcoords="offset points", fontsize=9, color=INK)
    ax.margins(0.18)
    ax.set_title(_correlation(x, y), loc="left", fontsize=10, color=INK)
    ax.set_xlabel("assessment accuracy, %", fontsize=9, color=INK)
    ax.set_ylabel("task accuracy, %", fontsize=9, color=INK)
    return fig


def _correlation(x: np.ndarray, y: np.ndarray) -> str:
    r = pearson(x, y)
    if np.isnan(r):
        return f"{len(x)} models: too few, or too much alike, for a correlation"
    return f"Pearson r = {r:.2f} over {len(x)} models"


def _draw_sweep(ax: Axes, rows: pd.DataFrame, color: str, marker: str, sidestep: float) -> None:
    """One variant's accuracies over x, `sidestep` points to the right, with the intervals and seeds that there are."""
    from matplotlib.transforms import ScaledTranslation

    lines = []
    for record in rows.to_dict("records"):
        seeds = 100 * np.atleast_1d(np.asarray(record.get("per_seed", []), dtype=float))
        if "low" in record:
            ends, x = [100 * record["low"], 100 * record["high"]], [record["x"]] * 2
            lines += ax.plot(x, ends, color=color, linewidth=3, alpha=0.35, label="_interval")
        x = np.full(seeds.size, record["x"])
        lines += ax.plot(x, seeds, ".", color=color, markersize=4, alpha=0.8, label="_seeds")
    x, y = rows["x"], 100 * rows["accuracy"]
    lines += ax.plot(x, y, marker=marker, color=color, linewidth=1.6, markersize=6, label="_accuracy")
    for line in lines:  # only now: the axes take their limits from lines in the axes' own coordinates
        line.set_transform(ax.transData + ScaledTranslation(sidestep / 72, 0, line.get_figure().dpi_scale_trans))


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]


def _sweep_scale(ax: Axes, x: np.ndarray, log_x: bool, measured: bool) -> None:
    """A tick at each x that was tried; with `log_x` a step per doubling, and one from 0 to the least positive x."""
    ticks = np.unique(x)
    if log_x:
        ax.set_xscale("symlog", base=2, linthresh=min(ticks[ticks > 0], default=1), linscale=1)
    if not measured:
        ax.set_xticks(ticks)
        ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.tick_params(axis="x", labelsize=9 if len(ticks) < 9 else 7)
    ax.margins(x=0.08)


def _sweep_legend(fig: Figure, names: list[str], baselines: list[str], variants: Mapping[str, Variant]) -> None:
    from matplotlib.lines import Line2D

    colors = {name: variant_color(name, variants) for name in (*names, *baselines)}
    handles = [
        Line2D([], [], color=colors[name], marker=_marker(place), linewidth=1.6, label=marked(name, variants))
        for place, name in enumerate(names)
    ] + [Line2D([], [], color=colors[name], linestyle=DASHES, label=name) for name in baselines]
    fig.legend(handles=handles, loc="outside upper right", ncols=5, frameon=False, fontsize=9, labelcolor="linecolor")
