"""Equations of calculator marks: computed exactly, whatever is written there."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.tasks.calculator import value_of


def _holds(equation: str) -> bool:
    """Whether an equation, without its blanks, holds."""
    return value_of("".join(equation.split())) is not None


@pytest.mark.parametrize(
    "equation",
    [
        *("2+3*4=14", "(2+3)*4=20", "2-3-4=-5", "24/2/3=4", "24/(2/3)=36", "2*-3=-6", "-2*3=-6", "-(2+3)=-5", "--2=2"),
        *("+2=2", "20%*50=10", "50*20%=10", "50/20%=250", "100%-20%=80%", "(10+10)%=.2", "1,000*1,000=1,000,000"),
        *(
            "3x4=12",
            "3\u00d74=12",
            "12\u00f73=4",
            ".5+.25=0.75",
            "5.=5",
            "1/3=.3333",
            "2/3=.667",
            "1=1=1",
            " 1 + 1 = 2 ",
        ),
        *("0.1+0.2-0.3=0.00099", "((((((2))))))=2"),
    ],
)
def test_equations_that_hold(equation: str) -> None:
    assert _holds(equation)


@pytest.mark.parametrize(
    "equation",
    [
        *("2+3*4=20", "2-3-4=3", "1/3=.33", "0.1+0.2-0.3=0.001", "1=1=2", "1=2=1", "1", "=", "1=", "=1", "1==1", ""),
        *("1/0=0", "1/(2-2)=1", "(1=1", "1)=1", "()=0", "(1)(2)=2", "2(3)=6", "2**3=8", "2^3=8", "560//10=56", "1+=1"),
        *("*1=1", "%=0", "1+%=1", "$1=1", "a=a", "1;1=1", "1.2.3=1.2", "1e2=100", "__import__('os')=1", "\u0661=1"),
        "+".join(["1"] * 101) + "=101",  # 201 characters
        *(
            "(" * 100_000 + "1" + ")" * 100_000 + "=1",
            "9*" * 100_000 + "0=0",
            "-" * 100_000 + "1=1",
            "9" * 10_000 + "=9",
        ),
    ],
    ids=lambda equation: equation[:20],
)
def test_equations_that_do_not_hold(equation: str) -> None:
    """A wrong value, no equation, a form that is none, or one too long to be computed."""
    assert not _holds(equation)


_Expression = tuple[str, Fraction | None]  # text and value, None after a division by zero
_numbers = st.integers(0, 99).map(lambda number: (str(number), Fraction(number)))


def _combined(parts: tuple[_Expression, str, _Expression]) -> _Expression:
    (a, x), sign, (b, y) = parts
    text = f"({a}{sign}{b})"
    if x is None or y is None or (sign == "/" and not y):
        return text, None
    return text, x / y if sign == "/" else {"+": x + y, "-": x - y, "*": x * y}[sign]


@given(
    st.recursive(_numbers, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(_combined), max_leaves=8),
    st.integers(-2, 2),
)
@settings(deadline=None)
def test_expressions_are_computed_exactly(expression: _Expression, off: int) -> None:
    """Random expressions of up to eight numbers hold with their value, and not with another or without one."""
    text, value = expression
    other = (value or 0) + off
    expected = f"{other.numerator}/{other.denominator}"
    assert _holds(f"{text}={expected}") == (value is not None and off == 0)


def test_an_equation_comes_to_its_last_side() -> None:
    assert value_of("1/3=.333=.3333") == Fraction(3333, 10_000)
    assert value_of("1/3=.332=.3333") is None
