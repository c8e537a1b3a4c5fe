"""The settings of chat prompts: they are part of the model, decide what is asked, and what of a response is learnt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aft.errors import ModelError, SettingsError
from aft.models.chat import CHAT_KEY, STYLE_KEY, ChatSettings, Turn, chat_settings, check_chat
from aft.models.directory import ModelDirectory, open_model
from aft.models.pocket import Architecture, build_model
from aft.models.publish import in_prompt_style, save_model
from aft.models.tokens import encode_question, encode_response, messages_of, unscored_tokens
from aft.pipelines.parameters import BaseModel
from aft.pipelines.training import Origin
from aft.scoring.responses import score_responses
from aft.tasks import Question, get_task
from aft.training.examples import build_examples
from aft.training.settings import Objective

# Qwen3's in short: the last answer has a thought, an empty one if need be, which `enable_thinking: false` makes a part
# of the prompt; thoughts of earlier answers are left out.
QWEN3 = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% set said = message.content.split('</think>') %}"
    "{% if message.role == 'assistant' and loop.last %}<think>\n"
    "{{ said[0].split('<think>')[-1].strip('\\n') if said | length > 1 else '' }}\n</think>\n\n"
    "{{ said[-1].lstrip('\\n') }}{% else %}{{ said[-1].lstrip('\\n') }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DATED = "{% if not date is defined %}{% set date = strftime_now('%d') %}{% endif %}{{ date }}" + QWEN3
CHAT = ChatSettings(
    system_prompt="Be brief.",
    examples=[Turn("Mia has 4 pens.", "<think>4</think>\n#### 4"), Turn("Two?", "#### 2")],
    chat_template_kwargs={"enable_thinking": False},
    question_only=True,
    learn_thoughts=False,
)


def chatting(template: str = QWEN3, chat: ChatSettings | None = None) -> Any:
    """Every byte is a token, but for the marks of ChatML and of thoughts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    whole.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    whole.add_special_tokens(["<|im_start|>", "<|im_end|>", "</think>"])
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="<|im_end|>", chat_template=template)
    if chat is not None:
        tokenizer.init_kwargs |= {STYLE_KEY: "chat", CHAT_KEY: chat.told}
    return tokenizer


@pytest.fixture
def given(tmp_path: Path) -> ModelDirectory:
    model = build_model(Architecture(hidden_size=16, intermediate_size=32, layers=1, heads=2), len(chatting()))
    save_model(model, chatting(), tmp_path / "given")
    return open_model(tmp_path / "given")


def asked(tokenizer: Any, question: Question) -> str:
    return tokenizer.decode(encode_question(tokenizer, question), skip_special_tokens=False)


def test_all_that_is_set_is_in_the_prompt(pocket_questions: list[Question]) -> None:
    question = pocket_questions[0]
    assert asked(chatting(chat=CHAT), question) == chatting().apply_chat_template(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Mia has 4 pens."},
            {"role": "assistant", "content": "\n#### 4"},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "#### 2"},
            {"role": "user", "content": question.question},
        ],
        add_generation_prompt=True,
        tokenize=False,
        enable_thinking=False,
    )


def test_examples_are_asked_as_the_question_is(pocket_questions: list[Question]) -> None:
    """In the prompt of the family, where the question alone is not asked for; a question alone has its options."""
    question = pocket_questions[0]
    whole = asked(chatting(chat=ChatSettings(examples=[Turn("Two?", "#### 2")])), question)
    prompts = [get_task("pocket").prompt(replace(question, question=text)) for text in ("Two?", question.question)]
    assert all(f"<|im_start|>user\n{prompt}<|im_end|>" in whole for prompt in prompts)
    options = asked(chatting(chat=ChatSettings(question_only=True)), replace(question, choices=("one", "two")))
    assert f"<|im_start|>user\n{question.question}\n(A) one\n(B) two<|im_end|>" in options


def test_an_example_stands_in_the_prompt_that_a_file_of_questions_brings() -> None:
    """Its own question, not once more the one that is asked."""
    own = ("Three?", None, "", "3", "0", "Solve: Three? Go.")
    question = Question("jsonl/1", "jsonl/number/hashes", "train", *own)
    messages = messages_of(chatting(chat=ChatSettings(examples=[Turn("Two?", "#### 2")])), question)
    assert [one["content"] for one in messages] == ["Solve: Two? Go.", "#### 2", "Solve: Three? Go."]


def test_they_are_part_of_the_model(given: ModelDirectory, pocket_questions: list[Question], tmp_path: Path) -> None:
    """Saved with it, in its fingerprint, on its card, kept by whatever is trained from it; the defaults are not."""
    plain, chat = (in_prompt_style(given, "chat", tmp_path / "cache", settings) for settings in (ChatSettings(), CHAT))
    assert CHAT_KEY not in plain.tokenizer().init_kwargs and plain == in_prompt_style(given, "chat", tmp_path / "cache")
    assert len({given.fingerprint, plain.fingerprint, chat.fingerprint}) == 3
    assert chat_settings(chat.tokenizer()) == CHAT and chat_settings(plain.tokenizer()) == ChatSettings()
    assert in_prompt_style(chat, "chat", tmp_path / "cache", CHAT) is chat
    assert chat_settings(in_prompt_style(chat, "chat", tmp_path / "cache").tokenizer()) == ChatSettings()
    save_model(chat.model(), chat.tokenizer(), tmp_path / "trained")
    assert chat_settings(open_model(tmp_path / "trained").tokenizer()) == CHAT
    told = Origin("mine", chat).provenance(["pocket"], "chat", CHAT)
    from aft.models.card import model_card

    card = model_card({"kind": "model"}, told)
    assert "## Chat prompt" in card and "| `system_prompt` | `Be brief.` |" in card
    assert "| `chat_template_kwargs.enable_thinking` | `false` |" in card and "Mia has 4 pens." in card


