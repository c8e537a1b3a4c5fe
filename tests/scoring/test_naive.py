"""The naive path equals an independent loop over single tokens, and nothing but a row's own tokens counts."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.scoring.naive import token_logprobs

Tiny = Callable[[str], Any]
KINDS = ("llama", "gpt2", "qwen2", "mistral")
RAGGED = [  # prompts of 1 to 9 tokens, responses of 1 to 11 (the sliding window is 6), two equal rows, ids of 0
    ([2, 3, 4], [5, 6, 7, 8, 1]),
    ([9], [10]),
    ([11, 12, 0, 0, 13, 14, 15, 16, 17], [18, 0, 19, 20, 21, 22, 23, 24, 25, 26, 1]),
    ([2, 3, 4], [1]),
    ([2, 3, 4], [5, 6, 7, 8, 1]),
    ([60, 61], [62, 63, 62, 63, 62, 63, 62]),
]

rows = st.lists(
    st.tuples(*[st.lists(st.integers(0, 63), min_size=1, max_size=9)] * 2),
    min_size=1,
    max_size=4,
)


def loop_logprobs(model: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
    """log P of each response token: one forward pass per token over exactly what stands before it, no padding."""
    logprobs = []
    for i, token in enumerate(response):
        logits_V = model(input_ids=torch.tensor([prompt + response[:i]]), use_cache=False).logits[0, -1]
        logprobs.append(logits_V[token] - torch.logsumexp(logits_V, dim=0))
    return torch.stack(logprobs)


def scored(model: Any, pairs: list[tuple[list[int], list[int]]]) -> Any:
    return token_logprobs(model, [prompt for prompt, _ in pairs], [response for _, response in pairs])


@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_loop_over_single_tokens(tiny_model: Tiny, kind: str) -> None:
    model = tiny_model(kind)
    with torch.no_grad():
        together = scored(model, RAGGED)
        for row, (prompt, response) in enumerate(RAGGED):
            expected_C = loop_logprobs(model, prompt, response)
            found_C = together.logprobs_R_C[row, : len(response)]
            torch.testing.assert_close(found_C, expected_C, rtol=1e-6, atol=5e-6)
            torch.testing.assert_close(together.scores_R[row], expected_C.mean(), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(together.sums_R[row], expected_C.sum(), rtol=1e-6, atol=1e-5)
            assert not together.logprobs_R_C[row, len(response) :].any()
    assert together.lengths_R.tolist() == [len(response) for _, response in RAGGED]
    assert together.mask_R_C.sum(dim=1).tolist() == together.lengths_R.tolist()
    assert together.logprobs_R_C.dtype == torch.float32 and (together.scores_R <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_those_of_the_loop(tiny_model: Tiny, kind: str) -> None:
    """A weighted sum of scores, so that a gradient of the wrong row would show."""
    model = tiny_model(kind)
    weights_R = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.5, 0.25])

    def gradients(scores_R: torch.Tensor) -> list[torch.Tensor]:
        parameters = [weights for weights in model.parameters() if weights.requires_grad]
        return list(torch.autograd.grad((weights_R * scores_R).sum(), parameters))

    together = gradients(scored(model, RAGGED).scores_R)
    looped = gradients(torch.stack([loop_logprobs(model, *pair).mean() for pair in RAGGED]))
    for found, expected in zip(together, looped, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(pairs=rows)
def test_a_row_does_not_depend_on_its_neighbours(tiny_model: Tiny, kind: str, pairs: Any) -> None:
    """Padding, order and neighbours change nothing but the rounding."""
    model = tiny_model(kind)
    with torch.no_grad():
        together = scored(model, pairs).scores_R
        backwards = scored(model, pairs[::-1]).scores_R.flip(0)
        alone = torch.cat([scored(model, [pair]).scores_R for pair in pairs])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(backwards, alone, rtol=1e-6, atol=2e-6)


def test_uniform_logits_score_the_logarithm_of_the_vocabulary(tiny_model: Tiny) -> None:
    """By hand: with all output weights 0, P = 1/64 for every token, so s = -log 64, whatever the length."""
    model = tiny_model("llama")
    before = model.lm_head.weight.data.clone()
    try:
        model.lm_head.weight.data.zero_()
        with torch.no_grad():
            scores_R = scored(model, RAGGED).scores_R
    finally:
        model.lm_head.weight.data.copy_(before)
    torch.testing.assert_close(scores_R, torch.full((len(RAGGED),), -math.log(64)))


def test_bfloat16_weights_still_give_float32_probabilities(tiny_model: Tiny) -> None:
    """The log-softmax is taken in float32: all probabilities of a token sum to 1 to 1e-6, which needs it."""
    model = copy.deepcopy(tiny_model("llama")).to(torch.bfloat16)
    with torch.no_grad():
        logprobs = scored(model, [([2, 3], [token]) for token in range(64)])
    assert logprobs.logprobs_R_C.dtype == torch.float32
    assert float(logprobs.sums_R.double().exp().sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_token_probabilities_sum_to_one(tiny_model: Tiny, kind: str) -> None:
    with torch.no_grad():
        sums_R = scored(tiny_model(kind), [([2, 3, 4], [token]) for token in range(64)]).sums_R
    assert float(sums_R.double().exp().sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("pairs", [[([2], [])], [([], [2])], [([2, 3], [4]), ([2, 3], [])], [([], [])]])
def test_a_row_without_a_prompt_or_response_is_refused(tiny_model: Tiny, pairs: Any) -> None:
    with pytest.raises(ValueError, match="without tokens"):
        scored(tiny_model("llama"), pairs)


def test_prompts_and_responses_must_pair_up(tiny_model: Tiny) -> None:
    with pytest.raises(ValueError, match="shorter"):
        token_logprobs(tiny_model("llama"), [[2], [3]], [[4]])


def test_token_ids_from_a_table_are_arrays(tiny_model: Tiny) -> None:
    """Parquet gives arrays; one with the single id 0 is no empty response."""
    prompts: Any = [np.array([2, 3])] * 2
    responses: Any = [np.array([0]), np.array([4, 1])]
    with torch.no_grad():
        from_arrays = token_logprobs(tiny_model("llama"), prompts, responses)
        from_lists = token_logprobs(tiny_model("llama"), [[2, 3]] * 2, [[0], [4, 1]])
    assert torch.equal(from_arrays.logprobs_R_C, from_lists.logprobs_R_C)
