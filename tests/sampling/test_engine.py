"""The engine draws from the right distribution, as an independent loop without cache and batches does, row by row."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM, MambaConfig, Qwen3Config

from aft.errors import ModelError, NumericalError
from aft.sampling import engine
from aft.sampling.engine import Request, Response, generate, response_seed
from aft.sampling.settings import SamplingSettings
from aft.scoring.naive import token_logprobs

Tiny = Callable[[str], Any]
KINDS = ("llama", "gpt2", "qwen2", "mistral")
END = 1
REQUESTS = [  # prompts of very different lengths, one far longer than the sliding window, one with the padding's id
    Request("q/0", [2, 3, 4]),
    Request("q/1", [9]),
    Request("q/2", [11, 12, 0, 0, 13, 14, 15, 16, 17, 18, 19, 20, 21]),
    Request("q/3", [0, 60, 61, 62]),
    Request("q/4", [2, 3, 4]),
]


def settings(samples: int = 4, **options: Any) -> SamplingSettings:
    return SamplingSettings(samples=samples, **{"max_new_tokens": 12, **options})


def looped(model: Any, request: Request, index: int, wanted: SamplingSettings, run_seed: int, end: int) -> Response:
    """One response by itself: no cache, no padding, a forward pass over the whole row for every token, in float64."""
    seed = response_seed(run_seed, request.question_id, index)
    uniforms = torch.rand(wanted.max_new_tokens, generator=torch.Generator().manual_seed(seed)).double()
    tokens, total = [], 0.0
    for step in range(wanted.max_new_tokens):
        with torch.no_grad():
            logits_V = model(input_ids=torch.tensor([[*request.prompt, *tokens]]), use_cache=False).logits[0, -1]
        if index == -1:
            token = int(logits_V.argmax())
        else:
            heated = filtered((logits_V.double() / wanted.temperature).softmax(dim=0).numpy(), wanted)
            token = int((heated.cumsum() <= float(uniforms[step])).sum())
        tokens.append(token)
        total += float(logits_V.double().log_softmax(dim=0)[token])
        if token == end:
            return Response(index, seed, tokens, "stop", total)
    return Response(index, seed, tokens, "length", total)


def filtered(probabilities: np.ndarray, wanted: SamplingSettings) -> np.ndarray:
    """Top-k, then top-p, one token after the other from the most probable on."""
    kept: list[int] = []
    candidates = np.argsort(-probabilities, kind="stable")[: wanted.top_k]
    total = probabilities[candidates].sum()
    for token in candidates:
        if probabilities[kept].sum() / total >= (wanted.top_p or 1.0):
            break
        kept.append(int(token))
    left = np.zeros_like(probabilities)
    left[kept] = probabilities[kept] / probabilities[kept].sum()
    return left


def built(config: Any) -> Any:
    """A model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@contextmanager
def hooked(module: torch.nn.Module, hook: Callable[..., Any], **options: bool) -> Iterator[None]:
    """With `hook` on the outputs of `module`."""
    handle = module.register_forward_hook(hook, **options)
    try:
        yield
    finally:
        handle.remove()


def by_id(requests: Sequence[Request], responses: list[list[Response]]) -> dict[tuple[str, int], list[int]]:
    return {
        (request.question_id, response.sample_index): response.token_ids
        for request, answered in zip(requests, responses, strict=True)
        for response in answered
    }


def first_probabilities(model: Any, prompt: Sequence[int], temperature: float) -> np.ndarray:
    with torch.no_grad():
        logits_V = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
    return (logits_V.double() / temperature).softmax(dim=0).numpy()


def chi_square(tokens: Sequence[int], probabilities: np.ndarray) -> float:
    """The p-value that `tokens` were drawn with `probabilities`; cells with fewer than 5 expected are joined."""
    observed, expected = np.bincount(tokens, minlength=len(probabilities)), len(tokens) * probabilities
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    kept = expected > 0
    return float(stats.chisquare(observed[kept], expected[kept]).pvalue)


