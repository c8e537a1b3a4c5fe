"""A response as HTML whose tokens are the more coloured, the less a model expects them."""

from collections.abc import Iterable, Sequence
from math import exp

import numpy as np

from aft.reporting.figure_style import FAINT, INK
from aft.reporting.markup import Html, element

LOWEST = -4.0  # the log-probability, in nats, from which on the colour is full
_FULL = "217, 119, 6"  # red, green, blue
_PAGE = f"background: #ffffff; color: {INK};"  # whatever the theme around it


def tokens_html(title: str, pieces: Sequence[str], logprobs: np.ndarray) -> Html:
    """A block with title and score: texts `pieces` of the tokens [C] on the colours of their `logprobs` [C], in nats.

    Pointing at a token shows its probability. Line ends are shown, since they are tokens, too. What a model wrote is
    escaped.
    """
    tokens = [
        element("span", piece.replace("\n", "↵\n"), style=_background(value), title=f"{exp(value):.1%} ({value:.2f})")
        for piece, value in zip(pieces, logprobs.tolist(), strict=True)
    ]
    style = "white-space: pre-wrap; margin: 0; font: 13px/1.6 monospace; background: none; color: inherit;"
    heading = element("div", element("b", title), f", score {logprobs.mean():.2f}")
    return element("div", heading, element("pre", *tokens, style=style), style=f"{_PAGE} padding: 6px;")


def scale_html() -> Html:
    """What the colours mean."""
    steps = np.linspace(0.0, LOWEST, 5).tolist()
    samples = [element("span", f" {exp(value):.0%} ", style=_background(value)) for value in steps]
    return element("div", "probability of a token: ", *samples, " or less", style=f"{_PAGE} padding: 6px;")


def side_by_side(rows: Iterable[Iterable[Html]]) -> Html:
    """Blocks in a grid, row by row."""
    cell = f"vertical-align: top; text-align: left; border: 1px solid {FAINT}; {_PAGE}"
    return element("table", *(element("tr", *(element("td", block, style=cell) for block in row)) for row in rows))


def _background(logprob: float) -> str:
    share = min(1.0, logprob / LOWEST)
    return f"background: rgba({_FULL}, {share:.2f});"
