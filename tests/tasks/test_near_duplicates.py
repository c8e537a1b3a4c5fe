"""Near-duplicates: all that are similar are found, none else, in time that many questions allow; they are only told."""

import itertools
import logging
import random
import sys
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest

from aft.pipelines.ingest.nodes import find_near_duplicates
from aft.pipelines.tables import to_table
from aft.tasks import ecqa, gsm8k, pocket
from aft.tasks.base import Question, content_hash
from aft.tasks.near_duplicates import NearDuplicate, near_duplicates

TRAIN = "A train travels 270 miles in 3 hours. How many more hours would it take to travel 180 miles?"


def _questions(split: str, *texts: str) -> list[Question]:
    return [
        Question(f"gsm8k/{split}/{number:05d}", "gsm8k", split, text, None, "#### 1", "1", content_hash(text))
        for number, text in enumerate(texts)
    ]


def _told(train: str, held_out: str) -> tuple[float, str] | None:
    pairs = near_duplicates(_questions("train", train), _questions("test", held_out))
    assert len(pairs) < 2
    return (round(pairs[0].similarity, 3), pairs[0].kind) if pairs else None


@pytest.mark.parametrize(
    ("held_out", "told"),
    [
        (TRAIN, (1, "words")),
        (TRAIN.upper().replace(".", " -"), (1, "words")),
        (TRAIN.replace("270", "1,200").replace("180", "2.5"), (1, "numbers")),
        # 19 words are 15 5-grams, of which the first word is in one: 14 of 16 are common
        (TRAIN.replace("A train", "The train"), (0.875, "similar")),
        # the second is in two: 13 of 17
        (TRAIN.replace("A train", "A plane"), (0.765, "similar")),
        # the third is in three: 12 of 18
        (TRAIN.replace("travels", "needs"), None),
        ("How many more hours would it take?", None),
        ("", None),
    ],
)
def test_similar_questions_by_hand(held_out: str, told: tuple[float, str] | None) -> None:
    assert _told(TRAIN, held_out) == told
    assert _told(held_out, TRAIN) == told


def test_in_a_question_of_hardly_more_than_numbers_the_numbers_count() -> None:
    """Fewer than five other words: it is the sequence that makes the question."""
    assert _told("Find the next: 2, 4, 8, 16, 32, 64", "Find the next: 3, 6, 9, 12, 15, 18") is None
    assert _told("Find 95 x 98", "Find 95 x 98.") == (1, "words")


def test_pairs_are_named_and_the_most_similar_come_first() -> None:
    train = _questions(
        "train", TRAIN.replace("A train", "The train"), "Something else is asked for here, is it not?", TRAIN
    )
    assert near_duplicates(train, _questions("test", TRAIN)) == [
        NearDuplicate("gsm8k/train/00002", "gsm8k/test/00000", "test", 1.0, "words"),
        NearDuplicate("gsm8k/train/00000", "gsm8k/test/00000", "test", 0.875, "similar"),
    ]


def test_what_is_found_is_what_comparing_every_pair_finds() -> None:
    """Questions of few words, many of them alike: 120 x 60 pairs against the definition, spelt out."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcd", k=rng.randrange(5, 9))) for _ in range(30)]

    def some(split: str, count: int) -> list[Question]:
        return _questions(split, *(" ".join([rng.choice(texts)] * 2)[rng.randrange(4) :] for _ in range(count)))

    def grams(question: Question) -> set[tuple[str, ...]]:
        words = question.question.split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    train, held_out = some("train", 120), some("test", 60)
    expected = {
        (one.question_id, other.question_id)
        for one, other in itertools.product(train, held_out)
        if 10 * len(grams(one) & grams(other)) >= 7 * len(grams(one) | grams(other))
    }
    assert 0 < len(expected) < 120 * 60
    assert {(pair.train_id, pair.held_out_id) for pair in near_duplicates(train, held_out)} == expected


def test_few_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million pairs of questions that begin with the same words, only the two that have rare words in common."""
    rng, compared = random.Random(0), []

    def similarity(common: int, of: int) -> Fraction:
        compared.append((common, of))
        return Fraction(common, of)

    def some(split: str) -> list[Question]:
        words = (" ".join(str(rng.choice("abcdefgh")) * rng.randrange(1, 9) for _ in range(30)) for _ in range(1000))
        return _questions(split, TRAIN, *(f"Which of the following is true of {text}" for text in words))

    monkeypatch.setattr(sys.modules[near_duplicates.__module__], "Fraction", similarity)
    (pair,) = near_duplicates(some("train"), some("test"))
    assert (pair.train_id, pair.held_out_id) == ("gsm8k/train/00000", "gsm8k/test/00000")
    assert compared == [(15, 15)]  # word 5-grams in common, of all


def _find(train: list[Question], test: list[Question], others: list[Question]) -> pd.DataFrame:
    return find_near_duplicates(to_table(train), to_table(test), to_table(others))


def test_they_are_told_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Of two test questions and one validation question, one of either is nearly the training question."""
    test = _questions("test", TRAIN.replace("270", "300"), "What else is asked for here, dear reader?")
    validation = _questions("validation", TRAIN.replace("A train", "The train"))
    table = _find(_questions("train", TRAIN), test, validation)
    assert table["held_out_id"].tolist() == ["gsm8k/test/00000", "gsm8k/validation/00000"]
    assert table["held_out_split"].tolist() == ["test", "validation"]
    assert table["kind"].tolist() == ["numbers", "similar"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "2 of 3 held-out questions are nearly a training question (1 but for the numbers)" in record.getMessage()


def test_without_any_there_is_an_empty_table(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    table = _find(_questions("train", TRAIN), _questions("test", "What else?"), [])
    assert table.empty and table.columns.tolist() == [*NearDuplicate.__slots__]
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_generated_questions_are_passed_over_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    splits = pocket.load_questions(pocket.Settings(train=40, validation=1, test=20))
    assert near_duplicates(splits["train"], splits["train"])  # alike they are
    assert _find(splits["train"], splits["train"], splits["test"]).empty
    assert "not looked for, as all training questions are generated" in caplog.text


def test_the_near_duplicates_of_published_sets(published_data: Path) -> None:
    """GSM8K: two train questions ask what one test question asks, of a train instead of a plane. ECQA: one pair."""
    found = {}
    for name, splits in (
        ("gsm8k", gsm8k.load_questions(gsm8k.Settings(path=str(published_data / "gsm8k")))),
        ("ecqa", ecqa.load_questions(ecqa.Settings(path=str(published_data / "ecqa")))),
    ):
        pairs = near_duplicates(splits["train"], [*splits["validation"], *splits["test"]])
        found[name] = {(pair.train_id, pair.held_out_id, pair.kind) for pair in pairs}
    assert found["gsm8k"] == {
        ("gsm8k/train/01314", "gsm8k/test/00602", "similar"),
        ("gsm8k/train/05162", "gsm8k/test/00602", "similar"),
    }
    assert found["ecqa"] == {("ecqa/train/05374", "ecqa/test/00322", "similar")}
