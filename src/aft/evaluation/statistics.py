"""Statistics of an evaluation: intervals, paired comparisons, pass@k, maj@k and best-of-k.

Pure functions of results per question. The suffix `_N` says one entry per question, in the same order
wherever two such arrays meet; accuracies are fractions in [0, 1].
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb, isfinite, isnan, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aft.errors import DataError, NumericalError, SettingsError

_CHUNK_ENTRIES = 1_000_000  # questions drawn at a time, over all resamples: 8 MB


class Estimate(NamedTuple):
    """A mean over seeds and questions, with the ends of its interval."""

    mean: float
    low: float
    high: float


def wilson_interval(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of an accuracy of `correct` out of `total` questions.

    With p = correct / total and z the normal quantile of (1 + level) / 2, the interval is
    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n); unlike p ± z·se it stays inside [0, 1] and has a width
    at p = 0 and 1.

    Raises DataError when there is no question.
    """
    if total == 0:
        raise DataError("An accuracy over no questions has no interval; check that the test split is not empty.")
    p, z = correct / total, NormalDist().inv_cdf((1 + level) / 2)
    middle, half = p + z**2 / (2 * total), z * sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    low, high = ((middle + side) / (1 + z**2 / total) for side in (-half, half))
    return 0.0 if correct == 0 else low, 1.0 if correct == total else high


