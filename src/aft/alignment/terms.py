"""The alignment terms by name: what each reads, and its constants as published. Importing this loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aft.bounds import LARGEST, Bounds, shown
from aft.errors import SettingsError

Ranking = Literal["aft", "rrhf", "pro", "dpo"]
Pairwise = Literal["dpo_pairs", "irpo", "ipo", "simpo", "dpop"]
Pointwise = Literal["apo_zero", "redi", "topr", "gspo"]

_POSITIVE, _NOT_NEGATIVE, _INSIDE = Bounds(0, LARGEST, above=True), Bounds(0, LARGEST), {"above": True, "below": True}
_BOUNDS = {
    "beta": _POSITIVE,  # inverse temperature of the term; the boundary's margin is another beta
    "gamma": _NOT_NEGATIVE,  # margin that a pair is asked for, after beta
    "lam": _NOT_NEGATIVE,  # weight of the fall of a better response below the reference model
    "alpha": _NOT_NEGATIVE,  # weight of irpo's likelihood of the better response, of redi's worse ones
    "baseline": Bounds(-1, 1, **_INSIDE),  # taken from the rewards +1 and -1: right ones stay above 0, wrong ones below
    "epsilon": Bounds(0, 1, **_INSIDE),  # how far the ratio to the sampling model may go from 1
}


@dataclass(frozen=True, slots=True)
class Term:
    """What a term is a loss of, what it reads beside scores and ranks, and its constants' published values."""

    family: Literal["ranking", "pairwise", "pointwise"]
    needs: tuple[str, ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    contrast: Literal["ranks", "rewards"] | None = "ranks"  # what must differ in a question, else its loss is 0


TERMS: dict[str, Term] = {
    "aft": Term("ranking"),
    "rrhf": Term("ranking"),
    "pro": Term("ranking"),
    "dpo": Term("ranking", ("reference_scores",)),
    "dpo_pairs": Term("pairwise", ("reference_scores", "lengths"), {"beta": 0.1}),
    "irpo": Term("pairwise", ("reference_scores", "lengths"), {"beta": 0.1, "alpha": 1.0}),
    "ipo": Term("pairwise", ("reference_scores",), {"beta": 0.1}),
    "simpo": Term("pairwise", (), {"beta": 2.0, "gamma": 1.0}),
    "dpop": Term("pairwise", ("reference_scores", "lengths"), {"beta": 0.3, "lam": 50.0}),
    "apo_zero": Term("pointwise", ("reference_scores", "lengths", "rewards"), {"beta": 0.1}, None),
    "redi": Term("pointwise", ("rewards",), {"alpha": 0.8}, None),
    "topr": Term("pointwise", ("behaviour_scores", "lengths", "rewards"), {"baseline": 0.0}, None),
    "gspo": Term("pointwise", ("behaviour_scores", "rewards"), {"epsilon": 0.2}, "rewards"),
}
CONSTRAINTS = ("none", "detached", "detached_lowest", "boundary")


def constants_of(term: str, chosen: Mapping[str, float]) -> dict[str, float]:
    """The term's constants: those chosen, else as published. Raises `SettingsError` for one that it does not have."""
    published = TERMS[term].constants if term in TERMS else {}
    for name, value in chosen.items():
        if name not in published:
            raise SettingsError(f"The term '{term}' has no constant '{name}', only {', '.join(published) or 'none'}.")
        if not _BOUNDS[name].hold(value):
            raise SettingsError(f"constants.{name} is {shown(value)}: it must be {_BOUNDS[name]}.")
    return {**published, **chosen}
