"""Values: numbers derived by hand, the paper's equations as plain loops, metrics and errors."""

import math
from typing import Any, get_args

import pytest
import torch

from aft.alignment.losses import CONSTRAINTS, TERMS, alignment_loss
from aft.alignment.terms import Pairwise, Pointwise, Ranking
from aft.errors import AftError, DataError, SettingsError

FAMILIES = {"ranking": Ranking, "pairwise": Pairwise, "pointwise": Pointwise}
LN2 = math.log(2)
SCORES = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
RANKS = torch.tensor([[0, 1], [0, 1]])
MASK = torch.ones(2, 2, dtype=torch.bool)


def loss_and_gradients(scores, ranks, mask=None, **settings: Any):
    """Loss, gradient [Q, K] and metrics in float64 of lists of lists; without a mask nothing is padding."""
    scores_Q_K = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    mask_Q_K = torch.ones(scores_Q_K.shape, dtype=torch.bool) if mask is None else torch.tensor(mask)
    for name in {"ratings_Q_K", "reference_scores_Q_K"} & settings.keys():
        settings[name] = torch.tensor(settings[name], dtype=torch.float64)
    loss, metrics = alignment_loss(scores_Q_K, torch.tensor(ranks), mask_Q_K, **settings)
    (gradient,) = torch.autograd.grad(loss, scores_Q_K)
    return loss.item(), gradient, {name: value.item() for name, value in metrics.items()}


def in_bits(*scores):
    """One question's scores given in units of ln 2, so that all exponentials are powers of two."""
    return [[score * LN2 for score in scores]]


def check(result, loss, gradients):
    assert result[0] == pytest.approx(loss, rel=1e-12)
    assert result[1][0].tolist() == pytest.approx(gradients, rel=1e-12, abs=1e-15)


