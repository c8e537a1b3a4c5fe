"""What a number among the settings may be: one check and one sentence, wherever a setting is a number."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from aft.errors import SettingsError

MANY = 10**9  # of whatever is counted: more than anyone has time or memory for
LARGEST = 1e30  # of other numbers: float32, in which weights are, ends at 3e38
SEEDS = 2**32 - 1  # numpy takes no larger one


class Bounds(NamedTuple):
    """From `least` up to `most`, both included unless `above` or `below` says otherwise."""

    least: float
    most: float
    whole: bool = False  # no fraction
    above: bool = False  # not `least` itself
    below: bool = False  # not `most` itself

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        start = f"above {self.least:g}" if self.above else f"from {self.least:g}"
        return f"{kind} {start} {'and below' if self.below else 'up to'} {self.most:.12g}"

    def hold(self, value: object) -> bool:
        """Whether `value` is such a number; NaN is none, nor is a truth value."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        starts = self.least < value if self.above else self.least <= value
        ends = value < self.most if self.below else value <= self.most
        return starts and ends


def counted(least: int = 1, most: int = MANY) -> Bounds:
    """The bounds of a count or an index."""
    return Bounds(least, most, whole=True)


POSITIVE = Bounds(0, LARGEST, above=True)
NOT_NEGATIVE = Bounds(0, LARGEST)
SHARE = Bounds(0, 1, below=True)  # that leaves something


def check_bounds(
    settings: object, bounds: Mapping[str, Bounds], where: str = "", optional: Collection[str] = ()
) -> None:
    """Raise `SettingsError` naming the first setting, after `where`, that is not within its bounds.

    None passes where it is `optional`.
    """
    for name, its in bounds.items():
        value = getattr(settings, name)
        if not its.hold(value) and not (value is None and name in optional):
            raise SettingsError(f"{where}{name} is {shown(value)}: it must be {its}.")


def shown(value: object) -> str:
    """`value` in less than a line; Python itself refuses to write a whole number of thousands of digits."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"{'below -' if value < 0 else 'above '}{LARGEST:g}"
    return f"{value!s:.60}"
