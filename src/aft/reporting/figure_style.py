"""How the figures of the evaluation look: colours, sizes, bare axes, grids of panels.

The colour of a variant is fixed: baselines grey, methods without a constraint warm, constrained ones blue.
Matplotlib is used without pyplot or any other global state.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

from aft.evaluation.variant_notes import marked

if TYPE_CHECKING:  # matplotlib takes its time to import: only who draws waits for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VARIANT_COLORS = {
    "vft": "#5f6368",
    "rft": "#8a8f94",
    "rft_rank": "#a9adb2",
    "aft": "#b3261e",
    "aft_rank": "#cc4b1c",
    "rrhf": "#d97706",
    "rrhf_published": "#8f4a00",
    "pro": "#e0913f",
    "pro_published": "#c79a1e",
    "pro_no_temperature": "#b5722d",
    "dpo": "#c2694f",
    "dpo_published": "#8c3d2b",
    "aft_dc": "#0b4f8a",
    "aft_bc": "#2b7bba",
    "aft_rdc1": "#0b4f8a",
    "aft_rdc2": "#5fa2d0",
    "aft_rbc": "#2b7bba",
    "rrhf_dc": "#1d6996",
    "rrhf_bc": "#4d96bd",
    "pro_dc": "#2f4b8f",
    "pro_bc": "#5b79bd",
    "pro_no_temperature_dc": "#44619e",
    "dpo_dc": "#2a6f97",
    "dpo_bc": "#56a3bf",
}
OTHER_COLOR = "#7b5ea7"  # a variant that someone added
INK, FAINT = "#303236", "#d9dbde"
DASHES = (0, (4, 2))
_WIDTH, _MIN_HEIGHT, _DPI = 7.5, 4.2, 120  # inches: 900 x 504 pixels at the least
_MOST_COLUMNS = 3


def variant_color(variant: str) -> str:
    """The colour in which a variant stands in every figure."""
    return VARIANT_COLORS.get(variant, OTHER_COLOR)


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


def panel_title(ax: Axes, variant: str) -> None:
    """The variant's name above its panel, in its colour, marked if it is an extension."""
    ax.set_title(marked(variant), loc="left", fontsize=10, fontweight="bold", color=variant_color(variant))


def plain(ax: Axes, grid_axis: Literal["x", "y", "both"]) -> None:
    """Leave of the axes only what helps to read: two faint spines and the lines of the grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.grid(axis=grid_axis, color=FAINT, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK, labelsize=9)
