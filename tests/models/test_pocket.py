"""The pocket model: its tokenizer loses nothing, its weights follow from the seed alone."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.models.directory import ModelDirectory
from aft.models.pocket import BEGIN, END, Architecture, build_model, build_tokenizer
from aft.tasks import pocket

SMALL = Architecture(hidden_size=16, layers=1, heads=2)
TOKENIZER = build_tokenizer()


def texts(seed: int) -> list[str]:
    """What the pocket task can write about one random story: question, all true and some flawed solutions."""
    rng = random.Random(seed)
    story = pocket.draw_story(rng)
    slips = pocket.Corpus(misconception=0.8, slip=0.5)
    flawed = [pocket.flawed_solution(story, rng, slips) for _ in range(4)]
    return [
        f"{story.question}\n",
        *(pocket.solution(story.start, story.events, path) for path in pocket.PATHS),
        *flawed,
    ]


class TestTokenizer:
    @settings(max_examples=60)
    @given(st.integers(0, 2**32))
    def test_every_text_comes_back_and_no_word_is_unknown(self, seed: int) -> None:
        for text in texts(seed):
            ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
            assert TOKENIZER.unk_token_id not in ids
            assert TOKENIZER.decode(ids) == text
            assert TOKENIZER(text)["input_ids"] == [TOKENIZER.bos_token_id, *ids]

    @settings(max_examples=30)
    @given(st.integers(0, 2**32))
    def test_question_and_solution_meet_where_tokens_meet(self, seed: int) -> None:
        """Encoding both at once or apart is the same, so pretraining on whole texts teaches the same tokens."""
        question, *solutions = texts(seed)
        for solution in solutions:
            whole = TOKENIZER(question + solution)["input_ids"]
            apart = [*TOKENIZER(question)["input_ids"], *TOKENIZER(solution, add_special_tokens=False)["input_ids"]]
            assert whole == apart

    def test_every_digit_is_a_token(self) -> None:
        ids = TOKENIZER(" 1207", add_special_tokens=False)["input_ids"]
        assert TOKENIZER.convert_ids_to_tokens(ids) == [" 1", "2", "0", "7"]

    def test_survives_saving(self, pocket_directory: ModelDirectory) -> None:
        loaded = pocket_directory.tokenizer()
        assert len(loaded) == len(TOKENIZER)
        assert (loaded.bos_token, loaded.eos_token) == (BEGIN, END)
        for text in texts(7):
            assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
            assert loaded.decode(loaded(text, add_special_tokens=False)["input_ids"]) == text

    def test_special_tokens_stand_where_the_model_expects_them(self) -> None:
        config = build_model(SMALL, len(TOKENIZER)).config
        ours = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == ours


class TestModel:
    def test_weights_follow_from_the_seed(self) -> None:
        one, same = build_model(SMALL, 50).state_dict(), build_model(SMALL, 50).state_dict()
        other = build_model(Architecture(hidden_size=16, layers=1, heads=2, seed=1), 50).state_dict()
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])

    @pytest.mark.parametrize("drawn_before", [0, 3])
    def test_weights_do_not_depend_on_what_was_drawn_before(self, drawn_before: int) -> None:
        expected = build_model(SMALL, 50).state_dict()["model.embed_tokens.weight"]
        torch.rand(drawn_before)
        assert torch.equal(build_model(SMALL, 50).state_dict()["model.embed_tokens.weight"], expected)

    def test_the_global_random_state_is_left_alone(self) -> None:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        build_model(SMALL, 50)
        assert torch.equal(torch.rand(3), expected)

    def test_no_accelerator_is_seeded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`torch.manual_seed` seeds every accelerator, too, and nobody would restore those."""
        seeded: list[int] = []
        monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
        build_model(SMALL, 50)
        assert seeded == []

    def test_embeddings_are_tied(self) -> None:
        model = build_model(SMALL, 50)
        assert model.lm_head.weight is model.model.embed_tokens.weight