class TestByHand:
    """Three responses of ranks 0, 1, 2 with scores -2, -1, -5 (in ln 2) and a margin of 1.

    The second scores too high, the third too low. B_1 = -2 - 1 = -3 and B_2 = min(-2, -1) - 1 = -3.
    """

    @pytest.mark.parametrize(
        ("constraint", "loss", "gradients"),
        [
            ("none", math.log(51 / 16), [-34 / 51, 31 / 51, 3 / 51]),
            ("detached", math.log(51 / 16), [-34 / 51, -1 / 51, 0]),
            ("detached_lowest", math.log(51 / 16), [-34 / 51, 31 / 51, 0]),
            ("boundary", math.log(101 / 16), [-34 / 101, 29 / 101, -45 / 101]),
        ],
    )
    def test_aft(self, constraint, loss, gradients):
        """E_ij = 2^(s_j - s_i): E_01 = 2, E_02 = 1/8, E_12 = 1/16; Z = 1 + 35/16 = 51/16.

        K_ij = 2^(2 B_j - s_i - s_j): K_01 = 2^-3 = 1/8, K_02 = 2^1 = 2, K_12 = 2^0 = 1;
        Z' = 51/16 + 50/16 = 101/16. Each upper role gives -E/Z, each lower role (E - K)/Z. In sixteenths,
        none: s_0 -(32 + 2), s_1 +32 - 1, s_2 2 + 1;
        boundary: s_0 -34, s_1 (32 - 2) - 1, s_2 (2 - 32) + (1 - 16).
        """
        result = loss_and_gradients(in_bits(-2, -1, -5), [[0, 1, 2]], term="aft", constraint=constraint, beta=LN2)
        check(result, loss, gradients)

    @pytest.mark.parametrize(
        ("constraint", "scores", "loss", "gradients"),
        [
            ("none", (-2, -1, -5), LN2, [-1, 1, 0]),
            ("none", (-3, -1, -2), 3 * LN2, [-2, 1, 1]),
            ("detached", (-3, -1, -2), 3 * LN2, [-2, 0, 0]),
            ("detached_lowest", (-3, -1, -2), 3 * LN2, [-2, 1, 0]),
            ("boundary", (-2, -1, -5), 5 * LN2, [-1, 1, -2]),
        ],
    )
    def test_rrhf(self, constraint, scores, loss, gradients):
        """Scores -2, -1, -5: only pair 01 is violated, by 1. Scores -3, -1, -2: 01 by 2, 02 by 1.

        boundary: s_2 lies 2 below B_2 = -3, once for each response above it: 1 + 2 + 2 = 5, pulled up by 2.
        """
        result = loss_and_gradients(in_bits(*scores), [[0, 1, 2]], term="rrhf", constraint=constraint, beta=LN2)
        check(result, loss, gradients)

    @pytest.mark.parametrize(
        ("constraint", "loss", "gradients"),
        [
            ("none", math.log(577 / 64 * 17 / 16), [-1026 / 577, 512 / 577 - 1 / 17, 2 / 577 + 1 / 17]),
            ("detached", math.log(577 / 64 * 17 / 16), [-1026 / 577, -1 / 17, 0]),
            ("detached_lowest", math.log(577 / 64 * 17 / 16), [-1026 / 577, 512 / 577 - 1 / 17, 0]),
            (
                "boundary",
                math.log(865 / 64 * 33 / 16),
                [-1026 / 865, 480 / 865 - 1 / 33, -510 / 865 - 15 / 33],
            ),
        ],
    )
    def test_pro(self, constraint, loss, gradients):
        """Ratings 4, 3, 2: tau_01 = 1, tau_02 = 2, tau_12 = 1; tau_0^max = 2, tau_1^max = 1.

        b_0 = -4, b_1 = -1; a_01 = -1, a_02 = -10, a_12 = -5: E_01 = 2^3, E_02 = 2^-6, E_12 = 2^-4;
        Z_0 = 1 + 513/64 = 577/64, Z_1 = 17/16. At the boundary a_01 = -3, a_02 = -6, a_12 = -3, so
        K_01 = 2^(-6 + 4 + 1) = 1/2, K_02 = 2^(-12 + 4 + 10) = 4, K_12 = 2^(-6 + 1 + 5) = 1;
        Z'_0 = 577/64 + 288/64 = 865/64, Z'_1 = 33/16.
        none: s_0 -2 (512 + 1)/577; s_1 512/577 from above, -1/17 from below; s_2 2 (1/577) + 1/17.
        boundary: s_1 (512 - 32)/865 - 1/33; s_2 2 (1 - 256)/865 + (1 - 16)/33.
        """
        result = loss_and_gradients(
            in_bits(-2, -1, -5),
            [[0, 1, 2]],
            term="pro",
            constraint=constraint,
            beta=LN2,
            ratings_Q_K=[[4.0, 3.0, 2.0]],
        )
        check(result, loss, gradients)

    @pytest.mark.parametrize(
        ("constraint", "loss", "gradients"),
        [
            ("none", math.log(117 / 32), [-9 / 26, 4 / 13 - 1 / 18, 1 / 26 + 1 / 18]),
            ("detached", math.log(117 / 32), [-9 / 26, -1 / 18, 0]),
            ("detached_lowest", math.log(117 / 32), [-9 / 26, 4 / 13 - 1 / 18, 0]),
            ("boundary", math.log(247 / 32), [-9 / 38, 3 / 19 - 1 / 26, -3 / 38 - 3 / 26]),
        ],
    )
    def test_dpo(self, constraint, loss, gradients):
        """Reference scores -2, -3, -1 and DPO's beta 1/2: a = b = (0, 1, -2).

        E_01 = 2, E_02 = 1/4, E_12 = 1/8; Z_0 = 13/4, Z_1 = 9/8, their product 117/32. At the boundary
        a_1 = (-3 + 3)/2 = 0 and a_2 = (-3 + 1)/2 = -1: K_01 = 2^(0 - 0 - 1) = 1/2, K_02 = 2^(-2 - 0 + 2) = 1,
        K_12 = 2^(-2 - 1 + 2) = 1/2; Z'_0 = 19/4, Z'_1 = 13/8, product 247/32. Each gradient is halved.
        none: s_0 -(9/4)/(13/4)/2; s_1 2/(13/4)/2 - (1/8)/(9/8)/2; s_2 (1/4)/(13/4)/2 + (1/8)/(9/8)/2.
        boundary: s_0 -(9/4)/(19/4)/2; s_1 (3/2)/(19/4)/2 - (1/8)/(13/8)/2;
        s_2 -(3/4)/(19/4)/2 - (3/8)/(13/8)/2.
        """
        result = loss_and_gradients(
            in_bits(-2, -1, -5),
            [[0, 1, 2]],
            term="dpo",
            constraint=constraint,
            beta=LN2,
            reference_scores_Q_K=in_bits(-2, -3, -1),
            dpo_beta=0.5,
        )
        check(result, loss, gradients)

    def test_aft_boundary_of_one_pair(self):
        """s_p = -.3, s_n = -1.5, beta = .15: B = -.45, T = 2B - s_p = -.6.

        E = e^-1.2 = .301194, K = e^(-.6 + 1.5) = e^.9 = 2.459603, Z' = 3.760797, log Z' = 1.324631;
        dL/ds_p = -E/Z' = -.080088 (were T not a constant it would be +.574), dL/ds_n = (E - K)/Z' = -.573923.
        """
        loss, gradient, metrics = loss_and_gradients([[-0.3, -1.5]], [[0, 1]], constraint="boundary", beta=0.15)
        assert loss == pytest.approx(1.324631, abs=1e-6)
        assert gradient[0].tolist() == pytest.approx([-0.080088, -0.573923], abs=1e-6)
        assert metrics["alignment_term"] == pytest.approx(math.log(1.301194), abs=1e-6)
        assert metrics["constraint_term"] == pytest.approx(1.324631 - math.log(1.301194), abs=1e-6)

    def test_mean_counts_questions_without_a_pair(self):
        """Three questions: log(1 + 1) for two equal scores, 0 for two equal ranks, 0 for a lone response."""
        loss, gradient, _ = loss_and_gradients(
            [[-1, -1], [-1, -2], [-1, 9]],
            [[0, 1], [0, 0], [0, 1]],
            [[True, True], [True, True], [True, False]],
        )
        assert loss == pytest.approx(LN2 / 3)
        assert gradient.tolist() == [[pytest.approx(-1 / 6), pytest.approx(1 / 6)], [0, 0], [0, 0]]

    def test_settings_of_other_terms_are_not_read(self):
        """Ratings that contradict the ranks and a reference of NaN leave `aft` at log(1 + e^0)."""
        loss, _, _ = loss_and_gradients(
            [[-1, -1]],
            [[0, 1]],
            ratings_Q_K=[[1.0, 2.0]],
            reference_scores_Q_K=[[math.nan, 0.0]],
            dpo_beta=-1,
        )
        assert loss == pytest.approx(LN2)

    def test_reference_scores_get_no_gradient(self):
        reference = torch.tensor([[-1.0, -1.0]], requires_grad=True)
        loss, _ = alignment_loss(
            SCORES[:1].clone().requires_grad_(),
            RANKS[:1],
            MASK[:1],
            term="dpo",
            reference_scores_Q_K=reference,
        )
        assert torch.autograd.grad(loss, reference, allow_unused=True) == (None,)

    def test_unrated_response_sets_the_temperatures_of_its_question_to_one(self):
        """Two questions of scores -1, -2 (ln 2). Ratings 5, 3: E = 2^(2 (-2) - 2 (-1)) = 1/4, log 5/4.

        Ratings 5, NaN: tau = 1, E = 2^(-2 + 1) = 1/2, log 3/2.
        """
        loss, _, _ = loss_and_gradients(
            in_bits(-1, -2) * 2, [[0, 1]] * 2, term="pro", ratings_Q_K=[[5.0, 3.0], [5.0, math.nan]]
        )
        assert loss == pytest.approx((math.log(5 / 4) + math.log(3 / 2)) / 2)