def bootstrap_interval(
    values_N: ArrayLike, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of `values_N`, by drawing N questions with replacement, many times.

    It speaks of one trained model: of other questions, not of other seeds. The order of the values does not matter; a
    single question, or equal values, give an interval without width.

    Raises DataError when there is no question or a value is not finite.
    """
    values_N = np.asarray(values_N, dtype=np.float64)
    if not np.isfinite(values_N).all():
        broken = np.flatnonzero(~np.isfinite(values_N))[:5].tolist()
        raise DataError(f"The bootstrap needs a finite value for each question; those at {broken} are not.")
    _, low, high = two_level_bootstrap(values_N, resamples=resamples, level=level, seed=seed)
    return low, high


def two_level_bootstrap(
    values_S_N: ArrayLike, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """Mean over S seeds of their means over N questions, with its percentile interval over seeds *and* questions.

    Each of `resamples` replicates draws S seeds with replacement, draws N questions with replacement, and takes the
    mean over the drawn seeds of their means over the drawn questions: w_S^T V_SN w_N / SN, where the weights say how
    often each was drawn. This is Owen's pigeonhole bootstrap (arXiv 0712.1111). Entry [s, i] may be whether question i
    is right under seed s, or the difference of two variants in that: drawing differences draws the same seeds and
    questions for both, which takes out the spread of difficulty, most of the spread of either accuracy. NaN says that a
    question has no value under a seed; a seed or a question without any is left out. One seed (S = 1, or values [N]) is
    a bootstrap over questions alone, which says nothing of other seeds.

    Assumed: seeds and questions are independent draws each, and the design is crossed: column i is the same question
    under every seed. What all seeds share, such as one base model, is taken as given.

    With few seeds the interval is too narrow for what differs between seeds: it has (S - 1) / S of that variance and no
    correction for having estimated it. Where seeds differ by much more than chance over questions explains, S = 2 or 3
    at a level of 95 % give the range of the seeds' means, since a single seed fills 1 replicate of S^S, more than a
    tail: that covers the truth in 1 - 2^(1 - S) of all cases, 1/2 and 3/4. What differs by question and seed together
    it counts 1 + 2 (S - 1) / S times (about; once is right): where that prevails it is too wide.

    Raises DataError when there is no value, or one is infinite.
    """
    values_S_N = np.atleast_2d(np.asarray(values_S_N, dtype=np.float64))
    is_known_S_N = ~np.isnan(values_S_N)
    values_S_N = values_S_N[is_known_S_N.any(axis=1)][:, is_known_S_N.any(axis=0)]
    if values_S_N.size == 0:
        raise DataError("The bootstrap needs at least one question with a value; there is none to compare.")
    if np.isinf(values_S_N).any():
        raise DataError("The bootstrap needs finite values; check what they were computed from.")
    is_known_S_N = ~np.isnan(values_S_N)
    n_seeds, n_questions = values_S_N.shape
    # Questions of equal values under every seed are interchangeable, so patterns are drawn; order does not matter.
    table_2S_N = np.vstack([np.where(is_known_S_N, values_S_N, 0), is_known_S_N])
    table_2S_P, counts_P = np.unique(table_2S_N, axis=1, return_counts=True)
    generator = np.random.default_rng(seed)
    seeds_R_S = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples)
    chunk, means = max(1, _CHUNK_ENTRIES // n_questions), []
    for start in range(0, resamples, chunk):
        drawn_R_S = seeds_R_S[start : start + chunk]
        drawn_R_P = _drawn_counts(generator, counts_P, len(drawn_R_S)).astype(np.float64)
        sums_R_S, known_R_S = np.hsplit(drawn_R_P @ table_2S_P.T, 2)
        weights_R_S = drawn_R_S * (known_R_S > 0)  # a drawn seed may have none of the drawn questions
        with np.errstate(invalid="ignore"):  # so may all: that replicate is NaN and says nothing
            means.append((weights_R_S * sums_R_S / np.maximum(known_R_S, 1)).sum(axis=1) / weights_R_S.sum(axis=1))
    tail = (1 - level) / 2
    low, high = np.nanquantile(np.concatenate(means), [tail, 1 - tail])
    return Estimate(float(np.nanmean(values_S_N, axis=1).mean()), float(low), float(high))


def mcnemar_exact(a_N: ArrayLike, b_N: ArrayLike) -> float:
    """Two-sided p-value of the exact McNemar test that variants a and b are equally often right.

    Both are booleans [N]: was question i answered correctly? Only discordant questions speak: of n_10 that a
    alone and n_01 that b alone has right, n_10 is Binomial(n_10 + n_01, 1/2) if neither is better. Without a
    discordant question there is no evidence at all, p = 1.

    Raises DataError when the two do not cover the same number of questions, or one has no result.
    """
    a_N, b_N = flags(a_N), flags(b_N)
    if a_N.shape != b_N.shape:
        raise DataError(f"A paired test needs the same questions on both sides, not {a_N.size} and {b_N.size}.")
    only_a, only_b = int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())
    n, as_rare, ways = only_a + only_b, 1, 1  # of 2^n splits those as uneven as this one, to one side; in integers
    for more in range(min(only_a, only_b)):
        ways = ways * (n - more) // (more + 1)
        as_rare += ways
    return min(1.0, 2 * as_rare / 2**n)


def mean_std(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (divisor n - 1) over seeds; the deviation of a single seed is NaN.

    Raises DataError when there is no value.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise DataError("There is no seed to average over.")
    return float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else float("nan")


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's r of two figures; NaN of fewer than three pairs, which always lie on a line, or without spread."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.size < 3 or not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def flags(values: ArrayLike) -> np.ndarray:
    """Right (1, true) or wrong (0, false) as booleans; numpy itself would take NaN for true.

    Raises DataError when a value is neither.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isin(values, (0, 1)).all():
        raise DataError("Each response must be right or wrong; some have no label: label them anew.")
    return values.astype(bool)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that a uniformly drawn k-subset of n samples holds at least one of the c correct ones.

    1 - C(n-c, k) / C(n, k), the unbiased estimator of Chen et al. (arXiv 2107.03374), from integers, so
    nothing overflows or cancels.

    Raises SettingsError when k is not in 1..n, DataError when c is not in 0..n.
    """
    _check_k(n, k)
    if not 0 <= c <= n:
        raise DataError(f"{c} correct samples of {n} cannot be; check how the samples were counted.")
    subsets = comb(n, k)
    return (subsets - comb(n - c, k)) / subsets


def maj_at_k(answers: Sequence[Hashable], is_correct: Sequence[bool], k: int) -> float:
    """Expected accuracy of a majority vote over a uniformly drawn k-subset of a question's n samples.

    `answers` holds the canonical answer of each sample (None or NaN where none could be read), `is_correct`
    whether it is right. The answer with the most votes in the subset wins, ties are broken uniformly. A
    sample without an answer takes a place in the subset and casts no vote; a subset without any vote is
    wrong. Several answers may be right. Exact: the subsets are counted in integers, not drawn, so maj@1 is
    the accuracy of the samples and maj@n the vote of all.

    Raises SettingsError when k is not in 1..n, DataError when one answer is flagged both right and wrong, or
    a missing one as right.
    """
    n = len(answers)
    _check_k(n, k)
    abstains = [answer is None or (isinstance(answer, float) and isnan(answer)) for answer in answers]
    votes = Counter(answer for answer, abstained in zip(answers, abstains, strict=True) if not abstained)
    right = {answer for answer, flag in zip(answers, is_correct, strict=True) if flag}
    wrong = {answer for answer, flag in zip(answers, is_correct, strict=True) if not flag}
    contradictions = [answer for answer in right if answer in wrong or answer not in votes]
    if contradictions:
        raise DataError(
            f"Answer {contradictions[0]!r} is labelled right, yet missing or also labelled wrong; label anew."
        )
    counts = (tuple(sorted(votes[answer] for answer in some)) for some in (right, votes.keys() - right))
    return _share_won(*counts, sum(abstains), k)


def best_of_k(scores: Sequence[float], is_correct: Sequence[bool], k: int) -> float:
    """Expected accuracy of the highest-scored sample of a uniformly drawn k-subset of a question's n samples.

    `scores` holds the score that the model gives its own sample, `is_correct` whether it is right. Samples of equal
    score that share the first place are taken with equal probability. Exact: of g samples of one score with m below
    it, C(g+m, k) - C(m, k) subsets have their best there, and each of the g is as often taken as the others. So
    best-of-1 is the accuracy of the samples, and best-of-n that of the best of all.

    Raises SettingsError when k is not in 1..n, NumericalError when a score is not finite.
    """
    n = len(scores)
    _check_k(n, k)
    if not all(map(isfinite, scores)):
        raise NumericalError("Samples cannot be ranked by scores that are not finite; check the model that gave them.")
    flags_by_score: dict[float, list[bool]] = {}
    for score, flag in zip(scores, is_correct, strict=True):
        flags_by_score.setdefault(score, []).append(flag)
    return _share_best(tuple((len(flags), sum(map(bool, flags))) for _, flags in sorted(flags_by_score.items())), k)


def _drawn_counts(generator: np.random.Generator, counts_P: np.ndarray, resamples: int) -> np.ndarray:
    """How often each of P patterns comes in as many draws with replacement as they number together [resamples, P]."""
    n_patterns, n_questions = len(counts_P), int(counts_P.sum())
    if 8 * n_patterns < n_questions:  # a multinomial draw costs as much per pattern as several questions
        return generator.multinomial(n_questions, counts_P / n_questions, size=resamples)
    pattern_N = np.repeat(np.arange(n_patterns, dtype=np.int32), counts_P)
    drawn_R_N = pattern_N[generator.integers(n_questions, size=(resamples, n_questions), dtype=np.int32)]
    drawn_R_N += n_patterns * np.arange(resamples, dtype=np.int32)[:, None]
    return np.bincount(drawn_R_N.ravel(), minlength=n_patterns * resamples).reshape(resamples, n_patterns)


@lru_cache(maxsize=100_000)  # questions share few patterns of scores
def _share_best(samples_S_2: tuple[tuple[int, int], ...], k: int) -> float:
    """`best_of_k` of so many samples, and right ones among them, with each score, from the lowest."""
    wins, below = Fraction(0), 0
    for count, right in samples_S_2:
        subsets = comb(below + count, k) - comb(below, k)
        wins += Fraction(subsets * right, count)
        below += count
    return float(wins / comb(below, k))


@lru_cache(maxsize=100_000)  # questions share few patterns of votes
def _share_won(right: tuple[int, ...], wrong: tuple[int, ...], abstentions: int, k: int) -> float:
    """`maj_at_k` where so many samples vote for each right and each wrong answer."""
    wins = Fraction(0)
    for i, own in enumerate(right):
        wins += _subsets_won(own, (*right[:i], *right[i + 1 :], *wrong), abstentions, k)
    return float(wins / comb(sum(right) + sum(wrong) + abstentions, k))


def _subsets_won(own: int, rivals: tuple[int, ...], abstentions: int, k: int) -> Fraction:
    """Number of k-subsets won by an answer with `own` samples, 1 / (t + 1) of one that t rivals tie."""
    won_T: Counter[int] = Counter()
    fewest = max(1, k - sum(rivals) - abstentions)  # votes of its own in a subset that holds all the others
    for votes in range(fewest, min(own, k) + 1):
        contenders = [rival for rival in rivals if rival >= votes]
        harmless = abstentions + sum(rival for rival in rivals if rival < votes)
        for ties, ways in enumerate(_ways_of_the_rest(contenders, harmless, votes, k - votes)):
            won_T[ties] += comb(own, votes) * int(ways)
    return sum((Fraction(won, ties + 1) for ties, won in won_T.items()), Fraction(0))


def _ways_of_the_rest(contenders: list[int], harmless: int, votes: int, rest: int) -> np.ndarray:
    """Ways [T] to draw the `rest` of a subset so that no contender has more than `votes` and T have as many.

    The coefficients of y^T x^rest in (1 + x)^harmless · Π over contenders c of (Σ_{j<votes} C(c, j) x^j +
    y C(c, votes) x^votes), built up contender by contender in a table [ties, samples drawn].
    """
    n = sum(contenders) + harmless
    # No entry exceeds C(n, n // 2): 64-bit integers are exact up to n = 66, Python's own beyond.
    dtype = np.int64 if comb(n, n // 2) < 2**63 else object
    table = np.zeros((rest // votes + 1, rest + 1), dtype=dtype)
    table[0] = [comb(harmless, drawn) for drawn in range(rest + 1)]
    for contender in contenders:
        grown = table.copy()
        for drawn in range(1, min(votes - 1, rest) + 1):
            grown[:, drawn:] += comb(contender, drawn) * table[:, :-drawn]
        if votes <= rest:
            grown[1:, votes:] += comb(contender, votes) * table[:-1, :-votes]
        table = grown
    return table[:, rest]


def _check_k(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise SettingsError(f"k = {k} of {n} samples cannot be drawn; choose k between 1 and {n}, or sample more.")
