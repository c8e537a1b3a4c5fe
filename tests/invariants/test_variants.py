"""Every variant of the configuration against an implementation of its own, from the equations: plain loops, float64.

The twin below knows nothing of tensors. Its numbers carry their derivatives with them (forward mode), so that
"detached" means a number without derivatives, exactly as the paper's D(.) does, and gradients are exact. Equation
numbers are those of arXiv 2309.02144. (The constraints on terms of today: tests/alignment/test_pairs_and_points.py.)
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from aft.training.examples import Example
from aft.training.objective import Totals, objective_loss
from aft.training.settings import Objective

_CONF = yaml.safe_load((Path(__file__).parents[2] / "conf/base/parameters_align_train.yml").read_text(encoding="utf-8"))
OBJECTIVES = {name: Objective(**entry["objective"]) for name, entry in _CONF["align"].items()}
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Number:
    """A value and its derivatives by the summed log-probability of every response."""

    value: float
    slopes: dict[int, float]

    def __add__(self, other: "Number | float") -> "Number":
        other = _number(other)
        keys = self.slopes.keys() | other.slopes.keys()
        return Number(self.value + other.value, {k: self.slopes.get(k, 0) + other.slopes.get(k, 0) for k in keys})

    def __mul__(self, factor: float) -> "Number":
        return self.through(self.value * factor, factor)

    def __sub__(self, other: "Number | float") -> "Number":
        return self + _number(other) * -1.0

    def through(self, value: float, slope: float) -> "Number":
        return Number(value, {key: slope * own for key, own in self.slopes.items()})


def _number(value: "Number | float") -> Number:
    return value if isinstance(value, Number) else Number(value, {})


def _exp(x: Number) -> Number:
    return x.through(math.exp(x.value), math.exp(x.value))


def _log(x: Number) -> Number:
    return x.through(math.log(x.value), 1 / x.value)


def _hinge(x: Number) -> Number:
    return x if x.value > 0 else Number(0.0, {})


def _detached(x: Number) -> Number:
    return Number(x.value, {})


def _total(terms: Sequence[Number]) -> Number:
    result = Number(0.0, {})
    for term in terms:
        result = result + term
    return result


def _sigmoid(x: Number) -> Number:
    p = 1 / (1 + math.exp(-x.value))
    return x.through(p, p * (1 - p))


def _log_sigmoid(x: Number) -> Number:
    return x.through(-math.log1p(math.exp(-x.value)), 1 / (1 + math.exp(x.value)))


def _mean(losses: Sequence[Number]) -> Number:
    return _total(losses) * (1 / max(len(losses), 1))


def _of_pairs(s: list[Number], ranks: Sequence[int], term: str, example: Example) -> Number:
    """Of each better one w with each worse one x; constants as published."""
    pairs = [(w, x) for w, above in enumerate(ranks) for x, below in enumerate(ranks) if above < below]
    n = [len(candidate) for candidate in example.candidates]
    r = [(own - ref) * own_n for own, ref, own_n in zip(s, example.reference_scores or [0.0] * len(s), n, strict=True)]
    losses = {
        "dpo_pairs": lambda w, x: _log_sigmoid((r[w] - r[x]) * 0.1) * -1.0,
        "irpo": lambda w, x: _log_sigmoid((r[w] - r[x]) * 0.1) * -1.0 - s[w],
        "ipo": lambda w, x: _square((r[w] * (1 / n[w])) - (r[x] * (1 / n[x])) - 5.0),
        "simpo": lambda w, x: _log_sigmoid((s[w] - s[x]) * 2.0 - 1.0) * -1.0,
        "dpop": lambda w, x: _log_sigmoid((r[w] - r[x] - _hinge(r[w] * -1.0) * 50.0) * 0.3) * -1.0,
    }
    return _mean([losses[term](w, x) for w, x in pairs])


def _square(x: Number) -> Number:
    return x.through(x.value**2, 2 * x.value)


def _of_points(s: list[Number], term: str, example: Example) -> Number:
    """Constants as published."""
    sums = [score * len(candidate) for score, candidate in zip(s, example.candidates, strict=True)]
    share = sum(example.rewards) / len(s)
    losses = []
    for k, reward in enumerate(example.rewards):
        if term == "apo_zero":
            p = _sigmoid((sums[k] - example.reference_scores[k] * len(example.candidates[k])) * 0.1)
            losses.append(p * -1.0 + 1.0 if reward else p)
        elif term == "redi":
            losses.append(s[k] * (-1.0 if reward else 0.8))
        elif term == "topr":
            log_ratio = sums[k].value - example.behaviour_scores[k] * len(example.candidates[k])
            losses.append(sums[k] * (-1.0 if reward else math.exp(min(0.0, log_ratio))))
        else:
            spread = 2 * math.sqrt(share * (1 - share))
            advantage = (2 * reward - 2 * share) / spread if spread else 0.0
            ratio = _exp(s[k] - example.behaviour_scores[k])
            clipped = _number(min(max(ratio.value, 0.8), 1.2))
            losses.append(min(ratio * advantage, clipped * advantage, key=lambda one: one.value) * -1.0)
    return _mean(losses)


def _alignment(s: list[Number], ranks: Sequence[int], objective: Objective, example: Example) -> Number:
    """The alignment loss of one question, from the equations."""
    k = len(s)
    below = {i: [j for j in range(k) if ranks[j] > ranks[i]] for i in range(k)}
    above = {j: [i for i in range(k) if ranks[i] < ranks[j]] for j in range(k)}

    def low(j: int) -> Number:  # s_j as it stands in the lower role: Eq. 7, 12, 13
        lowest = ranks[j] == max(ranks)
        free = objective.constraint not in ("detached", "detached_lowest")
        return s[j] if free or (objective.constraint == "detached_lowest" and not lowest) else _detached(s[j])

    boundary = {j: min(s[i].value for i in above[j]) - objective.beta for j in range(k) if above[j]}
    bounded = objective.constraint == "boundary"
    if objective.term == "rrhf":  # Eq. 18
        pairs = [_hinge(low(j) - s[i]) for i in range(k) for j in below[i]]
        return _total(pairs + [_hinge(s[j] * -1.0 + boundary[j]) for i in range(k) for j in below[i] if bounded])
    if objective.term == "aft":  # Eq. 6, 8, 11, 14
        terms = [_exp(low(j) - s[i]) for i in range(k) for j in below[i]]
        terms += [_exp(_number(2 * boundary[j] - s[i].value) - s[j]) for i in range(k) for j in below[i] if bounded]
        return _log(_total(terms) + 1.0)
    losses = []
    for i in range(k):
        if not below[i]:
            continue
        if objective.term == "pro":  # Eq. 20, 21
            reads = objective.feedback == "ranking" and objective.dynamic_temperature
            tau = {j: example.ratings[i] - example.ratings[j] if reads else 1.0 for j in below[i]}
            upper = s[i] * max(tau.values())
            lower = {j: low(j) * tau[j] for j in below[i]}
            at_boundary = {j: tau[j] * boundary[j] for j in below[i]}
        else:  # Eq. 16
            beta, reference = objective.dpo_beta, _reference(example, objective)
            upper = (s[i] - reference[i]) * beta
            lower = {j: (low(j) - reference[j]) * beta for j in below[i]}
            at_boundary = {j: beta * (boundary[j] - reference[j]) for j in below[i]}
        terms = [_exp(lower[j] - upper) for j in below[i]]
        if bounded:
            terms += [_exp(_number(2 * at_boundary[j] - upper.value) - lower[j]) for j in below[i]]
        losses.append(_log(_total(terms) + 1.0))
    return _total(losses)


def _loss(s: list[Number], objective: Objective, example: Example) -> Number:
    if objective.kind.family == "pairwise":
        return _of_pairs(s, example.ranks, objective.term, example)
    if objective.kind.family == "pointwise":
        return _of_points(s, objective.term, example)
    return _alignment(s, example.ranks, objective, example)


def _reference(example: Example, objective: Objective) -> list[float]:
    lengths = [len(c) if objective.score_reduction == "sum" else 1 for c in example.candidates]
    return [score * length for score, length in zip(example.reference_scores, lengths, strict=True)]


def twin(sums: Sequence[float], examples: Sequence[Example], objective: Objective) -> Number:
    """loss = vft_weight x vft + weight x mean over questions of the alignment loss (Eq. 4)."""
    place, target_sums, target_tokens, losses = 0, [], 0, []
    for example in examples:
        has_ranking = any(a < b for a in example.ranks for b in example.ranks)
        factor = 1
        if objective.vft_reduction == "pro":
            factor = (len(example.candidates) - 1) ** 2 if has_ranking else 0
        for target in example.targets:
            if objective.imitate == "positives":
                factor = 1 / len(target)
            target_sums.append(Number(sums[place], {place: 1.0}) * factor)
            target_tokens += len(target)
            place += 1
        s = []
        for candidate in example.candidates:
            length = 1 if objective.score_reduction == "sum" else len(candidate)
            s.append(Number(sums[place], {place: 1.0}) * (1 / length))
            place += 1
        if s and objective.term != "none":
            losses.append(_loss(s, objective, example))
    count = target_tokens if objective.vft_reduction == "mean" else len(examples)
    if objective.imitate == "positives":
        count = len(target_sums)
    vft = _total(target_sums) * (-1 / count)
    return vft * objective.vft_weight + _total(losses) * (objective.weight / len(examples))


def _examples(rng: random.Random, objective: Objective) -> list[Example]:
    """Seven questions: k from 0 to 6, ragged lengths, ties, and one whose candidates all rank alike."""
    examples = []
    for k in range(7):
        candidates = [[rng.randrange(9)] * rng.randint(1, 12) for _ in range(k)]
        ratings = [float(rng.randint(7, 10)) for _ in range(k)] if k != 3 else [8.0] * k
        if objective.feedback == "binary":
            ranks = [int(rating < 9) for rating in ratings]
        else:
            ranks = [sorted(set(ratings), reverse=True).index(rating) for rating in ratings]
        references = [rng.uniform(-2, -0.1) for _ in range(k)] if "reference_scores" in objective.kind.needs else []
        behaviours = [rng.uniform(-1.5, -0.1) for _ in range(k)] if "behaviour_scores" in objective.kind.needs else []
        rewards = [float(rating >= 9) for rating in ratings] if "rewards" in objective.kind.needs else []
        reads = objective.term == "pro" and objective.feedback == "ranking" and objective.dynamic_temperature
        targets = [[1] * rng.randint(1, 9) for _ in range(1 + k % 3 * (objective.imitate == "positives"))]
        if objective.term == "none":
            candidates = ranks = []
        given = (references, ratings if reads else [], rewards, behaviours)
        examples.append(Example(f"q{k}", [0], targets, candidates, ranks, *given))
    return examples


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("variant", OBJECTIVES)
def test_value_and_gradient_of_every_variant(variant: str, seed: int) -> None:
    rng, objective = random.Random(f"{variant} {seed}"), OBJECTIVES[variant]
    examples = _examples(rng, objective)
    lengths = [len(response) for example in examples for response in (*example.targets, *example.candidates)]
    sums = [-length * rng.uniform(0.05, 1.5) for length in lengths]
    expected = twin(sums, examples, objective)

    given = torch.tensor(sums, dtype=torch.float64, requires_grad=True)
    loss, _ = objective_loss(given, examples, objective, Totals.of(examples))
    loss.backward()
    gradient = given.grad
    assert gradient is not None
    assert loss.item() == pytest.approx(expected.value, rel=TOLERANCE, abs=TOLERANCE)
    slopes = [expected.slopes.get(place, 0.0) for place in range(len(sums))]
    assert gradient.tolist() == pytest.approx(slopes, rel=TOLERANCE, abs=TOLERANCE)


def test_the_twin_differentiates() -> None:
    """d/dx log(1 + e^(2x)) = 2 / (1 + e^(-2x)), and nothing passes through a detached number."""
    x = Number(0.3, {0: 1.0})
    assert _log(_exp(x * 2.0) + 1.0).slopes[0] == pytest.approx(2 / (1 + math.exp(-0.6)))
    assert _log(_exp(_detached(x) * 2.0) + 1.0).slopes == {}
