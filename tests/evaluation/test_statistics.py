"""The statistics against hand-derived values, brute force and their own laws."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aft.errors import DataError, NumericalError, SettingsError
from aft.evaluation import statistics
from aft.evaluation.statistics import (
    best_of_k,
    bootstrap_interval,
    maj_at_k,
    mcnemar_exact,
    mean_std,
    pass_at_k,
    pearson,
    two_level_bootstrap,
    wilson_interval,
)


def test_wilson_interval_of_half_right():
    """Of 8 of 16: p = 1/2, z² = 3.8415, 1 + z²/16 = 1.24009; the half-width is z √(1/64 + z²/1024) / 1.24009.

    √(0.015625 + 0.0037514) = 0.139199, times 1.959964 / 1.24009 is 0.220004; the centre (1/2 + z²/32) /
    1.24009 is 1/2.
    """
    assert wilson_interval(8, 16) == pytest.approx((0.279996, 0.720004), abs=1e-6)


def test_wilson_interval_of_none_right_has_a_width():
    """At p = 0 it is [0, (z²/n) / (1 + z²/n)] = [0, z² / (n + z²)] = [0, 3.8415 / 13.8415]."""
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)


def test_wilson_interval_of_a_lower_level_is_narrower():
    low_95, high_95 = wilson_interval(30, 100)
    low_80, high_80 = wilson_interval(30, 100, level=0.8)
    assert low_95 < low_80 < 0.3 < high_80 < high_95


def test_wilson_interval_over_no_question_is_refused():
    with pytest.raises(DataError, match="no questions"):
        wilson_interval(0, 0)


def test_bootstrap_interval_of_a_coin_is_the_binomial_one():
    """Half of 400 values are 1: a resampled mean is Binomial(400, 1/2) / 400, with deviation 0.025.

    Its 2.5 % and 97.5 % quantiles are 180.5 ± 0.5 and 219.5 ± 0.5 of 400 (200 ± 1.96 · 10).
    """
    low, high = bootstrap_interval([0.0, 1.0] * 200)
    assert 400 * low == pytest.approx(180.4, abs=1.5)
    assert 400 * high == pytest.approx(219.6, abs=1.5)


def test_bootstrap_interval_is_that_of_drawing_questions():
    """The multinomial over distinct values agrees with plain resampling up to its Monte Carlo error."""
    generator = np.random.default_rng(7)
    values_N = generator.choice([-1.0, -1 / 3, 0.0, 2 / 3, 1.0], size=150, p=[0.1, 0.2, 0.4, 0.1, 0.2])
    drawn = values_N[generator.integers(150, size=(20_000, 150))].mean(axis=1)
    assert bootstrap_interval(values_N) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.008)


def test_bootstrap_interval_does_not_depend_on_its_chunks(monkeypatch):
    values_N = np.linspace(-1, 1, 37)
    whole = bootstrap_interval(values_N, resamples=1_000)
    monkeypatch.setattr(statistics, "_CHUNK_ENTRIES", 37 * 7)
    assert bootstrap_interval(values_N, resamples=1_000) == whole


def test_bootstrap_interval_depends_on_the_seed_alone():
    values_N = np.linspace(-1, 1, 37)
    first = bootstrap_interval(values_N, resamples=500, seed=3)
    assert bootstrap_interval(values_N[::-1], resamples=500, seed=3) == first
    assert bootstrap_interval(values_N, resamples=500, seed=4) != first


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=30))
def test_bootstrap_interval_lies_within_the_values(values):
    low, high = bootstrap_interval(values, resamples=200)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12


@pytest.mark.parametrize(("values", "message"), [([], "at least one"), ([0.0, math.nan, 1.0], r"\[1\]")])
def test_bootstrap_of_nothing_or_of_nan_is_refused(values, message):
    with pytest.raises(DataError, match=message):
        bootstrap_interval(values)


def test_the_bootstrap_of_one_seed_gives_the_mean_difference_inside_its_interval():
    """Of 100 questions 30 are won, 10 lost, 60 alike: mean .2, deviation √(.4 - .04) = .6.

    The interval is .2 ± 1.96 · .6 / √100 = .2 ± .1176.
    """
    difference = two_level_bootstrap([1.0] * 30 + [-1.0] * 10 + [0.0] * 60)
    assert difference.mean == pytest.approx(0.2)
    assert difference.low == pytest.approx(0.2 - 0.1176, abs=0.012)
    assert difference.high == pytest.approx(0.2 + 0.1176, abs=0.012)


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=1, max_size=20), st.integers(0, 5))
def test_the_bootstrap_of_a_symmetrical_difference_contains_zero(gains, seed):
    difference = two_level_bootstrap([*gains, *(-gain for gain in gains)], resamples=400, seed=seed)
    assert difference.mean == pytest.approx(0, abs=1e-12)
    assert difference.low <= 0 <= difference.high


def test_the_bootstrap_of_equal_variants_has_no_width():
    assert two_level_bootstrap(np.zeros((3, 50))) == (0.0, 0.0, 0.0)


def test_one_seed_is_a_bootstrap_over_questions():
    values_N = np.random.default_rng(0).normal(size=37)
    assert two_level_bootstrap([values_N])[1:] == bootstrap_interval(values_N)


@pytest.mark.parametrize(
    ("means", "level", "ends"),
    [
        ([0.1, 0.5], 0.95, (0.1, 0.5)),
        ([-0.3, 0.2, 0.7], 0.95, (-0.3, 0.7)),
        ([-0.3, 0.2, 0.7], 0.9, ((-0.3 - 0.3 + 0.2) / 3, (0.2 + 0.7 + 0.7) / 3)),
    ],
)
def test_without_spread_between_questions_few_seeds_give_their_range(means, level, ends):
    """One seed alone fills 1/4 of the replicates of two, 1/27 = 3.7 % of those of three: more than a tail of 2.5 %.

    It is less than one of 5 %, where the next mean, of one seed twice and another once (3 / 27), is the end.
    """
    values_S_N = np.repeat(np.array(means)[:, None], 40, axis=1)
    assert two_level_bootstrap(values_S_N, level=level) == pytest.approx((np.mean(means), *ends))


def test_seeds_that_agree_leave_the_interval_over_questions():
    """The same results under every seed: what is drawn of the seeds changes nothing."""
    values_N = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], size=200, p=[0.1, 0.5, 0.4])
    estimate = two_level_bootstrap(np.tile(values_N, (3, 1)))
    assert estimate.mean == pytest.approx(values_N.mean())
    assert (estimate.low, estimate.high) == pytest.approx(bootstrap_interval(values_N), abs=0.01)


def test_seeds_that_differ_widen_the_interval():
    """Over 400 questions the means have an error of .05; of the seeds, which lie 1 apart, it is about .5."""
    values_S_N = np.array([[-1.0], [0.0], [1.0]]) + np.random.default_rng(2).normal(size=400)
    low, high = bootstrap_interval(values_S_N.mean(axis=0))
    estimate = two_level_bootstrap(values_S_N)
    assert high - low < 0.25
    assert estimate.low < -0.8 and estimate.high > 0.8


def test_the_two_level_interval_is_that_of_drawing_seeds_and_questions():
    """Weights of patterns agree with plain resampling of rows and columns up to its Monte Carlo error."""
    generator = np.random.default_rng(3)
    values_S_N = generator.choice([-1.0, 0.0, 1.0], size=(3, 50)) + np.array([[0.0], [0.2], [0.5]])
    rows, columns = generator.integers(3, size=(20_000, 3, 1)), generator.integers(50, size=(20_000, 1, 50))
    drawn = values_S_N[rows, columns].mean(axis=(1, 2))
    assert two_level_bootstrap(values_S_N)[1:] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)


def test_the_interval_covers_what_other_seeds_and_questions_would_give():
    """Twelve seeds and 40 questions, each with an effect of its own around 0, 100 times: about 93 % are to be covered.

    A bootstrap over questions alone takes the seeds for the truth.
    """
    generator = np.random.default_rng(4)
    covered = np.zeros(2)
    for _ in range(100):
        seeds_S_1, questions_1_N = generator.normal(size=(12, 1)), generator.normal(size=(1, 40))
        values_S_N = seeds_S_1 + questions_1_N + 0.5 * generator.normal(size=(12, 40))
        both, questions = two_level_bootstrap(values_S_N, resamples=400), bootstrap_interval(values_S_N.mean(axis=0))
        covered += [both.low <= 0 <= both.high, questions[0] <= 0 <= questions[1]]
    assert 0.87 <= covered[0] / 100 <= 0.98
    assert covered[1] / 100 < 0.8


def test_three_seeds_cover_the_truth_in_three_of_four_cases():
    """Where seeds decide all, it lies outside of the range of three in 2 · (1/2)³ of all cases."""
    effects = np.random.default_rng(5).normal(size=(400, 3, 1))
    estimates = [two_level_bootstrap(np.repeat(seeds, 2, axis=1), resamples=400) for seeds in effects]
    assert np.mean([one.low <= 0 <= one.high for one in estimates]) == pytest.approx(0.75, abs=0.06)


def test_questions_without_a_value_under_a_seed_do_not_count_there():
    """Seeds have means 1 (of one question), 0 (of two) and none: the third is left out, the mean of the two is 1/2."""
    nan = math.nan
    estimate = two_level_bootstrap([[1.0, nan], [0.0, 0.0], [nan, nan]], resamples=2_000)
    assert estimate == (0.5, 0.0, 1.0)


def test_questions_without_any_value_are_not_drawn():
    """Of 0, 1 and seven of nothing under one seed: a quarter of the draws are 0 twice, and a quarter 1 twice."""
    assert two_level_bootstrap([0.0, 1.0, *[math.nan] * 7], level=0.4) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[], [[], []], [[math.nan] * 2] * 3, [[0.0, math.inf], [0.0, 0.0]]])
def test_a_bootstrap_of_nothing_or_of_the_infinite_is_refused(values):
    with pytest.raises(DataError, match="The bootstrap needs"):
        two_level_bootstrap(values)


@pytest.mark.parametrize("patterns", ["few", "many"])
def test_the_two_level_bootstrap_does_not_depend_on_its_chunks(monkeypatch, patterns):
    generator = np.random.default_rng(6)
    values_S_N = generator.normal(size=(3, 90)) if patterns == "many" else generator.choice([0.0, 1.0], size=(3, 90))
    whole = two_level_bootstrap(values_S_N, resamples=500)
    monkeypatch.setattr(statistics, "_CHUNK_ENTRIES", 90 * 7)
    assert two_level_bootstrap(values_S_N, resamples=500) == whole


def test_mcnemar_by_hand():
    """Seven discordant questions, six for a: P(X ≤ 1 or X ≥ 6) = 2 (1 + 7) / 2⁷ = 1/8."""
    a_N = [True] * 6 + [False] + [True] * 5 + [False] * 4
    b_N = [False] * 6 + [True] + [True] * 5 + [False] * 4
    assert mcnemar_exact(a_N, b_N) == pytest.approx(0.125)


def test_mcnemar_without_a_discordant_question_is_one():
    assert mcnemar_exact([True, False, True], [True, False, True]) == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_a_probability_and_symmetrical(results):
    a_N, b_N = zip(*results, strict=True)
    p_value = mcnemar_exact(a_N, b_N)
    assert 0 < p_value <= 1
    assert mcnemar_exact(b_N, a_N) == pytest.approx(p_value)


def test_mcnemar_of_different_questions_is_refused():
    with pytest.raises(DataError, match="not 2 and 3"):
        mcnemar_exact([True, False], [True, False, True])


def test_mcnemar_of_a_missing_result_is_refused():
    """NaN is not zero, and numpy takes it for true."""
    with pytest.raises(DataError, match="no label"):
        mcnemar_exact([1.0, math.nan], [1.0, 0.0])


@pytest.mark.parametrize("x", [[1.0, 2.0], [3.0, 3.0, 3.0], [1.0, math.nan, 2.0]])
def test_there_is_no_correlation_of_two_points_or_without_spread(x):
    assert math.isnan(pearson(x, range(len(x))))
    assert math.isnan(pearson(range(len(x)), x))


def test_pearson_by_hand():
    """x - 2 = -1, 0, 1 and y - 1 = -1, 1, 0: products 1, 0, 0; squares 2 and 2."""
    assert pearson([1, 2, 3], [0, 2, 1]) == pytest.approx(0.5)


def test_mean_std_by_hand():
    """1, 2, 6: mean 3, squared deviations 4 + 1 + 9 = 14, divided by 2."""
    assert mean_std([1, 2, 6]) == pytest.approx((3.0, math.sqrt(7)))


def test_mean_std_of_one_seed_has_no_deviation():
    mean, std = mean_std([0.4])
    assert mean == 0.4
    assert math.isnan(std)


def test_mean_std_of_no_seed_is_refused():
    with pytest.raises(DataError, match="no seed"):
        mean_std([])


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"), [(4, 1, 2, 1 / 2), (5, 2, 2, 7 / 10), (5, 4, 2, 1.0), (5, 0, 5, 0.0)]
)
def test_pass_at_k_by_hand(n, c, k, expected):
    """Pairs: 3 of the 6 of four miss the one; 3 of the 10 of five miss both; one wrong cannot fill a pair."""
    assert pass_at_k(n, c, k) == pytest.approx(expected)


@given(st.data())
def test_pass_at_k_is_a_probability_that_grows_with_k(data):
    n = data.draw(st.integers(1, 300))
    c = data.draw(st.integers(0, n))
    curve = [pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert curve == sorted(curve)
    assert curve[0] == pytest.approx(c / n)
    assert curve[-1] == (c > 0)


def test_pass_at_k_does_not_overflow():
    """One right sample of 4,000: a subset of half of them holds it with probability 1/2."""
    assert pass_at_k(4_000, 1, 2_000) == 0.5


@pytest.mark.parametrize("k", [0, 6, -1])
def test_more_or_fewer_than_the_samples_cannot_be_drawn(k):
    with pytest.raises(SettingsError, match="choose k between 1 and 5"):
        pass_at_k(5, 2, k)
    with pytest.raises(SettingsError, match="choose k between 1 and 5"):
        maj_at_k(["1"] * 5, [True] * 5, k)


def test_more_correct_than_samples_is_refused():
    with pytest.raises(DataError, match="6 correct samples of 5"):
        pass_at_k(5, 6, 2)


def test_maj_at_2_by_hand():
    """18, 18, 7, none; 18 is right. Of six pairs: 18+18 wins, 18+none twice, 18+7 ties twice, 7+none loses.

    (1 + 2 + 2 · 1/2) / 6 = 2/3.
    """
    assert maj_at_k(["18", "18", "7", None], [True, True, False, False], 2) == pytest.approx(2 / 3)


def test_maj_at_3_with_a_threefold_tie():
    """One sample each of a, b, c and a is right: the only subset of three is a three-way tie."""
    assert maj_at_k(["a", "b", "c"], [True, False, False], 3) == pytest.approx(1 / 3)


def test_a_vote_of_abstentions_alone_is_wrong():
    """Right, none, none: of the three pairs two hold the right answer, which then wins unopposed."""
    assert maj_at_k(["5", None, math.nan], [True, False, False], 2) == pytest.approx(2 / 3)
    assert maj_at_k([None, None], [False, False], 2) == 0.0


def test_two_right_answers_share_a_tie_without_loss():
    """A tie of two right answers is right whichever is taken, although each is counted with 1/2."""
    assert maj_at_k(["1/2", "0.5"], [True, True], 2) == 1.0


def brute_force_maj(answers: list[str | None], is_correct: list[bool], k: int) -> float:
    right = {answer for answer, flag in zip(answers, is_correct, strict=True) if flag}
    outcomes = []
    for subset in combinations(answers, k):
        votes = Counter(answer for answer in subset if answer is not None)
        winners = [answer for answer, count in votes.items() if count == max(votes.values())]
        outcomes.append(sum(answer in right for answer in winners) / len(winners) if winners else 0.0)
    return sum(outcomes) / len(outcomes)


@given(st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), min_size=1, max_size=10), st.data())
def test_maj_at_k_equals_the_enumeration_of_subsets(answers, data):
    right = data.draw(st.sets(st.sampled_from("abcde"), max_size=2))
    k = data.draw(st.integers(1, len(answers)))
    is_correct = [answer in right for answer in answers]
    assert maj_at_k(answers, is_correct, k) == pytest.approx(brute_force_maj(answers, is_correct, k), abs=1e-12)


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=64))
def test_maj_at_1_is_accuracy_and_maj_at_n_the_vote_of_all(answers):
    is_correct = [answer == "a" for answer in answers]
    assert maj_at_k(answers, is_correct, 1) == np.mean(is_correct)
    votes = Counter(answer for answer in answers if answer is not None)
    best = max(votes.values(), default=0)
    winners = [answer for answer, count in votes.items() if count == best]
    assume(len(winners) <= 1)
    assert maj_at_k(answers, is_correct, len(answers)) == (winners == ["a"])


def test_maj_at_k_equals_monte_carlo_for_many_samples():
    """20,000 draws of 16 of 40 samples have an error of about 0.0035."""
    answers = np.array(["a"] * 12 + ["b"] * 11 + ["c"] * 6 + ["d", "e", "f"] + ["-"] * 8)
    k = 16
    generator = np.random.default_rng(0)
    drawn = generator.permuted(np.tile(answers, (20_000, 1)), axis=1)[:, :k]
    votes = np.stack([(drawn == answer).sum(axis=1) for answer in "abcdef"])
    is_best = votes == votes.max(axis=0)
    expected = (is_best[0] / is_best.sum(axis=0)).mean()
    exact = maj_at_k([None if answer == "-" else answer for answer in answers], list(answers == "a"), k)
    assert exact == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32, 64])
def test_maj_at_k_of_64_samples_looks_at_no_subset(size):
    """Answers of `size` samples each, so that each wins as often as any other; the subsets number 10¹⁸."""
    answers = [str(index // size) for index in range(64)]
    is_correct = [answer == "0" for answer in answers]
    for k in (16, 32, 48):
        assert maj_at_k(answers, is_correct, k) == pytest.approx(size / 64)


@pytest.mark.parametrize("n", [64, 88])
def test_maj_of_equally_frequent_answers_is_fair(n):
    """Of eight answers alike in number any one wins as often as any other: 1/8, exactly, ties included.

    The subsets of 64 samples can be counted in 64 bits, those of 88 cannot.
    """
    answers = [str(index % 8) for index in range(n)]
    assert maj_at_k(answers, [answer == "3" for answer in answers], n // 2 - 5) == 1 / 8


@pytest.mark.parametrize(
    ("answers", "is_correct"),
    [(["7", "7"], [True, False]), ([None, "7"], [True, False]), ([math.nan], [True])],
)
def test_contradictory_labels_are_refused(answers, is_correct):
    with pytest.raises(DataError, match="label anew"):
        maj_at_k(answers, is_correct, 1)


def best_of_k_by_enumeration(scores, is_correct, k):
    """Mean over all k-subsets of the share of right samples among those that share the subset's highest score."""
    shares = []
    for subset in combinations(range(len(scores)), k):
        highest = max(scores[i] for i in subset)
        best = [is_correct[i] for i in subset if scores[i] == highest]
        shares.append(sum(best) / len(best))
    return sum(shares) / len(shares)


