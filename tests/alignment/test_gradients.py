"""Gradients: autograd against the closed forms of the paper and against what they imply."""

import math
from typing import Any

import pytest
import torch

from aft.alignment.losses import alignment_loss

SCORES = (-0.31, -0.92, -0.45, -1.74, -0.58, -2.63)
RANKS = (0, 1, 1, 2, 3, 3)
BINARY = (0, 0, 1, 0, 1, 1)
RATINGS = (9.0, 7.5, 7.5, 6.0, 2.0, 2.0)
REFERENCES = (-0.5, -0.8, -0.75, -1.2, -0.6, -2.0)
LOWEST = (4, 5)
DPO_BETA = 0.3


def loss_of(scores_K: torch.Tensor, ranks=RANKS, **settings: Any) -> torch.Tensor:
    """The loss of one question in float64, with the ratings and reference scores above."""
    loss, _ = alignment_loss(
        scores_K[None],
        torch.tensor([ranks]),
        torch.ones(1, len(ranks), dtype=torch.bool),
        ratings_Q_K=torch.tensor([RATINGS], dtype=torch.float64)[:, : len(ranks)],
        reference_scores_Q_K=torch.tensor([REFERENCES], dtype=torch.float64)[:, : len(ranks)],
        dpo_beta=DPO_BETA,
        **settings,
    )
    return loss


def gradient(scores=SCORES, ranks=RANKS, **settings: Any) -> list[float]:
    scores_K = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(loss_of(scores_K, ranks, **settings), scores_K)[0].tolist()


def strict_pairs(ranks=RANKS):
    size = range(len(ranks))
    return [(i, j) for i in size for j in size if ranks[i] < ranks[j]]


class TestClosedForms:
    def test_eq_9_boundary(self):
        """-sum_pn {E grad s_p + [K - E] grad s_n} / Z', E = e^(s_n - s_p), K = e^(T_p - s_n), Z' restored."""
        beta, positives, negatives = 0.15, (0, 1, 3), (2, 4, 5)
        least = min(SCORES[p] for p in positives)
        expected, z = [0.0] * 6, 1.0
        for p in positives:
            for n in negatives:
                e = math.exp(SCORES[n] - SCORES[p])
                k = math.exp(2 * least - 2 * beta - SCORES[p] - SCORES[n])
                z += e + k
                expected[p] -= e
                expected[n] -= k - e
        expected = [value / z for value in expected]
        assert gradient(ranks=BINARY, constraint="boundary", beta=beta) == pytest.approx(expected, abs=1e-12)

    def test_eq_17_dpo(self):
        """-sum_i {sum_j beta e_ij (grad s_i - grad s_j)} / (1 + sum_j e_ij)."""
        expected = [0.0] * 6
        for i in range(6):
            e = {
                j: math.exp(DPO_BETA * (SCORES[j] - REFERENCES[j] - SCORES[i] + REFERENCES[i]))
                for j in range(6)
                if RANKS[i] < RANKS[j]
            }
            for j, e_ij in e.items():
                weight = DPO_BETA * e_ij / (1 + sum(e.values()))
                expected[i] -= weight
                expected[j] += weight
        assert gradient(term="dpo") == pytest.approx(expected, abs=1e-12)

    def test_eq_19_rrhf(self):
        """Every violated pair counts 1, however large the violation; here they are (1, 4) and (3, 4)."""
        expected = [0.0] * 6
        for i, j in strict_pairs():
            expected[i] -= SCORES[j] > SCORES[i]
            expected[j] += SCORES[j] > SCORES[i]
        assert gradient(term="rrhf") == expected == [0, -1, 0, -1, 2, 0]

    def test_eq_22_pro(self):
        """-sum_i sum_j [tau_i^max e_ij grad s_i - tau_ij e_ij grad s_j] / (1 + sum_j e_ij).

        e_ij = e^(tau_ij s_j - tau_i^max s_i).
        """
        expected = [0.0] * 6
        for i in range(6):
            tau = {j: RATINGS[i] - RATINGS[j] for j in range(6) if RANKS[i] < RANKS[j]}
            if not tau:
                continue
            tau_max = max(tau.values())
            e = {j: math.exp(tau_ij * SCORES[j] - tau_max * SCORES[i]) for j, tau_ij in tau.items()}
            z = 1 + sum(e.values())
            expected[i] -= tau_max * sum(e.values()) / z
            for j, tau_ij in tau.items():
                expected[j] += tau_ij * e[j] / z  # Eq. 23, the dynamic gradient weight
        assert gradient(term="pro") == pytest.approx(expected, abs=1e-12)

    def test_aft_without_constraint(self):
        """-sum_n E/Z for a positive, +sum_p E/Z for a negative; both sides weigh the same, less than 1."""
        positives, negatives = (0, 1, 3), (2, 4, 5)
        e = {(p, n): math.exp(SCORES[n] - SCORES[p]) for p in positives for n in negatives}
        z = 1 + sum(e.values())
        result = gradient(ranks=BINARY)
        for p in positives:
            assert result[p] == pytest.approx(-sum(e[p, n] for n in negatives) / z, abs=1e-12)
        for n in negatives:
            assert result[n] == pytest.approx(sum(e[p, n] for p in positives) / z, abs=1e-12)
        assert sum(result[n] for n in negatives) == pytest.approx(sum(e.values()) / z, abs=1e-12)
        assert sum(result[n] for n in negatives) < 1


