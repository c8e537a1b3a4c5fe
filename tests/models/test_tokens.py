"""Prompt and response meet at the same place in training, sampling and scoring, whatever the tokenizer adds."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from aft.errors import ModelError
from aft.models.chat import STYLE_KEY, check_chat
from aft.models.tokens import decode_response, encode_prompt, encode_response, end_token
from aft.tasks import Question, get_task

VOCABULARY = {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4, " ": 5, "1": 6, "11": 7}


def merging(template: str | None = None, **options: Any) -> PreTrainedTokenizerFast:
    """A BPE tokenizer that merges a+b and 1+1, and adds special tokens as `template` says."""
    tokenizer = Tokenizer(models.BPE(VOCABULARY, [("a", "b"), ("1", "1")]))
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **options)


TEMPLATES = {None: [], "$A": [], "<s> $A": [0], "$A </s>": [], "<s> $A </s>": [0]}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_opens_and_a_response_ends_whatever_the_tokenizer_adds(template: str | None) -> None:
    """ "ab" is one token, but apart it is 2 and 3: the boundary stays where the prompt ends."""
    tokenizer = merging(template)
    assert tokenizer("ab", add_special_tokens=False)["input_ids"] == [4]
    assert encode_prompt(tokenizer, "a") == [*TEMPLATES[template], 2]
    assert encode_response(tokenizer, "b") == [3, 1]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_response_comes_back(template: str | None) -> None:
    tokenizer = merging(template)
    assert decode_response(tokenizer, encode_response(tokenizer, "ab 11b")) == "ab 11b"
    assert decode_response(tokenizer, encode_response(tokenizer, "")) == ""
    assert decode_response(tokenizer, []) == ""


def test_a_cut_response_keeps_its_last_token() -> None:
    tokenizer = merging()
    assert decode_response(tokenizer, [2, 3]) == "ab"
    assert decode_response(tokenizer, [2, 3, 1]) == "ab"


def test_special_tokens_inside_a_response_are_shown() -> None:
    """They are part of what the model said; only the one that ends it is not."""
    tokenizer = merging()
    assert decode_response(tokenizer, [2, 0, 3, 1]) == "a<s>b"
    assert decode_response(tokenizer, [2, 1, 1]) == "a</s>"


def test_the_text_is_not_cleaned_up() -> None:
    """Tokenizers of some models (Llama 3) ask for "5 ." to become "5.", which is not what was generated."""
    tokens = {token: i for i, token in enumerate(["</s>", "5", " .", " 's"])}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ?[^ ]+", "isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    cleaning = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", clean_up_tokenization_spaces=True)
    assert cleaning.decode([1, 2, 3], skip_special_tokens=False) == "5.'s"  # what cleaning up would make of it
    assert decode_response(cleaning, [1, 2, 3, 0]) == "5 . 's"


def test_a_prompt_of_one_token_that_also_ends_sequences() -> None:
    """GPT-2 opens and ends with the same token; an opening one is kept."""
    tokenizer = merging("<s> $A")
    tokenizer.eos_token = "<s>"
    assert end_token(tokenizer) == 0
    assert encode_prompt(tokenizer, "a") == [0, 2]


def test_pocket_questions(pocket_tokenizer: Any, pocket_questions: list[Question]) -> None:
    for question in pocket_questions:
        prompt = encode_prompt(pocket_tokenizer, get_task("pocket").prompt(question))
        response = encode_response(pocket_tokenizer, question.reference)
        assert prompt[0] == pocket_tokenizer.bos_token_id
        assert response.count(end_token(pocket_tokenizer)) == 1 and response[-1] == end_token(pocket_tokenizer)
        assert decode_response(pocket_tokenizer, response) == question.reference


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chatting(template: str | None = CHATML, style: str = "chat", eos_token: str = "<|im_end|>") -> Any:
    """A BPE tokenizer that merges a+b, and a line break with an a after it; by itself it opens with `<s>`."""
    words = {"<s>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "user": 3, "assistant": 4}
    pieces = {"\n": 5, "a": 6, "b": 7, "ab": 8, "\na": 9}
    tokenizer = Tokenizer(models.BPE({**words, **pieces}, [("\n", "a"), ("a", "b")]))
    tokenizer.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["user", "assistant"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])  # type: ignore[assignment]
    options: dict[str, Any] = {STYLE_KEY: style, "eos_token": eos_token, "chat_template": template}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", **options)


LLAMA_3 = (
    "<s>{% for message in messages %}<|im_start|>{{ message['role'] }}\n\n{{ message['content'] | trim }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
OPENING = {
    "ChatML": CHATML,
    "Llama 3": LLAMA_3,
    "Mistral": (  # with a blank that the prompt lacks
        "<s>{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
        "{% else %} {{ message['content'] }}<|im_end|>{% endif %}{% endfor %}"
    ),
    "no roles": "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}",
    "without earlier thoughts": CHATML.replace("['content']", "['content'].split('</think>')[-1].lstrip('\\n')"),
}
NOT_OPENING = {
    "no generation prompt": (CHATML.partition("{% if add")[0], r"writes '<|im_start|>assistant\n' between"),
    "the prompt is an ended turn": (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}<|im_end|>{% endfor %}",
        "writes 'assistant: ' between",
    ),
    "another role": (CHATML.replace("<|im_start|>assistant", "<|im_start|>model"), r"ends a prompt with 'model\n'"),
    "a thought is opened": (
        CHATML.replace("assistant\n{%", "assistant\n<think>\n{%"),
        r"ends a prompt with '<think>\n'",
    ),
    "a conversation has a thought": (
        CHATML.replace(
            "{{ message['content']",
            "{% if message['role'] != 'user' %}<think>\n\n</think>\n\n{% endif %}{{ message['content']",
        ),
        r"writes '<think>\n\n</think>\n\n' between",
    ),
    "the answer is changed": (CHATML.replace("['content']", "['content'] | upper"), "leaves out"),
    "the answer is cut": (CHATML.replace("['content']", "['content'].split('\\n')[0]"), "leaves out"),
    "the date": (CHATML.replace("{% if add", "{{ strftime_now('%d %b %Y') }}{% if add"), "strftime_now"),
}


class TestChat:
    def test_a_prompt_is_the_message_of_a_user_and_opens_the_answer(self) -> None:
        """<|im_start|> user \n a b... : "\na" and "ab" would both be one token; "\na" is merged first.

        The template writes "user\nab", whose pieces are \na (9) and b (7); nothing is added before <|im_start|>.
        """
        assert encode_prompt(chatting(), "ab") == [1, 3, 9, 7, 2, 5, 1, 4, 5]
        assert encode_prompt(chatting(style="plain"), "ab") == [0, 8]

    def test_the_boundary_does_not_move(self) -> None:
        """The prompt ends with a line break (5) and the response begins with an a: together they would be token 9."""
        tokenizer = chatting()
        assert tokenizer("\nab", add_special_tokens=False)["input_ids"] == [9, 7]
        assert [*encode_prompt(tokenizer, "b"), *encode_response(tokenizer, "ab")] == [
            *(1, 3, 5, 7, 2, 5, 1, 4, 5),
            *(8, 2),
        ]

    def test_a_template_without_an_opening_may_end_with_the_end_token(self) -> None:
        """Nothing is taken away from what the template says."""
        template = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"
        assert encode_prompt(chatting(template), "b") == [7, 2]

    @pytest.mark.parametrize("end", ["<|im_end|>", " <|im_end|>", "\n<|im_end|>\n"])
    def test_a_template_that_ends_answers_with_the_end_token(self, end: str) -> None:
        check_chat(chatting(CHATML.replace("<|im_end|>\n{% endfor", f"{end}{{% endfor")), "it")

    @pytest.mark.parametrize(
        ("tokenizer", "told"),
        [
            (chatting(None), ["no chat template", "prompt_style", "plain"]),
            (chatting(eos_token="<s>"), ["<|im_end|>", "<s>", "eos_token"]),
            (chatting(CHATML.replace("<|im_end|>\n", "\n")), ["nothing", "<|im_end|>"]),
            (chatting("{{ strftime_now('%d %b %Y') }}" + CHATML), ["strftime_now"]),
            (chatting("{{ [1, 2] | random }}" + CHATML), ["random"]),
            (chatting("{{ lipsum() }}" + CHATML), ["lipsum"]),
            (chatting(CHATML.replace("message['content']", "''")), ["leaves out"]),
            (chatting("{{ raise_exception('A system message, please.') }}"), ["A system message, please."]),
            (chatting("{{ messages[0].parts[0] }}"), ["refuses"]),
            (chatting("{% if %}"), ["refuses"]),
        ],
    )
    def test_a_template_that_cannot_be_used(self, tokenizer: Any, told: list[str]) -> None:
        with pytest.raises(ModelError) as caught:
            check_chat(tokenizer, "some/model")
        sentence = str(caught.value)
        assert all(word in sentence for word in ["some/model", *told]), sentence
        assert sentence.endswith(".") and "\n" not in sentence

    @pytest.mark.parametrize("name", ["ChatML", "Llama 3", "Mistral", "no roles", "without earlier thoughts"])
    def test_a_template_whose_prompt_opens_an_answer(self, name: str) -> None:
        check_chat(chatting(OPENING[name]), "it")

    @pytest.mark.parametrize("name", NOT_OPENING)
    def test_a_template_whose_prompt_opens_none(self, name: str) -> None:
        template, told = NOT_OPENING[name]
        with pytest.raises(ModelError) as caught:
            check_chat(chatting(template), "some/model")
        sentence = str(caught.value)
        assert all(word in sentence for word in ["some/model", told]), sentence
        assert sentence.endswith(".") and "\n" not in sentence

    def test_a_style_that_is_none(self) -> None:
        with pytest.raises(ModelError, match="'chatty'; it must be plain or chat"):
            encode_prompt(chatting(style="chatty"), "a")