# The paper's equations, printed ones only, as double loops over plain Python numbers.
def eq_6_aft(positives, negatives):
    return math.log(1 + sum(math.exp(n - p) for p in positives for n in negatives))


def eq_8_boundary(positives, negatives, beta):
    least = min(positives)
    pairs = [(p, n, 2 * least - 2 * beta - p) for p in positives for n in negatives]
    return math.log(1 + sum(math.exp(n - p) + math.exp(threshold - n) for p, n, threshold in pairs))


def eq_11_ranking_boundary(scores, ranks, beta):
    total = 1.0
    for s_i, r_i in zip(scores, ranks, strict=True):
        for s_j, r_j in zip(scores, ranks, strict=True):
            if r_i < r_j:
                least = min(s for s, r in zip(scores, ranks, strict=True) if r < r_j)
                total += math.exp(s_j - s_i) + math.exp(2 * least - 2 * beta - s_i - s_j)
    return math.log(total)


def eq_14_ranking(scores, ranks):
    members = list(zip(scores, ranks, strict=True))
    return math.log(1 + sum(math.exp(s_j - s_i) for s_i, r_i in members for s_j, r_j in members if r_i < r_j))


def eq_16_dpo(scores, ranks, references, beta):
    members = list(zip(scores, ranks, references, strict=True))
    total = 0.0
    for s_i, r_i, ref_i in members:
        top = math.exp(beta * (s_i - ref_i))
        total -= math.log(top / (top + sum(math.exp(beta * (s - ref)) for s, r, ref in members if r > r_i)))
    return total


