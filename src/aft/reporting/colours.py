"""A response as HTML: the less likely a token is under a model, the stronger its colour."""

from collections.abc import Iterable, Sequence
from functools import partial
from math import exp

import numpy as np

from aft.reporting.render import macro

LOWEST = -4.0  # the log-probability, in nats, from which on the colour is full
_FULL = "217, 119, 6"  # red, green, blue
_macro = partial(macro, "tokens.html.j2")


def tokens_html(title: str, pieces: Sequence[str], logprobs: np.ndarray) -> str:
    """A block with title and score: texts `pieces` of the tokens [C] on the colours of their `logprobs` [C], in nats.

    Pointing at a token shows its probability. Line ends are shown, since they are tokens, too. What a model wrote is
    escaped.
    """
    tokens = [
        (piece.replace("\n", "↵\n"), _color(value), f"{exp(value):.1%} ({value:.2f})")
        for piece, value in zip(pieces, logprobs.tolist(), strict=True)
    ]
    return _macro("response")(title, f"{logprobs.mean():.2f}", tokens)


def scale_html() -> str:
    """What the colours mean."""
    return _macro("scale")([(_color(value), f"{exp(value):.0%}") for value in np.linspace(0.0, LOWEST, 5).tolist()])


def side_by_side(rows: Iterable[Iterable[str]]) -> str:
    """Blocks in a grid, row by row."""
    return _macro("grid")(rows)


def _color(logprob: float) -> str:
    return f"rgba({_FULL}, {min(1.0, logprob / LOWEST):.2f})"
