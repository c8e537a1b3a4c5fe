"""Tiny models of today's families, made by their own configuration classes, through all that is done with a model.

What differs between them is in the table: norms of queries and keys, soft caps, sliding windows, layers without
positions, vocabularies with padding, several end-of-sequence tokens, tokenizers without a token that pads or begins.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from aft.models.directory import ModelDirectory, open_model
from aft.models.publish import save_model
from aft.models.tokens import decode_response, encode_prompt, encode_response, end_tokens, known_tokens
from aft.sampling import engine
from aft.sampling.run import sample_responses
from aft.sampling.settings import SamplingSettings
from aft.scoring import paths
from aft.scoring.groups import Group
from aft.tasks import Question, get_task
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import train
from aft.training.settings import Objective, TrainingSettings

SHAPE = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 8},
    **{"num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3},
}
HALVES = ["sliding_attention", "full_attention"] * 2


class Family(NamedTuple):
    """How a model of a family differs from the others: its type, configuration and tokenizer."""

    model_type: str
    config: Mapping[str, Any] = MappingProxyType({})
    padded: int = 0  # ids of the vocabulary beyond the tokenizer's
    ends: tuple[str, ...] = ("<|end|>",)  # the tokenizer's, then others that the model names
    begins: bool = False  # the tokenizer opens with a token
    pads: bool = True  # it has a token that pads
    slow: str | None = None  # why no fast path serves it


FAMILIES = {
    "llama-3": Family(
        "llama",
        {
            "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
            | {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
        },
        ends=("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
        begins=True,
        pads=False,
    ),
    "qwen2.5": Family("qwen2", {"tie_word_embeddings": True}, padded=271, ends=("<|im_end|>", "<|endoftext|>")),
    "qwen3": Family("qwen3", {"tie_word_embeddings": True}, padded=267, ends=("<|im_end|>", "<|endoftext|>")),
    "smollm2": Family("llama", {"tie_word_embeddings": True, "rope_theta": 1e5}, begins=False),
    "smollm3": Family("smollm3", {"no_rope_layer_interval": 4, "tie_word_embeddings": True, "pad_token_id": None}),
    "gemma-3": Family(
        "gemma3_text",
        {"sliding_window": 16, "layer_types": HALVES, "query_pre_attn_scalar": 8},
        padded=64,
        ends=("<eos>", "<end_of_turn>"),
        begins=True,
    ),
    "gemma-2": Family(
        "gemma2",
        {"sliding_window": 16, "layer_types": HALVES, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0},
        begins=True,
        slow="its attention is more than scaled dot products",
    ),
    "phi-4-mini": Family(
        "phi3",
        {"partial_rotary_factor": 0.75, "original_max_position_embeddings": 512, "pad_token_id": None},
        ends=("<|end|>", "<|endoftext|>"),
        pads=False,
    ),
    "phi-4-mini, long": Family(
        "phi3",
        {
            **{"original_max_position_embeddings": 32, "pad_token_id": None},
            "rope_parameters": {
                **{"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32},
                **{"long_factor": [4.0] * 4, "short_factor": [1.0] * 4},
            },
        },
        slow="its rotary positions depend on the length of the input",
    ),
    "olmo-2": Family("olmo2", {"pad_token_id": None}, padded=76, pads=False),
    "mistral": Family("mistral", {"sliding_window": 16}, begins=True, pads=False),
    "mistral-nemo": Family("mistral", {"sliding_window": None}, begins=True, pads=False),
}
FAST = [name for name, family in FAMILIES.items() if family.slow is None]
SLOW = [name for name, family in FAMILIES.items() if family.slow is not None]


def tokenizer_of(family: Family) -> Any:
    """Every byte is a token, beside the special ones."""
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    whole = Tokenizer(models.BPE(letters, []))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    whole.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    marks = [*family.ends, *(["<begin>"] if family.begins else []), *(["<pad>"] if family.pads else [])]
    whole.add_special_tokens(marks)
    options: dict[str, Any] = {"eos_token": family.ends[0]}
    if family.begins:
        options["bos_token"] = "<begin>"
        opening = processors.TemplateProcessing(
            single="<begin> $A", special_tokens=[("<begin>", whole.token_to_id("<begin>"))]
        )
        whole.post_processor = opening  # type: ignore[assignment]
    if family.pads:
        options["pad_token"] = "<pad>"
    return PreTrainedTokenizerFast(tokenizer_object=whole, **options)


@cache
def _made(name: str) -> tuple[Any, Any]:
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    ends = [tokenizer.convert_tokens_to_ids(end) for end in family.ends]
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ends if len(ends) > 1 else ends[0]}
    given = {**SHAPE, **ids, "pad_token_id": tokenizer.pad_token_id, **family.config}
    config = AutoConfig.for_model(family.model_type, vocab_size=len(tokenizer) + family.padded, **given)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for weights in model.parameters():  # norms, too, which begin with ones or zeros
            if weights.dim() == 1:
                torch.nn.init.normal_(weights, 0.5, 0.2)
    return model, tokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def directory(name: str, tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    model, tokenizer = _made(name)
    folder = tmp_path_factory.mktemp("model")
    save_model(model, tokenizer, folder)
    return open_model(folder)


@pytest.fixture(autouse=True)
def _told_anew() -> Iterator[None]:
    engine._tell.cache_clear()
    yield


def prompts_of(directory: ModelDirectory, questions: list[Question]) -> list[list[int]]:
    tokenizer = directory.tokenizer()
    return [encode_prompt(tokenizer, get_task("pocket").prompt(question)) for question in questions]


def test_a_save_keeps_all_that_the_model_says(name: str, directory: ModelDirectory) -> None:
    """Weights, token ids of its ends, and the vocabulary with its padding."""
    (made, tokenizer), loaded = _made(name), directory.model()
    ids = torch.arange(30)[None] * 7 % len(tokenizer)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, made(ids).logits)
    ends = end_tokens(directory.tokenizer(), loaded.generation_config)
    assert ends == directory.end_tokens() == set(map(tokenizer.convert_tokens_to_ids, FAMILIES[name].ends))
    again = directory.tokenizer()
    assert again.get_vocab() == tokenizer.get_vocab() and (again.pad_token is None) == (not FAMILIES[name].pads)
    assert loaded.config.vocab_size == len(known_tokens(again)) + FAMILIES[name].padded


def test_a_prompt_and_a_response_meet(name: str, directory: ModelDirectory) -> None:
    tokenizer, family = directory.tokenizer(), FAMILIES[name]
    assert tokenizer.decode(encode_prompt(tokenizer, "2 + 2?\n")) == ("<begin>" if family.begins else "") + "2 + 2?\n"
    response = encode_response(tokenizer, "#### 4")
    assert len(response) == 7 and response[-1] == tokenizer.convert_tokens_to_ids(family.ends[0])
    assert decode_response(tokenizer, response) == "#### 4"


def test_greedy_answers_are_those_of_generate(
    name: str, directory: ModelDirectory, pocket_questions: list[Question], tmp_path: Path, monkeypatch: Any
) -> None:
    """Whichever of its ends a model writes ends a response, and is no part of its text; what pads is never drawn.

    Each of the ends in turn is made the most probable token wherever the logit of some letter is above 0.
    """
    import pandas as pd

    settings, questions = SamplingSettings(samples=0, greedy=True, max_new_tokens=24), pocket_questions[:4]
    load, tokenizer = ModelDirectory.model, directory.tokenizer()
    padding = [one for one in range(directory.config().vocab_size) if one not in known_tokens(tokenizer)]
    reasons, ends = [], tokenizer.convert_tokens_to_ids(list(FAMILIES[name].ends))
    for end in ends:  # type: ignore[union-attr]

        def favour(_: Any, __: Any, logits: torch.Tensor, end: int = end) -> None:
            favoured = (logits[..., 5] > 0) | (logits.argmax(-1) % 2 == 1)  # here and there
            logits[..., end] = logits.amax(-1) + torch.where(favoured, 1.0, -1.0)

        def loaded(source: ModelDirectory, dtype: str = "float32", favour: Any = favour) -> Any:
            model = load(source, dtype)
            model.get_output_embeddings().register_forward_hook(favour)  # type: ignore[union-attr]
            return model

        with monkeypatch.context() as patch:
            patch.setattr(ModelDirectory, "model", loaded)
            model = directory.model()
            rows = pd.read_parquet(
                sample_responses(directory, questions, settings, 0, tmp_path / str(end), "sample")[0]
            )
        for row, prompt in zip(rows.to_dict("records"), prompts_of(directory, questions), strict=True):
            ids, more = torch.tensor([prompt]), {"suppress_tokens": padding} if padding else {}
            whole = model.generate(  # type: ignore[operator]
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, pad_token_id=0, **more
            )
            expected = whole[0, len(prompt) :].tolist()
            assert row["token_ids"].tolist() == expected
            stopped = expected[-1] in ends  # type: ignore[operator]
            assert row["finish_reason"] == ("stop" if stopped else "length")
            assert row["response"] == tokenizer.decode(expected[:-1] if stopped else expected)
            reasons.append((end, expected[-1]))
    assert all((end, end) in reasons for end, _ in reasons), "an end that is never written"


def test_scores_of_groups_are_the_naive_ones(
    name: str, directory: ModelDirectory, pocket_questions: list[Question], caplog: pytest.LogCaptureFixture
) -> None:
    """To 1e-5 in float32, on the path that is chosen by itself; prompts outgrow the windows."""
    model, tokenizer, family = directory.model(), directory.tokenizer(), FAMILIES[name]
    groups = [
        Group(prompt, [encode_response(tokenizer, text) for text in (question.reference, "#### 4", question.reference)])
        for question, prompt in zip(pocket_questions[:4], prompts_of(directory, pocket_questions), strict=False)
    ]
    with caplog.at_level(logging.WARNING, "aft"):
        path = paths.choose_path(model, "auto")
    assert path == ("shared" if family.slow is None else "naive")
    told = [message for message in caplog.messages if "naive path" in message]
    assert all(type(model).__name__ in message and str(family.slow) in message for message in told)
    assert len(told) == (family.slow is not None)
    with paths.mode(model, path):
        found = paths.score(model, path, groups, 10_000)
        split = paths.score(model, path, groups, 60)
    expected = paths.score(model, "naive", groups, 10_000)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(split, expected, rtol=1e-5, atol=1e-5)


def test_a_step_is_trained_and_what_it_gives_is_loaded(
    name: str, directory: ModelDirectory, pocket_questions: list[Question], tmp_path: Path
) -> None:
    """AFT with the boundary constraint; the path that is chosen gives the weights of the naive one."""
    tokenizer = directory.tokenizer()
    examples = [
        Example(
            question.question_id,
            prompt,
            [encode_response(tokenizer, question.reference)],
            [encode_response(tokenizer, text) for text in (question.reference, "#### 4", "no")],
            [0, 1, 1],
        )
        for question, prompt in zip(pocket_questions[:4], prompts_of(directory, pocket_questions), strict=False)
    ]
    trained = []
    for scoring in ("auto", "naive"):
        settings = TrainingSettings(1, 1e-3, 4, scoring=scoring, optimizer="sgd", warmup=0.0, monitor_every=None)
        boundary = Objective(term="aft", constraint="boundary")
        made = train(directory, Job(examples, settings, boundary, 0, "t"), tmp_path / scoring)
        assert len(made.curve) == 1 and made.curve[0]["alignment_term"] > 0
        trained.append(made.directory)
    one, other = (made.model().state_dict() for made in trained)
    before = directory.model().state_dict()
    for weights, value in one.items():
        torch.testing.assert_close(value, other[weights], rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(value, before[weights]) for weights, value in one.items())
    ends = json.loads((trained[0].path / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    assert ends == json.loads((directory.path / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]


@pytest.mark.parametrize("name", SLOW, indirect=True)
def test_what_no_fast_path_serves_is_named_and_sampled_all_the_same(
    name: str,
    directory: ModelDirectory,
    pocket_questions: list[Question],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = SamplingSettings(samples=2, max_new_tokens=4)
    with caplog.at_level(logging.WARNING, "aft"):
        shards = sample_responses(directory, pocket_questions[:3], settings, 0, tmp_path, "sample")
    (told,) = [message for message in caplog.messages if "its own generate" in message]
    assert str(FAMILIES[name].slow) in told and len(shards) == 1
