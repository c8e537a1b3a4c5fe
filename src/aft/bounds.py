"""Bounds of settings: what a number or a name may be, and the sentence for one that is out of bounds.

The types of numbers here are for the fields of a class that `aft.checked.checked` makes.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MANY = 10**9  # of whatever is counted: more than anyone has time or memory for
LARGEST = 1e30  # of other numbers: float32, in which weights are, ends at 3e38
SEEDS = 2**32 - 1  # numpy takes no larger one
_LONGEST = 60  # characters of a value that are shown
_SCIENTIFIC = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?[eE][+-]?[0-9]{1,3}")


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

    def read(self, value: Any) -> float:
        """`value` as such a number: 2e-5 may be text, as YAML takes it for, and 8.0 is whole.

        Raises pydantic's error with `value` and what it must be.
        """
        number: Any = float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value
        if self.whole and isinstance(number, float) and number.is_integer():
            number = int(number)
        if not self.hold(number):
            context = {"value": shown(value), "bounds": str(self)}
            raise PydanticCustomError("bounds", "is {value}: it must be {bounds}", context)
        return number if self.whole else float(number)

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


class Must(NamedTuple):
    """What a field that is text must be; its sentence does not repeat the value, which may hold a secret."""

    hold: Callable[[str], object]
    do: str  # as in "name a model"

    def read(self, value: Any) -> str:
        """`value` if it is such a text; raises pydantic's error otherwise."""
        if not (isinstance(value, str) and self.hold(value)):
            raise PydanticCustomError("must", "must {do}", {"do": self.do})
        return value

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


def counted(least: int = 1, most: int = MANY) -> Bounds:
    """The bounds of a count or an index."""
    return Bounds(least, most, whole=True)


Count = Annotated[int, counted()]
CountOrZero = Annotated[int, counted(0)]
Seed = Annotated[int, counted(0, SEEDS)]
Positive = Annotated[float, Bounds(0, LARGEST, above=True)]
NotNegative = Annotated[float, Bounds(0, LARGEST)]
Share = Annotated[float, Bounds(0, 1)]
ShareBelowOne = Annotated[float, Bounds(0, 1, below=True)]  # that leaves something


def shown(value: object) -> str:
    """`value` in less than a line; Python itself refuses to write a whole number of thousands of digits."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"{'below -' if value < 0 else 'above '}{LARGEST:g}"
    try:
        text = repr(value)
    except ValueError:  # such a number, somewhere within
        text = f"a {type(value).__name__} with a number above {LARGEST:g}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