@pytest.mark.parametrize(
    ("template", "chat"),
    [
        (QWEN3, ChatSettings()),  # an answer begins with its thought
        (QWEN3, CHAT),
        (DATED, ChatSettings(chat_template_kwargs={"date": "1 May 2025"})),
    ],
)
def test_a_template_that_thinks(template: str, chat: ChatSettings) -> None:
    check_chat(chatting(template), "it", chat)


@pytest.mark.parametrize(
    ("template", "chat", "told"),
    [
        (QWEN3, ChatSettings(chat_template_kwargs={"enable_thinkin": False}), "'enable_thinkin'"),
        (QWEN3, ChatSettings(chat_template_kwargs={"tokenize": False}), "'tokenize'"),
        (DATED, ChatSettings(), "strftime_now"),
        (QWEN3.replace("said[-1].lstrip('\\n') }}{% endif", "'' }}{% endif"), CHAT, "leaves out"),
        (
            "{{ raise_exception('No system, please') if messages[0].role == 'system' }}" + QWEN3,
            *(ChatSettings(system_prompt="Be brief."), "No system"),
        ),
    ],
)
def test_settings_that_the_template_does_not_take(template: str, chat: ChatSettings, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        check_chat(chatting(template), "it", chat)


def test_settings_of_the_chat_need_the_style() -> None:
    with pytest.raises(SettingsError, match=r"base_model.chat.question_only needs base_model.prompt_style: chat"):
        BaseModel("model", chat=ChatSettings(question_only=True))
    with pytest.raises(SettingsError, match="did you mean 'system_prompt'"):
        ChatSettings(system_promt="x")  # type: ignore[call-arg]


NOT_LEARNT = [  # response, what is neither imitated nor scored
    ("a b", ""),
    ("<think>\na </think>\n\n#### 4", "<think>\na </think>"),
    ("<think>a</think> b <think>c</think>#### 4", "<think>a</think> b <think>c</think>"),
    ("<think>a #### 4", ""),
    ("a</think>", "a</think>"),
]


@pytest.mark.parametrize(("response", "not_learnt"), NOT_LEARNT)
def test_thoughts_that_are_not_learnt(response: str, not_learnt: str) -> None:
    tokenizer = chatting(chat=CHAT)
    ids = encode_response(tokenizer, response)
    count = unscored_tokens(tokenizer, ids)
    assert tokenizer.decode(ids[:count], skip_special_tokens=False) == not_learnt
    assert unscored_tokens(chatting(chat=ChatSettings()), ids) == 0
    if count:
        assert unscored_tokens(tokenizer, ids[:count]) == count - 1, "one token at least is scored"


def test_training_and_scoring_leave_out_the_same_tokens(
    given: ModelDirectory, pocket_questions: list[Question], tmp_path: Path, naive_score: Callable[..., float]
) -> None:
    question = replace(pocket_questions[0], reference="<think>a\n</think>\n\n#### 4")
    learning, leaving = (
        in_prompt_style(given, "chat", tmp_path / "cache", chat) for chat in (replace(CHAT, learn_thoughts=True), CHAT)
    )
    ids = encode_response(leaving.tokenizer(), question.reference)
    import pandas as pd

    rows = pd.DataFrame([{"question_id": question.question_id, "sample_index": 0, "token_ids": ids}])
    for model, counted in ((learning, len(ids)), (leaving, len(ids) - 10)):
        tokenizer = model.tokenizer()
        (example,) = build_examples([question], [], tokenizer, Objective(), 500)
        assert example.target_lengths == [counted]
        (score,) = score_responses(
            *(model, rows, {question.question_id: question}, "float32", tmp_path / "scores"), token_budget=999
        )
        prompt, first = encode_question(tokenizer, question), len(ids) - counted
        assert score == pytest.approx(naive_score(model.model(), [*prompt, *ids[:first]], ids[first:]), abs=1e-5)


@pytest.fixture
def naive_score() -> Callable[..., float]:
    """The mean log-probability of some tokens after others, by one plain forward pass."""

    @torch.no_grad()
    def score(model: Any, before: list[int], after: list[int]) -> float:
        logits = model(torch.tensor([[*before, *after]])).logits[0, len(before) - 1 : -1]
        return float(logits.log_softmax(-1).gather(1, torch.tensor(after)[:, None]).mean())

    return score


def test_log_probabilities_of_whole_samples_are_refused(pocket_questions: list[Question]) -> None:
    tokenizer, question = chatting(chat=CHAT), pocket_questions[0]
    feedback = [
        {
            **{"question_id": question.question_id, "rank": int(not right), "is_correct": right, "rating_rank": 0},
            **{"token_ids": encode_response(tokenizer, f"a</think>#### {right:d}"), "sum_logprob": -3.0},
        }
        for right in (True, False)
    ]
    with pytest.raises(SettingsError, match="learn_thoughts"):
        build_examples([question], feedback, tokenizer, Objective(term="gspo"), 500)
    (example,) = build_examples([question], feedback, tokenizer, Objective(term="aft"), 500)
    assert example.unscored == [0, 2, 2] and example.lengths == [len(row["token_ids"]) - 2 for row in feedback]
