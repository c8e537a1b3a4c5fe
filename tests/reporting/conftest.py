"""What the tests of figures share."""

from collections.abc import Callable

import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D


@pytest.fixture
def lines() -> Callable[[Axes, str], list[Line2D]]:
    """The lines of a panel that have this label."""
    return lambda ax, label: [line for line in ax.get_lines() if line.get_label() == label]