class TestAgainstALoop:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    def test_every_row_is_the_one_that_a_loop_draws(self, tiny_model: Tiny, kind: str, temperature: float) -> None:
        """Ragged prompts, ends at different times, greedy beside sampled: tokens equal, log-probabilities to 1e-4."""
        model, wanted = tiny_model(kind), settings(samples=5, greedy=True, temperature=temperature, max_new_tokens=20)
        responses = generate(model, REQUESTS, wanted, run_seed=3, end=END)
        for request, answered in zip(REQUESTS, responses, strict=True):
            assert [response.sample_index for response in answered] == [-1, 0, 1, 2, 3, 4]
            for response in answered:
                expected = looped(model, request, response.sample_index, wanted, 3, END)
                assert response[:4] == expected[:4]
                assert response.sum_logprob == pytest.approx(expected.sum_logprob, abs=1e-4)

    @pytest.mark.parametrize(
        "filters",
        [{"top_k": 5}, {"top_k": 1}, {"top_k": 64}, {"top_p": 0.7}, {"top_p": 1e-6}, {"top_k": 8, "top_p": 0.8}],
        ids=str,
    )
    def test_top_k_and_top_p(self, tiny_model: Tiny, filters: dict[str, Any]) -> None:
        """At a temperature that changes what top-p keeps; sums are those of the whole distribution, greedy is free."""
        model, wanted = tiny_model("llama"), settings(greedy=True, temperature=1.5, max_new_tokens=20, **filters)
        for request, answered in zip(REQUESTS, generate(model, REQUESTS, wanted, run_seed=3, end=END), strict=True):
            for response in answered:
                expected = looped(model, request, response.sample_index, wanted, 3, END)
                assert response[:4] == expected[:4]
                assert response.sum_logprob == pytest.approx(expected.sum_logprob, abs=1e-4)

    def test_normalised_queries_and_keys(self) -> None:
        """Qwen3, with a size of heads that is not hidden size over heads."""
        shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.25}
        model, wanted = built(Qwen3Config(**shape, **heads)), settings(greedy=True)
        for request, answered in zip(REQUESTS, generate(model, REQUESTS, wanted, run_seed=3, end=END), strict=True):
            for response in answered:
                assert response[:4] == looped(model, request, response.sample_index, wanted, 3, END)[:4]

    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    def test_greedy_equals_transformers(self, tiny_model: Tiny, kind: str) -> None:
        model = tiny_model(kind)
        responses = generate(model, REQUESTS, settings(0, greedy=True, max_new_tokens=24), run_seed=0, end=END)
        for request, (response,) in zip(REQUESTS, responses, strict=True):
            prompt = torch.tensor([request.prompt])
            whole = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=24,
                eos_token_id=END,
                pad_token_id=0,
            )
            assert response.token_ids == whole[0, len(request.prompt) :].tolist()

    @pytest.mark.parametrize("kind", KINDS)
    def test_sum_logprob_is_what_scoring_finds(self, tiny_model: Tiny, kind: str) -> None:
        """At temperature 0.5 too the log-probability is that of the model as it is."""
        model = tiny_model(kind)
        responses = generate(model, REQUESTS, settings(temperature=0.5), run_seed=5, end=END)
        rows = [(request.prompt, r) for request, answered in zip(REQUESTS, responses, strict=True) for r in answered]
        with torch.no_grad():
            scored = token_logprobs(model, [prompt for prompt, _ in rows], [r.token_ids for _, r in rows])
        found = torch.tensor([response.sum_logprob for _, response in rows])
        torch.testing.assert_close(found, scored.sums_R, rtol=0, atol=1e-4)

    def test_bfloat16(self, tiny_model: Tiny) -> None:
        """Ragged prompts in half precision: everything is finite and sums are those of the same weights."""
        model = copy.deepcopy(tiny_model("llama")).to(torch.bfloat16)
        responses = generate(model, REQUESTS, settings(), run_seed=5, end=END)
        rows = [(request.prompt, r) for request, answered in zip(REQUESTS, responses, strict=True) for r in answered]
        with torch.no_grad():
            scored = token_logprobs(model, [prompt for prompt, _ in rows], [r.token_ids for _, r in rows])
        found = torch.tensor([response.sum_logprob for _, response in rows])
        torch.testing.assert_close(found / scored.lengths_R, scored.scores_R, rtol=0, atol=0.1)


