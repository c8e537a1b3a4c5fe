"""Early warnings of degradation while a model trains: right responses grow unlikely, or negatives sink.

An alignment term without a constraint pushes every negative down, however low its score, and most tokens of a negative
are those that a right response needs, too: the model unlearns them. The curve shows it before a test does.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

from aft.training.settings import Objective

MOST_RISE = 0.1  # of the held-out perplexity, as a share of the lowest so far
MOST_FALL = 1.0  # of the mean score of negatives, in nats
WINDOW = 10  # steps whose scores of negatives are averaged


@dataclass(slots=True)
class DegradationMonitor:
    """Decides from the rows of the curve, given in order, what to warn of; each kind of warning once.

    - The held-out perplexity is more than `MOST_RISE` above the lowest so far at two probes in a row: one probe alone
      may follow an unlucky step. A perplexity that is not a number counts as above.
    - The mean of the last `WINDOW` scores of negatives is more than `MOST_FALL` below that of the first `WINDOW` after
      the warm-up. The score of one step says little, being of the few negatives of its own questions; but where those
      of questions differ by half a nat, two means over ten steps of a single question each differ by chance by about
      .2 nats. The first mean is fixed: the highest so far would count scores that first rise, as they do while a model
      learns the format, and then come back. Under a constraint they rise with the positives or stay. Steps without
      negatives are passed over.

    The state follows from the rows alone, so that a resumed run gives it the rows of its checkpoint.
    """

    label: str  # of the run, as logs name it
    objective: Objective
    warmup_steps: int  # optimiser steps until the learning rate has its peak
    warnings: list[str] = field(default_factory=list)  # all so far
    _lowest: float = math.inf  # held-out perplexity
    _probes_above: int = 0  # in a row
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))  # scores of negatives
    _level: float | None = None  # their mean after the warm-up
    _has_fallen: bool = False

    def observe(self, row: Mapping[str, float]) -> list[str]:
        """The warnings that the row of one optimiser step gives reason to, as sentences; usually none."""
        found = [warning for warning in (self._rise(row), self._fall(row)) if warning is not None]
        self.warnings += found
        return found

    def _rise(self, row: Mapping[str, float]) -> str | None:
        perplexity = row.get("held_out_perplexity")
        if perplexity is None or self._probes_above == 2:  # no probe, or said already
            return None
        if perplexity <= (1 + MOST_RISE) * self._lowest:
            self._probes_above = 0
            self._lowest = min(self._lowest, perplexity)
            return None
        self._probes_above += 1
        if self._probes_above < 2:
            return None
        return (
            f"{self.label}: at step {row['step']} the perplexity of held-out references is {perplexity:.3g}, more than "
            f"{MOST_RISE:.0%} above its lowest, {self._lowest:.3g}, for the second time in a row: the model unlearns "
            f"right responses; {_way_out(self.objective)}."
        )

    def _fall(self, row: Mapping[str, float]) -> str | None:
        if "score_negative" not in row or row["step"] <= self.warmup_steps or self._has_fallen:
            return None
        self._recent.append(row["score_negative"])
        if len(self._recent) < WINDOW:
            return None
        mean = fmean(self._recent)
        if self._level is None:
            self._level = mean
        if self._level - mean <= MOST_FALL:
            return None
        self._has_fallen = True
        return (
            f"{self.label}: at step {row['step']} the scores of negatives, {mean:.2f} on average over {WINDOW} steps, "
            f"are more than {MOST_FALL:g} below their level after the warm-up, {self._level:.2f}: the model unlearns "
            f"what they share with right responses; {_way_out(self.objective)}."
        )


def _way_out(objective: Objective) -> str:
    if objective.term == "none":
        return "lower the learning rate or train for fewer epochs"
    if objective.constraint == "none":
        return "set a constraint (detached or boundary) or a smaller weight"
    return "set a smaller weight or a lower learning rate"