def test_best_of_k_by_hand():
    """The middle one is right: of the three pairs only the one without the highest is won, and all three are lost."""
    scores, is_correct = [-0.3, -0.2, -0.1], [False, True, False]
    assert [best_of_k(scores, is_correct, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 1 / 3, 0])


def test_best_of_k_shares_a_tie_evenly():
    """All pairs of {right, right, wrong} tie: 1, 1/2 and 1/2; all three tie at 2/3, and so does one alone."""
    assert [best_of_k([-0.5] * 3, [True, True, False], k) for k in (1, 2, 3)] == pytest.approx([2 / 3] * 3)


def test_best_of_one_is_the_accuracy_and_best_of_all_that_of_the_best():
    scores, is_correct = [-0.4, -0.1, -0.7, -0.2], [False, True, True, False]
    assert best_of_k(scores, is_correct, 1) == 0.5
    assert best_of_k(scores, is_correct, 4) == 1
    assert best_of_k([-score for score in scores], is_correct, 4) == 1
    assert best_of_k(scores, [not flag for flag in is_correct], 4) == 0


@given(st.lists(st.tuples(st.sampled_from([-3.0, -2.0, -1.0, -0.0, 0.0]), st.booleans()), min_size=1, max_size=7))
def test_best_of_k_is_that_of_all_subsets(samples):
    scores, is_correct = zip(*samples, strict=True)
    for k in range(1, len(samples) + 1):
        expected = best_of_k_by_enumeration(scores, is_correct, k)
        assert best_of_k(scores, is_correct, k) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(st.floats(-9, 0), st.booleans()), min_size=1, max_size=30), st.integers(1, 30))
def test_best_of_k_lies_below_pass_at_k(samples, k):
    """A right answer can only be chosen from a subset that holds one."""
    scores, is_correct = zip(*samples, strict=True)
    k = min(k, len(samples))
    assert best_of_k(scores, is_correct, k) <= pass_at_k(len(samples), sum(is_correct), k) + 1e-12


def test_best_of_k_refuses_what_cannot_be_ranked_or_drawn():
    with pytest.raises(SettingsError, match="k = 3 of 2 samples"):
        best_of_k([-0.1, -0.2], [True, False], 3)
    for broken in (float("nan"), float("-inf")):
        with pytest.raises(NumericalError, match="not finite"):
            best_of_k([-0.1, broken], [True, False], 1)