class TestDistribution:
    """Seeds are fixed, so these either always hold or never; 4,000 draws show a bias of a few percent."""

    @pytest.mark.parametrize("temperature", [1.0, 0.5])
    def test_the_first_token(self, tiny_model: Tiny, temperature: float) -> None:
        model, request = tiny_model("llama"), Request("q", [2, 3, 4])
        wanted = settings(4000, max_new_tokens=1, temperature=temperature)
        (answered,) = generate(model, [request], wanted, run_seed=0, end=END)
        tokens = [response.token_ids[0] for response in answered]
        probabilities = first_probabilities(model, request.prompt, temperature)
        assert chi_square(tokens, probabilities) > 0.01
        other = first_probabilities(model, request.prompt, 1.5 - temperature)
        assert chi_square(tokens, other) < 1e-6  # the test can tell the temperatures apart

    def test_the_first_token_of_a_filtered_distribution(self, tiny_model: Tiny) -> None:
        model, request = tiny_model("llama"), Request("q", [2, 3, 4])
        wanted = settings(4000, max_new_tokens=1, top_k=12, top_p=0.9)
        (answered,) = generate(model, [request], wanted, run_seed=0, end=END)
        tokens = [response.token_ids[0] for response in answered]
        whole = first_probabilities(model, request.prompt, 1.0)
        expected = filtered(whole, wanted)
        assert 3 < (expected > 0).sum() < 12
        assert set(tokens) <= set(expected.nonzero()[0])
        assert chi_square(tokens, expected) > 0.01
        assert chi_square(tokens, whole) < 1e-6

    def test_the_second_token_given_the_first(self, tiny_model: Tiny) -> None:
        """Each row goes on from its own first token: its cache is its own."""
        model, prompt = tiny_model("gpt2"), [2, 3, 4]
        (answered,) = generate(model, [Request("q", prompt)], settings(4000, max_new_tokens=2), run_seed=1, end=-1)
        firsts = [response.token_ids[0] for response in answered]
        for first in np.argsort(np.bincount(firsts))[-2:]:
            seconds = [response.token_ids[1] for response in answered if response.token_ids[0] == first]
            assert chi_square(seconds, first_probabilities(model, [*prompt, int(first)], 1.0)) > 0.01

    def test_questions_and_samples_are_drawn_independently(self, tiny_model: Tiny) -> None:
        """The same prompt under 40 ids, 50 samples each: all 2,000 first tokens together follow the softmax."""
        model, prompt = tiny_model("llama"), [7, 8]
        requests = [Request(f"q/{i}", prompt) for i in range(40)]
        responses = generate(model, requests, settings(50, max_new_tokens=1), run_seed=0, end=END)
        tokens = [response.token_ids[0] for answered in responses for response in answered]
        assert chi_square(tokens, first_probabilities(model, prompt, 1.0)) > 0.01
        firsts = [answered[0].token_ids[0] for answered in responses]
        assert len(set(firsts)) > 5  # and sample 0 is not the same in every question

    @pytest.mark.parametrize("uniform", [None, 0.0, 1 - 2**-24], ids=["drawn", "lowest", "highest"])
    def test_a_forbidden_token_is_never_drawn(
        self, tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch, uniform: float | None
    ) -> None:
        """A logit of minus infinity is probability 0, also for the first and last id, where the extremes might end."""
        model, allowed = tiny_model("llama"), [5, 6]
        if uniform is not None:
            monkeypatch.setattr(engine, "_uniforms", lambda seed, count: torch.full((count,), uniform))
        generate(model, REQUESTS[:1], settings(1, max_new_tokens=1), run_seed=0, end=END)  # the trial of the model

        def forbid(module: Any, inputs: Any, output: Any) -> Any:
            masked = torch.full_like(output, -torch.inf)
            masked[..., allowed] = output[..., allowed]
            return masked

        with hooked(model.lm_head, forbid):
            (answered,) = generate(model, [REQUESTS[0]], settings(2000, max_new_tokens=1), run_seed=0, end=END)
        drawn = {token for response in answered for token in response.token_ids}
        assert drawn == {None: {5, 6}, 0.0: {5}}.get(uniform, {6})
        assert all(np.isfinite(response.sum_logprob) for response in answered)