def eq_18_rrhf(scores, ranks):
    members = list(zip(scores, ranks, strict=True))
    return sum(max(0.0, s_j - s_i) for s_i, r_i in members for s_j, r_j in members if r_i < r_j)


def eq_20_pro(scores, ranks, ratings):
    members = list(zip(scores, ranks, ratings, strict=True))
    total = 0.0
    for s_i, r_i, rating_i in members:
        below = [(s, rating_i - rating) for s, r, rating in members if r > r_i]
        if below:
            top = math.exp(max(tau for _, tau in below) * s_i)
            total -= math.log(top / (top + sum(math.exp(tau * s) for s, tau in below)))
    return total


class TestPrintedEquations:
    """A question of six responses with ties in rank, and the same scores split into right and wrong."""

    SCORES = (-0.31, -0.92, -0.45, -1.74, -0.58, -2.63)
    RANKS = (0, 1, 1, 2, 3, 3)
    RATINGS = (9.0, 7.5, 7.5, 6.0, 2.0, 2.0)
    REFERENCES = (-0.5, -0.8, -0.75, -1.2, -0.6, -2.0)
    BINARY = (0, 0, 1, 0, 1, 1)

    def value(self, ranks, **settings):
        return loss_and_gradients([list(self.SCORES)], [list(ranks)], **settings)[0]

    @pytest.mark.parametrize("constraint", ["none", "detached", "detached_lowest"])
    def test_rankings(self, constraint):
        """Eq. 14, 18, 20 and 16; the detached forms (Eq. 12, 13) have the same value."""
        printed = {
            "aft": eq_14_ranking(self.SCORES, self.RANKS),
            "rrhf": eq_18_rrhf(self.SCORES, self.RANKS),
            "pro": eq_20_pro(self.SCORES, self.RANKS, self.RATINGS),
            "dpo": eq_16_dpo(self.SCORES, self.RANKS, self.REFERENCES, 0.3),
        }
        for term, expected in printed.items():
            value = self.value(
                self.RANKS,
                term=term,
                constraint=constraint,
                ratings_Q_K=[list(self.RATINGS)],
                reference_scores_Q_K=[list(self.REFERENCES)],
                dpo_beta=0.3,
            )
            assert value == pytest.approx(expected, abs=1e-9), term

    @pytest.mark.parametrize("beta", [-0.4, 0.0, 0.15, 2.0])
    def test_ranking_boundary(self, beta):
        value = self.value(self.RANKS, constraint="boundary", beta=beta)
        assert value == pytest.approx(eq_11_ranking_boundary(self.SCORES, self.RANKS, beta), abs=1e-9)

    @pytest.mark.parametrize("beta", [-0.4, 0.0, 0.15, 2.0])
    def test_binary_boundary_is_the_ranking_boundary_of_two_levels(self, beta):
        """Eq. 11 with two levels is Eq. 8."""
        positives = [s for s, r in zip(self.SCORES, self.BINARY, strict=True) if r == 0]
        negatives = [s for s, r in zip(self.SCORES, self.BINARY, strict=True) if r == 1]
        value = self.value(self.BINARY, constraint="boundary", beta=beta)
        assert value == pytest.approx(eq_8_boundary(positives, negatives, beta), abs=1e-9)

    @pytest.mark.parametrize("constraint", ["none", "detached"])
    def test_binary(self, constraint):
        """Eq. 14 and 12 with two levels are Eq. 6 and 7."""
        positives = [s for s, r in zip(self.SCORES, self.BINARY, strict=True) if r == 0]
        negatives = [s for s, r in zip(self.SCORES, self.BINARY, strict=True) if r == 1]
        value = self.value(self.BINARY, constraint=constraint)
        assert value == pytest.approx(eq_6_aft(positives, negatives), abs=1e-9)

    def test_dpo_of_two_is_the_pairwise_loss(self):
        """-log sigmoid(beta [(s_w - ref_w) - (s_l - ref_l)]), with the loser written first."""
        value, _, _ = loss_and_gradients(
            [[-1.7, -0.4]], [[1, 0]], term="dpo", reference_scores_Q_K=[[-1.1, -0.9]], dpo_beta=0.3
        )
        logit = torch.tensor(0.3 * ((-0.4 + 0.9) - (-1.7 + 1.1)), dtype=torch.float64)
        assert value == pytest.approx(-torch.nn.functional.logsigmoid(logit).item(), abs=1e-12)


