"""One page to look at answers: each question with what every variant answered, to be filtered in the browser.

Here is what stands in it, as plain data; `templates/answers.html.j2` has the words around it and `answers.js.j2` what
draws it. The page needs nothing but itself: no file beside it and no connection.
"""

from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from math import isfinite
from typing import Any, NamedTuple

import pandas as pd

from aft.evaluation.predictions import GREEDY
from aft.reporting.consistency import wrong_lines
from aft.reporting.render import render
from aft.tasks import Question, get_task

MOST_QUESTIONS = 10_000  # on one page: 28 MB with five variants on GSM8K, which a browser shows within two seconds
_JUDGED = ("extracted_answer", "is_correct")
_NOTHING: Sequence[Any] = (None, None, False, None)  # text, answer, is it right, score: no response


class Answer(NamedTuple):
    """What one variant answers to a question; of its samples only their votes, for their texts would be most of all."""

    text: str | None  # None where the question was too long to be answered
    answer: str | None  # in canonical form, None if there is none
    is_right: bool
    score: float | None  # mean token log-probability under the writer, in nats
    votes: Sequence[tuple[str | None, int, bool]]  # canonical answer, samples that gave it, whether it is right
    wrong_steps: Sequence[str]  # in words; none where the task cannot tell
    wrong_lines: Sequence[int]  # of the text, from 1: those that the words quote


def answers_page(
    *,
    recipe: str,
    seed: int,
    questions: Sequence[Question],
    predictions: Mapping[str, pd.DataFrame],
    version: str,
    most: int = MOST_QUESTIONS,
) -> str:
    """The page, in HTML; the same arguments give the same text.

    `predictions` are tables with `aft.evaluation.predictions.PREDICTION_COLUMNS` by variant, all of one seed. Of more
    than `most` questions the page has so many, drawn by the hash of their ids, and says so. All text is escaped.
    """
    shown = drawn(questions, most)
    by_variant = [_answers(shown, table) for table in predictions.values()]
    rows = [
        (one.question_id, one.question, one.choices, one.reference, one.answer, [own[place] for own in by_variant])
        for place, one in enumerate(shown)
    ]
    script = render("answers.js.j2")
    return render(
        "answers.html.j2",
        title=f"{recipe}: what the variants answered",
        facts={"recipe": recipe, "variants": str(len(predictions)), "seed": str(seed), "version": version},
        n_shown=len(shown),
        n_questions=len(questions),
        variants=list(predictions),
        data={"variants": list(predictions), "questions": rows},
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode("ascii"),
        version=version,
    )


def drawn(questions: Sequence[Question], most: int) -> list[Question]:
    """At most so many of the questions, those whose ids have the lowest hashes, in the order given."""
    chosen = sorted(questions, key=lambda question: sha256(question.question_id.encode()).digest())[:most]
    ids = {question.question_id for question in chosen}
    return [question for question in questions if question.question_id in ids]


def _answers(questions: Sequence[Question], table: pd.DataFrame) -> list[Answer]:
    """The variant's answer to each question, in their order."""
    own = table[table["question_id"].isin([question.question_id for question in questions])]
    is_greedy = own["sample_index"] == GREEDY
    given = {question_id: rest for question_id, *rest in _rows(own[is_greedy], "response", *_JUDGED, "score")}
    votes: defaultdict[str, Counter[tuple[str | None, bool]]] = defaultdict(Counter)
    for question_id, answer, is_right in _rows(own[~is_greedy], *_JUDGED):
        votes[question_id][answer, is_right] += 1
    answers = []
    for question in questions:
        text, answer, is_right, score = given.get(question.question_id, _NOTHING)
        counted = [(voted, count, right) for (voted, right), count in votes[question.question_id].most_common()]
        rounded = round(score, 3) if score is not None and isfinite(score) else None
        answers.append(Answer(text, answer, is_right, rounded, counted, *_faults(question, text)))
    return answers


def _rows(table: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The question's id and the columns of each row, as Python's own values, None for those that lack."""
    own = (table[name].astype(object) for name in ("question_id", *columns))
    return zip(*(column.where(column.notna(), None) for column in own), strict=True)


def _faults(question: Question, text: str | None) -> tuple[Sequence[str], Sequence[int]]:
    """The wrong steps of a response in words, and the lines that they are about, as far as its task can tell."""
    task = get_task(question.dataset)
    wrong_steps = getattr(task, "wrong_steps", None)
    if text is None or wrong_steps is None:
        return [], []
    told = wrong_steps(question, text)
    return told, wrong_lines(text, told, getattr(task, "equations", lambda line: []))
