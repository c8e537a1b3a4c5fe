"""How the figures of the evaluation look: colours, sizes, bare axes, grids of panels.

The colour of a variant follows from its family and its place among the configured ones of it: baselines grey, terms
without a constraint warm, constrained ones blue. A variant that is added at the end changes no other's.
Matplotlib is used without pyplot or any other global state.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Literal

from aft.alignment.variants import Family, Variant, marked

if TYPE_CHECKING:  # matplotlib takes its time to import: only who draws waits for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS: Mapping[Family, tuple[str, ...]] = {
    "baseline": ("#5f6368", "#8a8f94", "#a9adb2", "#3c4043"),
    "unconstrained": (
        *("#b3261e", "#cc4b1c", "#d97706", "#e0913f", "#b5722d", "#c2694f", "#8f4a00", "#c79a1e", "#8c3d2b"),
        *("#e8590c", "#f0b429", "#7a1f0f"),
    ),
    "constrained": (
        *("#0b4f8a", "#2b7bba", "#16376b", "#5fa2d0", "#3d8fd6", "#1d6996", "#4d96bd", "#2f4b8f", "#5b79bd", "#44619e"),
        *("#2a6f97", "#56a3bf", "#88b8dd", "#4a55c8"),
    ),
}
OTHER_COLOR = "#7b5ea7"  # what is no configured variant
INK, FAINT = "#303236", "#d9dbde"
DASHES = (0, (4, 2))
_WIDTH, _MIN_HEIGHT, _DPI = 7.5, 4.2, 120  # inches: 900 x 504 pixels at the least
_MOST_COLUMNS = 3


def variant_color(variant: str, variants: Mapping[str, Variant]) -> str:
    """The colour in which one of the configured variants stands in every figure."""
    if variant not in variants:
        return OTHER_COLOR
    family = variants[variant].family
    place = [name for name, one in variants.items() if one.family == family].index(variant)
    return _COLORS[family][place % len(_COLORS[family])]


def new_figure(height: float) -> Figure:
    """A white figure of the common width, `height` inches high or the least height, without axes."""
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, max(_MIN_HEIGHT, height)), dpi=_DPI, layout="constrained", facecolor="white")


def small_multiples(n_panels: int) -> tuple[Figure, list[Axes]]:
    """A grid of panels on common axes, without the empty places of its last row."""
    n_rows = max(1, ceil(n_panels / _MOST_COLUMNS))
    n_columns = max(1, ceil(n_panels / n_rows))
    fig = new_figure(height=0.8 + 1.7 * n_rows)
    axes = fig.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    panels, empty = axes[:n_panels], axes[n_panels:]
    for ax in panels:
        plain(ax, grid_axis="y")
    for ax in empty:
        ax.remove()
    for ax in panels[-n_columns:]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
    return fig, panels


def panel_title(ax: Axes, variant: str, variants: Mapping[str, Variant]) -> None:
    """The variant's name above its panel, in its colour, marked if it is an extension."""
    color = variant_color(variant, variants)
    ax.set_title(marked(variant, variants), loc="left", fontsize=10, fontweight="bold", color=color)


def plain(ax: Axes, grid_axis: Literal["x", "y", "both"]) -> None:
    """Leave of the axes only what helps to read: two faint spines and the lines of the grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.grid(axis=grid_axis, color=FAINT, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK, labelsize=9)
