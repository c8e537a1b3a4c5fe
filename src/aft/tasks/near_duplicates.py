"""Near-duplicates of held-out questions in train: reported, not removed; exact repeats are removed elsewhere.

Questions are compared by their words, without case, punctuation and options. All numbers are the same word, but in a
question of hardly more than numbers. The similarity of two is the share of common word 5-grams (Jaccard), computed
exactly. Only pairs that share one of their rare 5-grams are looked at, which is every pair that can be similar enough
(prefix filtering, as in Chaudhuri et al., ICDE 2006): far fewer than all, so that time grows with the questions and
the pairs found.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from aft.tasks.base import Question

_GRAM = 5  # words
_SIMILAR = Fraction(7, 10)  # one word changed in 33 leaves 24 of 34 5-grams in common, 0.706

_WORD = re.compile(r"[0-9]+(?:[.,/][0-9]+)*|[^\W\d_]+")

_Gram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A training question, the held-out question that it nearly is, and why."""

    train_id: str
    held_out_id: str
    held_out_split: str
    similarity: float  # share of common word 5-grams, 0.7 ... 1
    kind: Literal["words", "numbers", "similar"]  # the same words; the same but for the numbers; neither


def near_duplicates(train: Sequence[Question], held_out: Sequence[Question]) -> list[NearDuplicate]:
    """Every pair of a training and a held-out question with a similarity of at least 0.7, the most similar first."""
    train_words, held_words = ([_words(question.question) for question in asked] for asked in (train, held_out))
    train_grams, held_grams = ([_grams(_masked(words)) for words in asked] for asked in (train_words, held_words))
    frequency = Counter(gram for asked in (train_grams, held_grams) for grams in asked for gram in grams)
    places: dict[_Gram, list[int]] = defaultdict(list)
    for j, grams in enumerate(held_grams):
        for gram in _rare(grams, frequency):
            places[gram].append(j)
    found = []
    for i, grams in enumerate(train_grams):
        for j in sorted({j for gram in _rare(grams, frequency) for j in places.get(gram, ())}):
            common = len(grams & held_grams[j])
            similarity = Fraction(common, len(grams) + len(held_grams[j]) - common)
            if similarity >= _SIMILAR:
                kind = _kind(train_words[i], held_words[j])
                pair = (train[i].question_id, held_out[j].question_id, held_out[j].split)
                found.append(NearDuplicate(*pair, float(similarity), kind))
    return sorted(found, key=lambda pair: -pair.similarity)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _masked(words: Sequence[str]) -> list[str]:
    """The words with one sign for every number; as they are where hardly anything else is left to compare."""
    masked = ["#" if word[0].isdigit() else word for word in words]
    return masked if len(words) - masked.count("#") >= _GRAM else list(words)


def _grams(words: Sequence[str]) -> frozenset[_Gram]:
    """The word 5-grams; a shorter text is one gram, so that only its equal is similar."""
    return frozenset(tuple(words[i : i + _GRAM]) for i in range(max(1, len(words) - _GRAM + 1)))


def _rare(grams: frozenset[_Gram], frequency: Counter[_Gram]) -> list[_Gram]:
    """So many of the rarest grams that of two similar questions the rare ones always meet.

    Similar questions have at least 0.7 n of the n grams of either in common. Of a question's n - ceil(0.7 n) + 1 first
    grams in an order that all questions share, here by frequency, at least one is common; and the first common gram is
    among the first ones of both.
    """
    needed = -(-_SIMILAR.numerator * len(grams) // _SIMILAR.denominator)
    return sorted(grams, key=lambda gram: (frequency[gram], gram))[: len(grams) - needed + 1]


def _kind(words: Sequence[str], others: Sequence[str]) -> Literal["words", "numbers", "similar"]:
    if words == others:
        return "words"
    return "numbers" if _masked(words) == _masked(others) else "similar"
