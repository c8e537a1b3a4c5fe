"""What a study is, as `studies.yml` says it."""

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from aft.alignment.variants import Variant
from aft.errors import SettingsError
from aft.reporting.study_pages import Place, StudyPage

_STRICT = ConfigDict(extra="forbid", str_min_length=1)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_AT_K = re.compile(r"(?:maj_at|pass_at|best_of)_([0-9]+)")
_FIGURES = (
    *("accuracy", "parse_failures", "auroc", "calibration_error", "perplexity_of_positives", "assessment_accuracy"),
    *("assessment_accuracy_micro", "paper_assessment_accuracy", "training_steps", "training_tokens"),
    "training_seconds",
)
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Value = Annotated[int, Strict()] | Annotated[float, Field(strict=True, allow_inf_nan=False)]


@dataclass(config=_STRICT, frozen=True)
class Sweep:
    """One setting that takes several values, each with all seeds."""

    parameter: str  # its dotted key
    values: list[Value]
    label: str  # of the axis
    log: bool = False  # whether the axis is spaced by doublings


@dataclass(config=_STRICT, frozen=True)
class Tuning:
    """How the variants are tuned: each has its grid, of as many settings as any other's, and all have these seeds."""

    seeds: list[Seed]  # which no study is run under
    grid: dict[str, dict[str, list[Value]]]  # by variant: dotted keys (objective.… is the variant's own) and values

    def settings(self, variant: str) -> list[dict[str, Any]]:
        """All combinations of the values in a variant's grid."""
        keys = self.grid[variant]
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*keys.values())]


@dataclass(config=_STRICT, frozen=True)
class Ordering:
    """A claim about which of two results is higher; a result is `variant` or `variant@value` of the sweep."""

    claim: str
    above: str
    below: str
    metric: str = "accuracy"  # mean_at_k, assessment_accuracy, perplexity_of_positives, or another set of questions
    source: Literal["paper", "implied", "own"] = "paper"  # the paper says it, it follows from the paper, or it is ours


