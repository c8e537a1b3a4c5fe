"""Prompt and response meet at the same place in training, sampling and scoring, whatever the tokenizer adds."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

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
