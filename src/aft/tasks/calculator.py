"""Equations as GSM8K's calculator marks have them, "48/2=24": computed exactly, whatever a model wrote there."""

import ast
import itertools
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

TOLERANCE = Fraction(1, 1000)  # by which the sides of an equation that holds may differ, itself not included

_LONGEST = 200  # characters of an expression; the published ones have at most 36
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+")
_EXPRESSION = re.compile(r"[0-9.,+\-*/()%]+")  # nothing else gets to the parser
_SPELLED = str.maketrans("x\u00d7\u00f7", "**/")
_SIGNS: dict[type[ast.AST], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub},
    **{ast.Mult: operator.mul, ast.Div: operator.truediv},
}


@lru_cache(maxsize=10_000)  # the responses to a question have most equations in common
def value_of(equation: str) -> Fraction | None:
    """What the last side of an equation comes to; None if a side cannot be computed or its sides differ."""
    sides = [value_of_side(side) for side in equation.split("=")]
    known = [side for side in sides if side is not None]
    holds = all(abs(a - b) < TOLERANCE for a, b in itertools.pairwise(known))
    return known[-1] if holds and len(known) == len(sides) > 1 else None


def value_of_side(expression: str) -> Fraction | None:
    """What an expression of decimal numbers, per cent, + - * / and brackets comes to, exactly; it holds no blanks.

    x and \u00d7 multiply, \u00f7 divides. None for anything else, for a division by zero, and for more than
    `_LONGEST` characters, which bounds the size of every number on the way.
    """
    plain = expression.translate(_SPELLED)
    if len(plain) > _LONGEST or not _EXPRESSION.fullmatch(plain):
        return None
    numbers = [Fraction(number.replace(",", "")) for number in _NUMBER.findall(plain)]
    places = itertools.count()
    named = _NUMBER.sub(lambda _: f"n{next(places)} ", plain).replace(
        "%", "[0]"
    )  # per cent bind tighter than all signs
    try:
        return _computed(ast.parse(named, mode="eval").body, numbers)
    except (SyntaxError, MemoryError, RecursionError, KeyError, ZeroDivisionError):
        return None


def _computed(node: ast.AST, numbers: Sequence[Fraction]) -> Fraction:
    """The value of a parsed expression, in which n3 stands for the fourth number and a[0] for a per cent.

    Raises `KeyError` for what is no expression of these.
    """
    match node:
        case ast.Name(name):
            return numbers[int(name[1:])]
        case ast.Subscript(value):
            return _computed(value, numbers) / 100
        case ast.UnaryOp(sign, operand):
            return _SIGNS[type(sign)](_computed(operand, numbers))
        case ast.BinOp(left, operation, right):
            return _OPERATORS[type(operation)](_computed(left, numbers), _computed(right, numbers))
    raise KeyError(type(node))