@dataclass(config=_STRICT, frozen=True)
class Study:
    """Which variants are trained under which settings and seeds, and what is reported of them."""

    title: str
    question: str  # what the study asks, in a sentence
    variants: list[str]
    seeds: list[Seed]
    params: dict[str, Any] = field(default_factory=dict)  # settings that differ from the recipe's, by dotted keys
    sweep: Sweep | None = None
    baselines: list[str] = field(default_factory=list)  # variants outside the sweep, shown beside it
    rounds: str | None = None  # iterative: each round samples from this variant's model of the round before
    n_rounds: Annotated[int, Field(strict=True, ge=1)] = 1
    tuning: Tuning | None = None  # each variant is tuned on validation, and tested under the settings chosen for it
    figure: Literal["accuracy", "sweep", "pilot", "votes"] = "accuracy"
    over_seconds: bool = False  # the figure of a sweep has the seconds of training as x, in place of the swept value
    figures: list[str] = field(default_factory=lambda: ["accuracy"])  # columns of the table
    paper: dict[str, dict[str, Value]] = field(default_factory=dict)  # the paper's values: column, then row
    paper_source: str | None = None  # where in the paper
    orderings: list[Ordering] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = (*self.variants, *self.baselines)
        if not self.variants or not self.seeds:
            raise SettingsError(f"The study '{self.title}' needs seeds and variants.")
        values = self.sweep.values if self.sweep else [0]
        if any(len(set(one)) < len(one) for one in (self.seeds, values, names)) or not values:
            raise SettingsError(
                f"The study '{self.title}' names a seed, value or variant twice, or a sweep without values."
            )
        if self.rounds is not None and (self.rounds not in self.variants or self.sweep is not None):
            raise SettingsError(f"The study '{self.title}' needs its round's variant among variants, and no sweep.")
        if self.rounds is None and self.n_rounds > 1:
            raise SettingsError(f"The study '{self.title}' has n_rounds, but no rounds: name their variant.")
        if (self.baselines or self.figure == "pilot") and self.sweep is None:
            raise SettingsError(f"The study '{self.title}' has baselines or the figure pilot, which need a sweep.")
        if self.over_seconds and (self.figure != "sweep" or self.baselines):
            raise SettingsError(
                f"The study '{self.title}' has over_seconds, which needs the figure sweep, no baselines."
            )
        if self.figure == "sweep" and self.sweep is None and self.rounds is None:
            raise SettingsError(f"The study '{self.title}' has the figure sweep, which needs a sweep or rounds.")
        rows = dict.fromkeys((*self.results, *names))
        foreign = [row for values in self.paper.values() for row in values if row not in rows]
        if foreign:
            raise SettingsError(
                f"The study '{self.title}' has no {foreign[0]} beside which the paper's value could stand; there are "
                f"{', '.join(rows)}."
            )
        if self.tuning is not None:
            self._check_tuning(self.tuning)
            for grid in self.tuning.grid.values():
                self._check_keys([*self.params, *grid])
        self._check_keys([*self.params, *([self.sweep.parameter] if self.sweep else [])])

    def _check_tuning(self, tuning: Tuning) -> None:
        """Every variant has the same budget, and the seeds of its trials are not those of its test."""
        if self.sweep is not None or self.rounds is not None or tuning.grid.keys() != {*self.variants}:
            raise SettingsError(
                f"The study '{self.title}' is tuned: it needs a grid for each of its variants, and no sweep or rounds."
            )
        counts = {name: len(tuning.settings(name)) for name in self.variants}
        if len({*counts.values()}) > 1 or not all(counts.values()):
            raise SettingsError(
                f"The study '{self.title}' has grids of unequal numbers of settings, or none: "
                f"{', '.join(f'{name} {count}' for name, count in counts.items())}; give each variant as many."
            )
        if not tuning.seeds or {*tuning.seeds} & {*self.seeds}:
            raise SettingsError(f"The study '{self.title}' needs seeds to tune with, and others to test with.")

    def _check_keys(self, keys: list[str]) -> None:
        """The settings can be put into one tree, beside the seed and the label that each run is given."""
        for key in keys:
            clash = [other for other in keys if other.startswith(f"{key}.")]
            if not all(key.split(".")) or key.split(".")[0] in ("seed", "label") or clash or keys.count(key) > 1:
                raise SettingsError(
                    f"The study '{self.title}' cannot set '{key}': a setting is a dotted key, set once and as a whole, "
                    "and seed and label are the study's own."
                )

    @property
    def results(self) -> list[str]:
        """The names of what the study measures: a variant, or `variant@value` of the sweep or round."""
        if self.sweep is not None:
            return [*self.baselines, *(f"{name}@{value}" for value in self.sweep.values for name in self.variants)]
        if self.rounds is not None:
            first = [f"{name}@1" for name in self.variants]
            return [*first, *(f"{self.rounds}@{number}" for number in range(2, self.n_rounds + 1))]
        return self.variants

    def page(self, name: str, variants: Mapping[str, Variant], env: str | None = None) -> StudyPage:
        """What stands beside the results on the page of this study, which is called `name` in the recipe `env`."""
        return StudyPage(
            name,
            self.title,
            self.question,
            self.seeds,
            self.figure,
            self.figures,
            variants,
            baselines=self.baselines,
            paper={figure: {_place(row): at for row, at in rows.items()} for figure, rows in self.paper.items()},
            paper_source=self.paper_source,
            **({"x_label": self.sweep.label, "log_x": self.sweep.log} if self.sweep else {}),
            over_seconds=self.over_seconds,
            env=env,
        )

    def check_reported(self, ks: list[int], samples: int, sets: list[str]) -> None:
        """Raise `SettingsError` if the study reports what runs do not measure that have these k, so many samples of a
        test question and these sets of questions."""
        if not self.figures or (self.figure == "sweep" and not self.figures[0].startswith("accuracy")):
            raise SettingsError(
                f"The study '{self.title}' needs figures, and the figure sweep an accuracy as the first."
            )
        means = [f"mean_at_{samples}"] if samples else []
        known = {*_FIGURES, *means, *(f"accuracy_{name}" for name in sets)}
        at_k = {name: int(found[1]) for name in self.figures if (found := _AT_K.fullmatch(name))}
        unknown = [name for name in self.figures if name not in (known | at_k.keys())]
        if unknown:
            raise SettingsError(
                f"The study '{self.title}' reports {', '.join(unknown)}; there are {', '.join(sorted(known))}, and "
                "maj_at_k, pass_at_k and best_of_k for every k of evaluation.ks."
            )
        if not set(at_k.values()) <= set(ks):
            raise SettingsError(
                f"The study '{self.title}' reports {', '.join(self.figures)}, but evaluation.ks are {ks}."
            )
        metrics = ["accuracy", *means, "assessment_accuracy", "perplexity_of_positives", *sets]
        for one in self.orderings:
            wrong = [name for name in (one.above, one.below) if name not in self.results]
            wrong += [] if one.metric in metrics else [one.metric]
            if wrong:
                raise SettingsError(
                    f"The study '{self.title}' has no {' and no '.join(wrong)} to order; there are "
                    f"{', '.join(self.results)} and the metrics {', '.join(metrics)}."
                )


def _place(result: str) -> Place:
    variant, _, value = result.partition("@")
    return variant, float(value) if value else None


def read_studies(content: dict[str, Any], variants: Collection[str]) -> dict[str, Study]:
    """The studies by name, of these configured variants.

    Raises `SettingsError` if a key is missing, unknown or of the wrong type, a name none, or a variant not configured.
    """
    wrong = [name for name in content if not _NAME.fullmatch(str(name)) or name == "all"]
    if wrong:
        raise SettingsError(
            f"A study cannot be called {wrong[0]!r}: it names a folder, in letters, digits and _ . -, and 'all' is all."
        )
    try:
        studies = TypeAdapter(dict[str, Study]).validate_python(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise SettingsError(f"studies.yml is refused ({faults}).") from error
    for study in studies.values():
        unknown = [name for name in (*study.variants, *study.baselines) if name not in variants]
        if unknown:
            raise SettingsError(
                f"The study '{study.title}' names {', '.join(unknown)}, but the variants are {', '.join(variants)}."
            )
    tuned = {seed for study in studies.values() if study.tuning for seed in study.tuning.seeds}
    for study in studies.values():
        if tuned & {*study.seeds}:
            raise SettingsError(
                f"The study '{study.title}' has the seed {min(tuned & {*study.seeds})}, under which a study is tuned: "
                "such a seed is used for nothing else."
            )
    return studies
