"""A variant: one way of training, an entry of the configuration; the family of its colour, its mark in tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from aft.errors import SettingsError

BASELINE = "vft"  # learns the references alone; all others are compared with it
Family = Literal["baseline", "unconstrained", "constrained"]


class Optimised(Protocol):
    """What of an objective says which family a variant is of."""

    @property
    def term(self) -> str:
        """The alignment term, or none."""
        ...

    @property
    def constraint(self) -> str:
        """What protects the negatives, or none."""
        ...


@dataclass(frozen=True)
class Variant:
    """One way of training, as its entry `align.<name>` in the configuration says; either `source` or `extension`."""

    objective: Optimised
    note: str  # what it is, in a line
    source: str | None = None  # where the paper (arXiv 2309.02144) has it, such as an equation
    extension: bool = False  # not in the paper

    def __post_init__(self) -> None:
        if not self.note.strip() or "\n" in self.note.strip():
            raise SettingsError("note must say in one line what the variant is.")
        if (self.source is None) != self.extension:
            raise SettingsError("Give either source (where the paper has it, or whose it is) or extension: true.")

    @property
    def family(self) -> Family:
        """Whose colour it has: those without an alignment term, those without a constraint, those with one."""
        if self.objective.term == "none":
            return "baseline"
        return "unconstrained" if self.objective.constraint == "none" else "constrained"


def marked(name: str, variants: Mapping[str, Variant]) -> str:
    """The variant's name, with the asterisk of an extension that the paper does not have."""
    return f"{name}*" if name in variants and variants[name].extension else name
