"""Log-probabilities of single tokens: what the scores are means of, and the texts that they belong to."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aft.errors import DataError, NumericalError
from aft.models.directory import ModelDirectory
from aft.models.tokens import encode_response
from aft.scoring.responses import score_responses
from aft.scoring.tokens import token_logprobs, token_texts


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are single bytes, as the rare characters of byte-level models are."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"</s>": 256} | {letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def test_the_mean_is_the_score(pocket_directory, pocket_questions, tmp_path):
    """Whatever the lengths: the scores of `score_responses` come from another path through the model."""
    question = pocket_questions[3]
    rng = np.random.default_rng(0)
    responses = [rng.integers(4, 60, size=size).tolist() for size in (9, 1, 30, 4)]
    found = token_logprobs(pocket_directory, question, responses)
    assert [len(row) for row in found] == [9, 1, 30, 4]
    assert all(row.dtype == np.float64 and (row <= 0).all() for row in found)
    table = pd.DataFrame({"question_id": question.question_id, "sample_index": range(4), "token_ids": responses})
    by_id = {question.question_id: question}
    expected = score_responses(pocket_directory, table, by_id, "float32", tmp_path, token_budget=8192)
    assert [row.mean() for row in found] == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_token_depends_on_those_before_it_only(pocket_directory, pocket_questions):
    """Two responses that part at their fourth token agree before it and differ from it on."""
    one, other = token_logprobs(pocket_directory, pocket_questions[0], [[5, 6, 7, 8, 9], [5, 6, 7, 30, 9]])
    assert one[:3].tolist() == pytest.approx(other[:3].tolist(), abs=1e-5)
    assert abs(one[3:] - other[3:]).min() > 1e-3


def test_no_responses_have_no_rows(pocket_directory, pocket_questions):
    assert token_logprobs(pocket_directory, pocket_questions[0], []) == []


def test_an_empty_response_is_refused(pocket_directory, pocket_questions):
    with pytest.raises(DataError, match="without tokens"):
        token_logprobs(pocket_directory, pocket_questions[0], [[5], []])


def test_log_probabilities_that_are_not_finite_are_refused(pocket_directory, pocket_questions, monkeypatch):
    load = ModelDirectory.model

    def broken(self, dtype="float32"):
        model = load(self, dtype)
        next(model.parameters()).data.fill_(float("nan"))
        return model

    monkeypatch.setattr(ModelDirectory, "model", broken)
    with pytest.raises(NumericalError, match=re.escape(pocket_questions[0].question_id)):
        token_logprobs(pocket_directory, pocket_questions[0], [[5, 6]])


def test_texts_of_pocket_tokens(pocket_tokenizer):
    ids = encode_response(pocket_tokenizer, "finds 12: 3 + 12 = 15.\n#### 15")
    pieces = token_texts(pocket_tokenizer, ids)
    assert pieces[:5] == ["finds", " 1", "2", ":", " 3"]
    assert pieces[-1] == pocket_tokenizer.eos_token
    assert "".join(pieces[:-1]) == "finds 12: 3 + 12 = 15.\n#### 15"


def test_a_character_of_several_tokens_belongs_to_the_last(bytewise):
    """The euro sign is three bytes in UTF-8: "a€" is four tokens."""
    ids = encode_response(bytewise, "a€")
    assert len(ids) == 5
    assert token_texts(bytewise, ids) == ["a", "", "", "€", "</s>"]
    assert token_texts(bytewise, ids[:3]) == ["a", "", "\ufffd"]  # cut within the character
    assert token_texts(bytewise, []) == []


@given(text=st.text(max_size=12), cut=st.integers(0, 40))
def test_the_texts_are_the_whole(bytewise, text, cut):
    ids = encode_response(bytewise, text)[: cut or None]
    pieces = token_texts(bytewise, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == bytewise.decode(ids, clean_up_tokenization_spaces=False)