class TestDetached:
    def test_binary_leaves_negatives_exactly_alone_and_positives_as_they_were(self):
        free, detached = gradient(ranks=BINARY), gradient(ranks=BINARY, constraint="detached")
        for index, rank in enumerate(BINARY):
            assert detached[index] == (0.0 if rank else pytest.approx(free[index], abs=1e-15))

    @pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
    def test_ranking_only_raises_and_leaves_the_lowest_rank_exactly_alone(self, term):
        result = gradient(term=term, constraint="detached")
        assert all(value <= 0 for value in result) and min(result) < 0
        assert [result[index] for index in LOWEST] == [0.0, 0.0]

    @pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
    def test_detached_lowest_changes_the_lowest_rank_only(self, term):
        free, result = gradient(term=term), gradient(term=term, constraint="detached_lowest")
        assert [result[index] for index in LOWEST] == [0.0, 0.0]
        assert any(free[index] > 0 for index in LOWEST)
        assert result[:4] == pytest.approx(free[:4], abs=1e-15)

    def test_detached_lowest_can_still_push_a_middle_rank_down(self):
        """Scores -2, -1, -9: E_01 = e pushes the middle response down, E_12 = e^-8 raises it.

        (e - e^-8)/(1 + e + e^-7 + e^-8) = (2.718282 - .000335)/3.719529 = .730723.
        """
        settings: dict[str, Any] = {"scores": (-2.0, -1.0, -9.0), "ranks": (0, 1, 2)}
        assert gradient(constraint="detached_lowest", **settings)[1] == pytest.approx(0.730723, abs=1e-6)
        assert gradient(constraint="detached", **settings)[1] < 0


class TestBoundary:
    @pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
    @pytest.mark.parametrize("beta", [-0.3, 0.0, 0.15, 0.5])
    def test_lowest_rank_is_drawn_to_the_boundary(self, term, beta):
        """Descent lowers a response of the lowest rank above B and raises it below B.

        The hinge of `rrhf` rests between B and the worst better score, so it is asked far above only.
        """
        least = min(SCORES[:4])
        away = (0.01, 0.3, 2.0) if term != "rrhf" else (2.0,)
        for distance in away:
            above = (*SCORES[:4], least - beta + distance, -0.6)
            below = (*SCORES[:4], least - beta - distance, -0.6)
            assert gradient(above, term=term, constraint="boundary", beta=beta)[4] > 0
            assert gradient(below, term=term, constraint="boundary", beta=beta)[4] < 0

    @pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
    def test_no_push_at_the_boundary(self, term):
        """s_4 = B = -1.74 - .15 = -1.89; beside it s_5 = -2.63 lies below B and is pushed up."""
        scores = (*SCORES[:4], -1.89, SCORES[5])
        result = gradient(scores, term=term, constraint="boundary", beta=0.15)
        assert result[4] == pytest.approx(0.0, abs=1e-12)
        assert result[5] < -1e-6

    @pytest.mark.parametrize("term", ["aft", "pro", "dpo"])
    def test_best_rank_is_always_raised(self, term):
        """T is a constant: were it not, the pair -.3, -1.5 would push the positive down with +.574."""
        assert gradient((-0.3, -1.5), (0, 1), term=term, constraint="boundary")[0] < 0
        assert gradient(term=term, constraint="boundary")[0] < 0

    def test_middle_rank_has_its_own_boundary(self):
        """s_1 at B_1 = s_0 - beta takes nothing from above, only the raise -E_12/Z' of its own upper role.

        Scores -1, -1.5, -3, beta = .5: B_1 = -1.5, B_2 = -2. E_01 = K_01 = e^-.5, E_02 = e^-2, K_02 = 1,
        E_12 = e^-1.5, K_12 = e^.5.
        """
        z = 1 + 2 * math.exp(-0.5) + math.exp(-2) + 1 + math.exp(-1.5) + math.exp(0.5)
        result = gradient((-1.0, -1.5, -3.0), (0, 1, 2), constraint="boundary", beta=0.5)
        assert result[1] == pytest.approx(-math.exp(-1.5) / z, abs=1e-12)

    def test_binary_weight_stays_below_one(self):
        """A negative far below B: K = e^38 outweighs all, and still the pull is less than 1."""
        result = gradient((-1.0, -1.0, -20.0), (0, 0, 1), constraint="boundary")
        assert -1 < result[2] < -0.999999

    @pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
    @pytest.mark.parametrize("beta", [300.0, math.inf])
    def test_a_boundary_out_of_reach_is_no_constraint(self, term, beta):
        free = gradient(term=term)
        assert gradient(term=term, constraint="boundary", beta=beta) == pytest.approx(free, abs=1e-12)


class TestNumericalDerivatives:
    """`gradcheck` wherever the loss is a differentiable function of what is varied."""

    @pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
    def test_without_constraint_in_all_scores(self, term):
        scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda s: loss_of(s, term=term), (scores,))

    @pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
    def test_detached_in_the_best_score(self, term):
        """The best response never stands in the lower role, so its derivative is the plain one."""
        rest = torch.tensor(SCORES[1:], dtype=torch.float64)
        best = torch.tensor(SCORES[:1], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda s: loss_of(torch.cat([s, rest]), term=term, constraint="detached"), (best,)
        )

    @pytest.mark.parametrize("term", ["aft", "rrhf", "pro", "dpo"])
    @pytest.mark.parametrize("beta", [-0.3, 0.15])
    def test_boundary_in_the_lowest_scores(self, term, beta):
        """The lowest rank enters no boundary and no T, so its derivative is the plain one."""
        rest = torch.tensor(SCORES[:4], dtype=torch.float64)
        lowest = torch.tensor(SCORES[4:], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda s: loss_of(torch.cat([rest, s]), term=term, constraint="boundary", beta=beta), (lowest,)
        )
