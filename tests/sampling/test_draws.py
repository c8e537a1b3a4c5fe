"""How a token is chosen: the transforms of transformers, one uniform number, and no filter where none is wanted."""

from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from aft.sampling.draws import choose
from aft.sampling.settings import SamplingSettings

CASES = [{}, {"top_k": 7}, {"top_p": 0.6}, {"top_p": 1.0}, {"top_k": 20, "top_p": 0.9}, {"top_k": 1000}]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
@pytest.mark.parametrize("filters", CASES, ids=str)
def test_follows_the_distribution_of_transformers(filters: dict[str, Any], temperature: float) -> None:
    """4,096 evenly spaced uniform numbers meet each token as often as its probability says, to a count."""
    torch.manual_seed(0)
    logits_1_V = 3 * torch.randn(1, 60)
    wanted = SamplingSettings(samples=1, temperature=temperature, **filters)
    uniform_N = (torch.arange(4096) + 0.5) / 4096
    greedy_N = torch.zeros(4096, dtype=torch.bool)
    chosen_N = choose(logits_1_V.expand(4096, -1), uniform_N, greedy_N, wanted)
    warpers: list[Any] = [TemperatureLogitsWarper(temperature)]
    if wanted.top_k:
        warpers.append(TopKLogitsWarper(wanted.top_k))
    if wanted.top_p:
        warpers.append(TopPLogitsWarper(wanted.top_p))
    ids = torch.zeros(1, 1, dtype=torch.long)
    expected_V = LogitsProcessorList(warpers)(ids, logits_1_V).double().softmax(dim=-1)[0]  # type: ignore[arg-type]
    counts_V = torch.bincount(chosen_N, minlength=60)
    assert (counts_V - 4096 * expected_V).abs().max() <= 1.01
    assert set(counts_V.nonzero().flatten().tolist()) <= set(expected_V.nonzero().flatten().tolist())


@pytest.mark.parametrize("filters", CASES, ids=str)
def test_greedy_rows_take_the_most_probable_token(filters: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits_N_V = torch.randn(50, 30)
    wanted = SamplingSettings(samples=1, greedy=True, temperature=3.0, **filters)
    greedy_N = torch.arange(50) % 2 == 0
    chosen_N = choose(logits_N_V, torch.rand(50), greedy_N, wanted)
    assert torch.equal(chosen_N[greedy_N], logits_N_V.argmax(dim=1)[greedy_N])
    assert not torch.equal(chosen_N, logits_N_V.argmax(dim=1)) or filters == {"top_k": 1}


def test_tokens_as_probable_as_the_last_of_the_top_k_stay() -> None:
    """As in transformers: which of two equal logits goes would be chance."""
    logits_N_V = torch.tensor([[2.0, 1.0, 1.0, 0.0]]).expand(100, -1)
    wanted = SamplingSettings(samples=1, top_k=2)
    chosen_N = choose(logits_N_V, torch.arange(100) / 100, torch.zeros(100, dtype=torch.bool), wanted)
    assert set(chosen_N.tolist()) == {0, 1, 2}


def test_the_extremes_of_a_large_vocabulary_are_real_tokens() -> None:
    """Never one of probability 0, though the distribution's float32 total is not exactly 1."""
    torch.manual_seed(0)
    logits_N_V = torch.full((64, 50_000), -torch.inf)
    allowed = torch.randint(100, 49_900, (64, 300))
    logits_N_V.scatter_(1, allowed, 5 * torch.randn(64, 300))
    for uniform in (0.0, 1 - 2**-24):
        chosen_N = choose(
            logits_N_V, torch.full((64,), uniform), torch.zeros(64, dtype=torch.bool), SamplingSettings(samples=1)
        )
        assert (logits_N_V.gather(1, chosen_N[:, None]) > -torch.inf).all()


@pytest.mark.parametrize(
    "extreme",
    [*({"temperature": value} for value in (5e-324, 1e-300, 1e-40, 1e-38)), {"top_p": 1e-300}, {"top_p": 1e-320}],
    ids=str,
)
def test_the_most_extreme_settings_leave_the_most_probable_token(extreme: dict[str, Any]) -> None:
    """Divided by so little, or summed up to so little, numbers leave the range of float32."""
    logits = torch.tensor([[0.0, 3.0, 1.0, -2.0], [5.0, -1.0, 4.0, 4.5]])
    drawn = choose(logits, torch.tensor([0.99, 0.01]), torch.zeros(2, dtype=torch.bool), SamplingSettings(1, **extreme))
    assert drawn.tolist() == [1, 0]
