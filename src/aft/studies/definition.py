"""What a study is, as `studies.yml` says it."""

from dataclasses import field
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from aft.errors import SettingsError
from aft.pipelines.variants import BASELINE, VARIANTS

_STRICT = ConfigDict(extra="forbid")
Value = int | float


@dataclass(config=_STRICT, frozen=True)
class Sweep:
    """One setting that takes several values, each with all seeds."""

    parameter: str  # its dotted key
    values: list[Value]
    label: str  # of the axis
    log: bool = False  # whether the axis is spaced by doublings


@dataclass(config=_STRICT, frozen=True)
class Ordering:
    """A claim about which of two results is higher; a result is `variant` or `variant@value` of the sweep."""

    claim: str
    above: str
    below: str
    metric: str = "accuracy"  # or assessment_accuracy, perplexity_of_positives, or another question set's name
    source: Literal["paper", "implied", "own"] = "paper"  # the paper says it, it follows from the paper, or it is ours


@dataclass(config=_STRICT, frozen=True)
class Study:
    """Which variants are trained under which settings and seeds, and what is told of them."""

    title: str
    question: str  # what the study asks, in a sentence
    variants: list[str]
    seeds: list[int]
    params: dict[str, Any] = field(default_factory=dict)  # settings that differ from the recipe's, by dotted keys
    sweep: Sweep | None = None
    baselines: list[str] = field(default_factory=list)  # variants outside the sweep, shown beside it
    rounds: str | None = None  # iterative: each round samples from this variant's model of the round before
    n_rounds: int = 1
    figure: Literal["accuracy", "sweep", "pilot", "votes"] = "accuracy"
    figures: list[str] = field(default_factory=lambda: ["accuracy"])  # columns of the table
    paper: dict[str, dict[str, Any]] = field(default_factory=dict)  # the paper's values: column, then row
    paper_source: str | None = None  # where in the paper
    orderings: list[Ordering] = field(default_factory=list)

    def __post_init__(self) -> None:
        unknown = [name for name in (*self.variants, *self.baselines) if name not in (BASELINE, *VARIANTS)]
        if unknown or not self.variants or not self.seeds:
            raise SettingsError(
                f"The study '{self.title}' needs seeds and variants out of {', '.join((BASELINE, *VARIANTS))}"
                + (f"; it names {', '.join(unknown)}." if unknown else ".")
            )
        values = self.sweep.values if self.sweep else [0]
        if len(set(self.seeds)) < len(self.seeds) or not values or len(set(values)) < len(values):
            raise SettingsError(f"The study '{self.title}' names a seed or value twice, or a sweep without values.")
        if self.rounds is not None and (self.rounds not in self.variants or self.sweep is not None):
            raise SettingsError(f"The study '{self.title}' needs its round's variant among variants, and no sweep.")

    def check_told(self, ks: list[int], sets: list[str]) -> None:
        """Raise `SettingsError` if what the study tells cannot come from runs with these k and question sets."""
        at_k = (name for name in self.figures if name.startswith(("maj_at_", "pass_at_", "best_of_")))
        if not all(int(name.rsplit("_", 1)[1]) in ks for name in at_k):
            raise SettingsError(
                f"The study '{self.title}' tells {', '.join(self.figures)}, but evaluation.ks are {ks}."
            )
        outside = self.baselines if self.sweep or self.rounds else self.variants
        values = self.sweep.values if self.sweep else range(1, self.n_rounds + 1) if self.rounds else []
        results = {*outside, *(f"{name}@{value}" for name in self.variants for value in values)}
        metrics = ["accuracy", "assessment_accuracy", "perplexity_of_positives", *sets]
        for one in self.orderings:
            wrong = [name for name in (one.above, one.below) if name not in results]
            wrong += [] if one.metric in metrics else [one.metric]
            if wrong:
                raise SettingsError(
                    f"The study '{self.title}' has no {' and no '.join(wrong)} to order; there are "
                    f"{', '.join(sorted(results))} and the metrics {', '.join(metrics)}."
                )


def read_studies(content: dict[str, Any]) -> dict[str, Study]:
    """The studies by name; raises `SettingsError` if a key is missing, unknown or of the wrong type."""
    try:
        return TypeAdapter(dict[str, Study]).validate_python(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise SettingsError(f"studies.yml is refused ({faults}).") from error
