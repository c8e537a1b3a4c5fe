"""Which right responses are the same reasoning in other words: those with the same equations (RFT's de-duplication)."""

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from aft.tasks import Question, get_task


def mark_distinct_equations(
    feedback: pd.DataFrame, questions: Mapping[str, Question], ended: Collection[tuple[str, int]]
) -> pd.DataFrame:
    """The feedback with `distinct_equations`: the right responses of a question that `distinct_by_equations` keeps.

    `ended` are question and sample index of the responses that ended by themselves: those that were cut are not learnt,
    and so may not stand for others. Of a family that has no `equations` every right one of these is distinct.
    """
    kept: list[Hashable] = []
    keys = zip(feedback["question_id"], feedback["sample_index"], strict=True)
    eligible = feedback["is_correct"] & np.array([key in ended for key in keys], dtype=bool)
    for question_id, rows in feedback[eligible].groupby("question_id"):
        equations = getattr(get_task(questions[str(question_id)].dataset), "equations", None)
        responses = rows["response"].tolist()
        chosen = distinct_by_equations(responses, list(map(equations, responses))) if equations else range(len(rows))
        kept += rows.index[list(chosen)].tolist()
    return feedback.assign(distinct_equations=feedback.index.isin(kept))


def distinct_by_equations(responses: Sequence[str], equations: Sequence[Sequence[str]]) -> list[int]:
    """The indices of the responses to keep, in order: one of all that have the same equations in the same order.

    As RFT does: responses come one by one, and of two with the same equations that one stays whose edit distances to
    the others kept so far, here in words, have the larger sum; at equal sums the earlier one.
    """
    words = [response.split() for response in responses]
    kept: dict[tuple[str, ...], int] = {}
    for new, key in enumerate(map(tuple, equations)):
        old = kept.setdefault(key, new)
        if old != new:
            others = [words[other] for other in kept.values() if other != old]
            if _total_distance(words[new], others) > _total_distance(words[old], others):
                kept[key] = new
    return sorted(kept.values())


def _total_distance(words: Sequence[str], others: Sequence[Sequence[str]]) -> int:
    return sum(edit_distance(words, other) for other in others)


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """The fewest insertions, deletions and replacements that turn one sequence into the other (Levenshtein).

    Myers' bit-parallel algorithm (1999) in Hyyrö's form: a column of the table is two bit vectors, one bit per element
    of `a`, that say where it rises and where it falls by one; so a column costs a few operations on long integers.
    """
    if not a or not b:
        return max(len(a), len(b))
    places: dict[str, int] = {}
    for i, element in enumerate(a):
        places[element] = places.get(element, 0) | 1 << i
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    rises, falls, distance = full, 0, len(a)
    for element in b:
        equal = places.get(element, 0)
        diagonal = (((equal & rises) + rises) ^ rises) | equal | falls  # where the diagonal does not rise
        right_rises = falls | ~(diagonal | rises) & full
        right_falls = diagonal & rises
        distance += bool(right_rises & last) - bool(right_falls & last)
        right_rises = right_rises << 1 | 1  # the first row is 0, 1, 2, …
        right_falls <<= 1
        rises = (right_falls | ~(diagonal | right_rises)) & full
        falls = right_rises & diagonal & full
    return distance