class TestIndependence:
    WANTED = settings(greedy=True, max_new_tokens=16)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("batch_rows", [1, 7, 10, 1000])
    def test_of_the_number_of_rows_side_by_side(self, tiny_model: Tiny, kind: str, batch_rows: int) -> None:
        model = tiny_model(kind)
        expected = by_id(REQUESTS, generate(model, REQUESTS, self.WANTED, run_seed=2, end=END))
        wanted = settings(greedy=True, max_new_tokens=16, batch_rows=batch_rows)
        assert by_id(REQUESTS, generate(model, REQUESTS, wanted, run_seed=2, end=END)) == expected

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_the_other_questions_and_their_order(self, tiny_model: Tiny, kind: str) -> None:
        model = tiny_model(kind)
        expected = by_id(REQUESTS, generate(model, REQUESTS, self.WANTED, run_seed=2, end=END))
        backwards = REQUESTS[::-1]
        assert by_id(backwards, generate(model, backwards, self.WANTED, run_seed=2, end=END)) == expected
        alone = [generate(model, [request], self.WANTED, run_seed=2, end=END)[0] for request in REQUESTS]
        assert by_id(REQUESTS, alone) == expected

    def test_of_how_many_samples_are_drawn(self, tiny_model: Tiny) -> None:
        model = tiny_model("llama")
        four = by_id(REQUESTS, generate(model, REQUESTS, settings(4), run_seed=2, end=END))
        eight = by_id(REQUESTS, generate(model, REQUESTS, settings(8, greedy=True), run_seed=2, end=END))
        assert len(eight) == len(REQUESTS) * 9
        assert {key: tokens for key, tokens in eight.items() if 0 <= key[1] < 4} == four

    def test_of_how_long_a_response_may_become(self, tiny_model: Tiny) -> None:
        """A higher limit only lengthens what was cut: the first numbers of a seed are the same."""
        model = tiny_model("llama")
        short = by_id(REQUESTS, generate(model, REQUESTS, settings(max_new_tokens=5), run_seed=2, end=END))
        long = by_id(REQUESTS, generate(model, REQUESTS, settings(max_new_tokens=30), run_seed=2, end=END))
        assert {key: tokens[:5] for key, tokens in long.items()} == short

    def test_the_run_seed_changes_samples_and_not_greedy_responses(self, tiny_model: Tiny) -> None:
        model = tiny_model("llama")
        one, other = (
            by_id(REQUESTS, generate(model, REQUESTS, self.WANTED, run_seed=seed, end=END)) for seed in (1, 2)
        )
        assert all((one[key] == other[key]) == (key[1] == -1) for key in one)

    def test_the_global_random_state_plays_no_part(self, tiny_model: Tiny) -> None:
        torch.manual_seed(1)
        one = generate(tiny_model("llama"), REQUESTS, settings(), run_seed=1, end=END)
        expected = torch.rand(3)
        torch.manual_seed(1)
        assert torch.equal(torch.rand(3), expected)
        assert generate(tiny_model("llama"), REQUESTS, settings(), run_seed=1, end=END) == one


class TestSeeds:
    def test_are_distinct_and_fit_a_signed_64_bit_column(self) -> None:
        seeds = {response_seed(run, f"q/{q}", i) for run in range(3) for q in range(40) for i in range(-1, 20)}
        assert len(seeds) == 3 * 40 * 21
        assert all(0 <= seed < 2**63 for seed in seeds)

    def test_are_the_same_in_every_release(self) -> None:
        """First 8 bytes of SHA-256("0\\x1fq\\x1f0"), big-endian, halved."""
        assert response_seed(0, "q", 0) == 5888623702344189265

    def test_the_parts_are_kept_apart(self) -> None:
        assert response_seed(1, "1q", 0) != response_seed(11, "q", 0)
        assert response_seed(1, "q", 11) != response_seed(1, "q1", 1)


class TestEnds:
    def test_an_end_as_the_first_token(self, tiny_model: Tiny) -> None:
        """With the most probable first token as the end, the greedy response is that token alone."""
        model, request = tiny_model("llama"), REQUESTS[0]
        first = int(first_probabilities(model, request.prompt, 1.0).argmax())
        (answered,) = generate(model, [request], settings(0, greedy=True), run_seed=0, end=first)
        assert (answered[0].token_ids, answered[0].finish_reason) == ([first], "stop")

    def test_one_new_token(self, tiny_model: Tiny) -> None:
        (answered,) = generate(tiny_model("llama"), REQUESTS[:1], settings(200, max_new_tokens=1), run_seed=0, end=END)
        assert all(len(response.token_ids) == 1 for response in answered)
        for response in answered:
            assert response.finish_reason == ("stop" if response.token_ids == [END] else "length")

    def test_the_end_stands_last_or_nowhere(self, tiny_model: Tiny) -> None:
        wanted = settings(60, max_new_tokens=40)
        responses = generate(tiny_model("llama"), REQUESTS, wanted, run_seed=0, end=END)
        reasons = {"stop": 0, "length": 0}
        for response in (response for answered in responses for response in answered):
            reasons[response.finish_reason] += 1
            assert END not in response.token_ids[:-1]
            assert (response.token_ids[-1] == END) == (response.finish_reason == "stop")
            assert len(response.token_ids) == 40 or response.finish_reason == "stop"
        assert min(reasons.values()) > 0

    def test_an_end_at_the_last_step_is_a_stop(self, tiny_model: Tiny) -> None:
        """The greedy third token as the end, and three tokens allowed: ended by itself, not cut."""
        model = tiny_model("llama")
        (free,) = generate(model, REQUESTS[:1], settings(0, greedy=True, max_new_tokens=3), run_seed=0, end=-1)
        third = free[0].token_ids[2]
        assert third not in free[0].token_ids[:2]
        (ended,) = generate(model, REQUESTS[:1], settings(0, greedy=True, max_new_tokens=3), run_seed=0, end=third)
        assert (ended[0].token_ids, ended[0].finish_reason) == (free[0].token_ids, "stop")

    def test_no_requests(self, tiny_model: Tiny) -> None:
        assert generate(tiny_model("llama"), [], settings(), run_seed=0, end=END) == []