class TestMetrics:
    def test_by_hand(self):
        """Question 0: best -1 and -3, others -5. Question 1: best rank 2 (-3), other -4. Question 2: ties.

        score_positive = (-1 - 3 - 3)/3, score_negative = (-5 - 4)/2, margin = ((-2 + 5) + (-3 + 4))/2 = 2.
        """
        _, _, metrics = loss_and_gradients(
            [[-1, -3, -5], [-3, -4, -9], [-7, -8, -9]],
            [[0, 0, 3], [2, 4, 0], [0, 0, 0]],
            [[True, True, True], [True, True, False], [True, True, True]],
        )
        assert metrics["score_positive"] == pytest.approx(-7 / 3)
        assert metrics["score_negative"] == pytest.approx(-4.5)
        assert metrics["margin"] == pytest.approx(2.0)
        assert metrics["comparable"] == 2.0

    def test_without_a_pair_the_means_are_nan_and_the_loss_is_zero(self):
        loss, _, metrics = loss_and_gradients([[-1, -2]], [[0, 0]], constraint="boundary")
        assert loss == metrics["alignment_term"] == metrics["constraint_term"] == metrics["comparable"] == 0
        assert all(math.isnan(metrics[name]) for name in ("score_positive", "score_negative", "margin"))

    @pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
    @pytest.mark.parametrize("constraint", CONSTRAINTS)
    def test_boundary_alone_adds_to_the_value(self, term, constraint):
        """The alignment term is the value without constraint; the boundary, above the -5 here, adds to it."""
        settings = {"term": term, "reference_scores_Q_K": [[-1.0, -2.0, -2.0]]}
        free, _, _ = loss_and_gradients([[-1, -2, -5]], [[0, 1, 2]], **settings)
        loss, _, metrics = loss_and_gradients([[-1, -2, -5]], [[0, 1, 2]], constraint=constraint, **settings)
        assert metrics["alignment_term"] == pytest.approx(free, abs=1e-15)
        assert metrics["alignment_term"] + metrics["constraint_term"] == pytest.approx(loss)
        assert (metrics["constraint_term"] > 0.1) == (constraint == "boundary")

    def test_are_detached_scalars(self):
        scores = torch.tensor([[-1.0, -2.0]], requires_grad=True)
        _, metrics = alignment_loss(scores, torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))
        assert set(metrics) == {
            "alignment_term",
            "constraint_term",
            "score_positive",
            "score_negative",
            "margin",
            "comparable",
        }
        for value in metrics.values():
            assert value.shape == () and value.is_floating_point() and not value.requires_grad


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_precision_of_the_computation(given, computed):
    """Half precision is lifted before the first difference; both scores are exact in either half format."""
    scores = torch.tensor([[-1.2265625, -1.234375]], dtype=given, requires_grad=True)
    loss, _ = alignment_loss(scores, torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.dtype == computed
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.0078125)), rel=1e-6)
    assert scores.grad is not None and scores.grad.dtype == given


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"term": "ppo"}, SettingsError, "'ppo'"),
        ({"constraint": "hard"}, SettingsError, "'hard'"),
        ({"term": "dpo"}, SettingsError, "reference_scores_Q_K"),
        *(
            ({"term": term} | {f"{other}_Q_K": SCORES for other in TERMS[term].needs if other != name}, *told)
            for term in TERMS
            for name in TERMS[term].needs
            for told in [(SettingsError, f"'{term}' needs {name}_Q_K: ")]
        ),
        ({"term": "simpo", "constants": {"alpha": 1.0}}, SettingsError, "no constant 'alpha', only beta, gamma"),
        ({"term": "aft", "constants": {"beta": 1.0}}, SettingsError, "no constant 'beta', only none"),
        ({"term": "simpo", "constants": {"beta": 0.0}}, SettingsError, "constants.beta is 0"),
        ({"term": "redi", "rewards_Q_K": SCORES[0]}, DataError, "rewards_Q_K"),
        ({"term": "dpo", "reference_scores_Q_K": SCORES, "dpo_beta": 0.0}, SettingsError, "dpo_beta"),
        ({"scores_Q_K": SCORES[:0], "ranks_Q_K": RANKS[:0], "mask_Q_K": MASK[:0]}, DataError, "scores_Q_K"),
        ({"scores_Q_K": SCORES[0], "ranks_Q_K": RANKS[0], "mask_Q_K": MASK[0]}, DataError, "scores_Q_K"),
        ({"ranks_Q_K": RANKS[:1]}, DataError, "ranks_Q_K"),
        ({"mask_Q_K": MASK[:, :1]}, DataError, "mask_Q_K"),
        ({"mask_Q_K": MASK.long()}, DataError, "mask_Q_K"),
        ({"term": "pro", "ratings_Q_K": SCORES[0]}, DataError, "ratings_Q_K"),
        ({"term": "dpo", "reference_scores_Q_K": SCORES[0]}, DataError, "reference_scores_Q_K"),
        (
            {"term": "pro", "ratings_Q_K": torch.tensor([[2, 1], [2, 2]])},
            DataError,
            "question 1 .* 2 against 2",
        ),
        (
            {"term": "pro", "ratings_Q_K": torch.tensor([[1.0, 2.0], [2.0, 1.0]])},
            DataError,
            "question 0 .* 1 against 2",
        ),
        ({"term": "pro", "ratings_Q_K": torch.tensor([[math.inf, 2.0], [2.0, 1.0]])}, DataError, "finite"),
    ],
)
def test_errors_are_one_sentence(change, error, words):
    arguments: dict[str, Any] = {"scores_Q_K": SCORES, "ranks_Q_K": RANKS, "mask_Q_K": MASK} | change
    with pytest.raises(error, match=words) as caught:
        alignment_loss(**arguments)
    assert isinstance(caught.value, AftError) and isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and ". " not in message


def test_names():
    of_family = {family: tuple(term for term in TERMS if TERMS[term].family == family) for family in FAMILIES}
    assert of_family == {family: get_args(names) for family, names in FAMILIES.items()}
    assert CONSTRAINTS == ("none", "detached", "detached_lowest", "boundary")