class TestWork:
    """What the engine saves: prompts are read once, ended rows leave at once, others take their place."""

    @pytest.fixture
    def shapes(self, monkeypatch: pytest.MonkeyPatch, tiny_model: Tiny) -> list[tuple[int, int]]:
        model, calls = tiny_model("llama"), []
        generate(model, REQUESTS[:1], settings(1, max_new_tokens=1), run_seed=0, end=END)  # the trial of the model
        forward = model.forward

        def counted(*args: Any, **options: Any) -> Any:
            calls.append(tuple(options["input_ids"].shape))
            return forward(*args, **options)

        monkeypatch.setattr(model, "forward", counted)
        return calls

    def test_the_prompt_is_read_once(self, tiny_model: Tiny, shapes: list[tuple[int, int]]) -> None:
        """All prompts in one row, without padding."""
        generate(tiny_model("llama"), REQUESTS, settings(6, max_new_tokens=4), run_seed=0, end=-1)
        assert shapes == [(1, 3 + 1 + 13 + 4 + 3), (30, 1), (30, 1), (30, 1)]

    def test_many_prompts_are_read_some_at_a_time(
        self, tiny_model: Tiny, shapes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "_PROMPT_TOKENS", 8)
        generate(tiny_model("llama"), REQUESTS, settings(1, max_new_tokens=2), run_seed=0, end=-1)
        assert sorted(shapes, reverse=True)[0] == (5, 1)
        assert [tokens for rows, tokens in shapes if rows == 1 and tokens > 1] == [13, 4 + 3, 3 + 1]

    def test_nothing_is_computed_after_the_last_end(self, tiny_model: Tiny, shapes: list[tuple[int, int]]) -> None:
        first = int(first_probabilities(tiny_model("llama"), [9], 1.0).argmax())
        shapes.clear()
        generate(tiny_model("llama"), [REQUESTS[1]], settings(0, greedy=True, max_new_tokens=50), 0, end=first)
        assert shapes == [(1, 1)]

    @pytest.mark.parametrize(("batch_rows", "k"), [(512, 40), (24, 8), (3, 8)], ids=["all", "refilled", "fewer than k"])
    def test_rows_that_end_at_very_different_times_make_room(
        self, tiny_model: Tiny, shapes: list[tuple[int, int]], batch_rows: int, k: int
    ) -> None:
        """Most rows end within a few tokens, some go on to the limit; what those draw does not change."""
        model, wanted = tiny_model("llama"), settings(k, max_new_tokens=70, batch_rows=batch_rows)
        requests = [Request(f"{i}/{request.question_id}", request.prompt) for i in range(2) for request in REQUESTS]

        def favour_the_end(module: Any, inputs: Any, output: Any) -> Any:
            return output + 2.0 * torch.nn.functional.one_hot(torch.tensor(END), 64)

        with hooked(model.lm_head, favour_the_end):
            responses = generate(model, requests, wanted, run_seed=0, end=END)
            calls = list(shapes)
            for request, answered in zip(requests[:5], responses, strict=False):
                longest = max(answered, key=lambda response: len(response.token_ids))
                expected = looped(model, request, longest.sample_index, wanted, 0, END)
                assert longest[:4] == expected[:4]
                assert longest.sum_logprob == pytest.approx(expected.sum_logprob, abs=1e-3)
        lengths = sorted(len(response.token_ids) for answered in responses for response in answered)
        assert lengths[0] == 1 and lengths[len(lengths) // 2] < 20 and lengths[-1] > 64
        # Of a response every token but the last is read once; a prompt once for as many rows as there are slots.
        times = -(-k // batch_rows)
        prompts = sum(len(request.prompt) for request in requests) * times
        assert sum(rows * tokens for rows, tokens in calls) == prompts + sum(lengths) - len(lengths)
        assert max(rows for rows, _ in calls) <= batch_rows

    def test_slots_are_filled_while_prompts_wait(self, tiny_model: Tiny, shapes: list[tuple[int, int]]) -> None:
        """The rows of the next question come as soon as there is room for all of them."""
        requests = [Request(str(i), [9, 8]) for i in range(40)]
        wanted = settings(4, batch_rows=16, max_new_tokens=60)
        generate(tiny_model("llama"), requests, wanted, run_seed=0, end=END)
        last_prompt = max(call for call, (_, tokens) in enumerate(shapes) if tokens > 1)
        assert min(rows for rows, tokens in shapes[:last_prompt] if tokens == 1) > 16 - 4


class TestFallback:
    def test_draws_the_same(self, tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also with generation settings of the model's own, which are another person's taste."""
        model, wanted = tiny_model("llama"), settings(greedy=True, top_k=20, batch_rows=3, max_new_tokens=20)
        expected = generate(model, REQUESTS, wanted, run_seed=4, end=END)
        monkeypatch.setitem(engine._reasons, model, "it is told to")  # type: ignore[arg-type]
        monkeypatch.setattr(model.generation_config, "repetition_penalty", 3.0)
        found = generate(model, REQUESTS, wanted, run_seed=4, end=END)
        assert model.generation_config.repetition_penalty == 3.0
        assert by_id(REQUESTS, found) == by_id(REQUESTS, expected)
        for one, other in zip(found, expected, strict=True):
            assert [r[:4] for r in one] == [r[:4] for r in other]
            assert [r.sum_logprob for r in one] == pytest.approx([r.sum_logprob for r in other], abs=1e-4)

    def test_a_model_without_attention_is_told_by_name_once(self, caplog: pytest.LogCaptureFixture) -> None:
        config = MambaConfig(vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=2, initializer_range=0.5)
        model, wanted = built(config), settings(3, greedy=True, max_new_tokens=8)
        engine._tell.cache_clear()
        with caplog.at_level(logging.WARNING, logger="aft"):
            responses = [generate(model, REQUESTS, wanted, run_seed=0, end=END) for _ in range(2)][1]
        (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("aft")]
        assert told.startswith("MambaForCausalLM ") and told.endswith(".")
        for request, answered in zip(REQUESTS, responses, strict=True):
            for response in answered:
                assert response[:4] == looped(model, request, response.sample_index, wanted, 0, END)[:4]

    def test_logits_that_are_not_finite_name_the_question(
        self, tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = tiny_model("llama")
        monkeypatch.setitem(engine._reasons, model, "it is told to")  # type: ignore[arg-type]
        with (
            hooked(model.lm_head, lambda module, inputs, output: output + torch.nan),
            pytest.raises(NumericalError, match=r"q/3"),
        ):
            generate(model, [REQUESTS[3]], settings(), run_seed=0, end=END)


class TestUnknownTokens:
    """Ids that no token of the tokenizer has, as they pad a vocabulary: here 7, 13, and all from 40 on."""

    KNOWN = frozenset(range(40)) - {7, 13}

    @pytest.mark.parametrize("slots", [True, False], ids=["slots", "fallback"])
    @pytest.mark.parametrize("filters", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}], ids=str)
    def test_are_drawn_by_nobody_though_the_model_likes_them(
        self, tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch, slots: bool, filters: dict[str, Any]
    ) -> None:
        """Greedy, sampled, and where filters would leave nothing else; sums are of the model as it is, for scoring."""
        model, wanted = tiny_model("llama"), settings(20, greedy=True, **filters)
        generate(model, REQUESTS[:1], settings(1, max_new_tokens=1), run_seed=0, end=END)  # the trial of the model
        if not slots:
            monkeypatch.setitem(engine._reasons, model, "it is told to")  # type: ignore[arg-type]
        likes_V = torch.tensor([0.0 if token in self.KNOWN else 9.0 for token in range(64)])
        with hooked(model.lm_head, lambda module, inputs, output: output + likes_V):
            responses = generate(model, REQUESTS, wanted, 0, END, self.KNOWN)
            rows = [(request.prompt, r) for request, own in zip(REQUESTS, responses, strict=True) for r in own]
            with torch.no_grad():
                scored = token_logprobs(model, [prompt for prompt, _ in rows], [r.token_ids for _, r in rows])
            assert not self.KNOWN.issuperset(
                token
                for answered in generate(model, REQUESTS, wanted, 0, END)
                for r in answered
                for token in r.token_ids
            )
        assert self.KNOWN.issuperset(token for _, r in rows for token in r.token_ids)
        found = torch.tensor([response.sum_logprob for _, response in rows])
        torch.testing.assert_close(found, scored.sums_R, rtol=0, atol=1e-3)

    def test_the_known_ones_are_drawn_with_their_probabilities(self, tiny_model: Tiny) -> None:
        model, request = tiny_model("llama"), Request("q", [2, 3, 4])
        (answered,) = generate(model, [request], settings(4000, max_new_tokens=1), 0, END, self.KNOWN)
        expected = first_probabilities(model, request.prompt, 1.0)
        expected[[token for token in range(64) if token not in self.KNOWN]] = 0
        assert chi_square([response.token_ids[0] for response in answered], expected / expected.sum()) > 0.01

    @pytest.mark.parametrize("known", [range(64), range(1000)], ids=["all", "more than the model has"])
    def test_where_all_are_known_nothing_changes(self, tiny_model: Tiny, known: range) -> None:
        """Bit by bit, sums included."""
        model, wanted = tiny_model("llama"), settings(greedy=True, temperature=0.7, top_k=20, top_p=0.9)
        expected = generate(model, REQUESTS, wanted, 3, END)
        assert generate(model, REQUESTS, wanted, 3, END, known) == expected

    def test_a_model_that_gives_the_known_ones_no_probability_is_told(self, tiny_model: Tiny) -> None:
        model = tiny_model("llama")
        generate(model, REQUESTS[:1], settings(1, max_new_tokens=1), run_seed=0, end=END)  # the trial of the model
        never_V = torch.tensor([-torch.inf if token in self.KNOWN else 0.0 for token in range(64)])
        with (
            hooked(model.lm_head, lambda module, inputs, output: output + never_V),
            pytest.raises(NumericalError, match=r"q/0"),
        ):
            generate(model, REQUESTS[:1], settings(greedy=True), 0, END, self.KNOWN)


class TestRefused:
    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    @pytest.mark.parametrize("token", ["prompt", "generated"])
    def test_logits_that_are_not_finite_name_the_question(self, tiny_model: Tiny, value: float, token: str) -> None:
        """Token 50 breaks the logits after it: in a prompt at once, or when some row has drawn it."""
        model, requests = tiny_model("llama"), REQUESTS
        if token == "prompt":
            requests = [*REQUESTS[:3], Request("q/broken", [2, 50]), REQUESTS[4]]

        def break_logits(module: Any, inputs: Any, options: dict[str, Any], output: Any) -> Any:
            read = options["input_ids"]
            if "logits_to_keep" in options:  # prompts one after the other: logits follow the last token of each
                read = read[:, options["logits_to_keep"]]
            output.logits[read == 50, 8] = value
            return output

        generate(model, REQUESTS[:1], settings(1, max_new_tokens=1), run_seed=0, end=END)  # the trial of the model
        with hooked(model, break_logits, with_kwargs=True), pytest.raises(NumericalError) as caught:
            generate(model, requests, settings(20, max_new_tokens=60), run_seed=0, end=END)
        named = "q/broken" if token == "prompt" else "q/"
        assert named in str(caught.value) and str(caught.value).endswith(".")

    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    def test_more_tokens_than_positions(self, tiny_model: Tiny, kind: str) -> None:
        """The model has 128 positions, the longest prompt 13 tokens: 115 new ones fit, 116 do not."""
        model = tiny_model(kind)
        with pytest.raises(ModelError, match=r"q/2.* 13 tokens.*max_new_tokens=116.* 128 positions"):
            generate(model, REQUESTS, settings(1, max_new_tokens=116), run_seed=0, end=END)
        (answered,) = generate(model, [REQUESTS[2]], settings(1, max_new_tokens=115), run_seed=0, end=-1)
        assert len(answered[0].token_ids) == 115
