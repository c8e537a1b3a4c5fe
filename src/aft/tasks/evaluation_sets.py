"""Published sets that are only evaluated on: MMLU, SVAMP, GSM-hard and CommonsenseQA, one entry of a table each.

There is no reasoning to train on: every question is a test question, and its reference is the line of its answer.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aft.bounds import CountOrZero, Seed
from aft.checked import checked
from aft.errors import DataError
from aft.tasks import gsm8k, multiple_choice
from aft.tasks.answers import numbers_agree
from aft.tasks.base import Question
from aft.tasks.rows import (
    draw,
    field,
    file_rows,
    hub_rows,
    number_question,
    text_field,
    without_repeats,
)

Reader = Callable[[Any, str, str], Question]  # takes a row, where it stands, and the id of its question


@checked
class Settings:
    """Where a set comes from."""

    path: str | None = None
    """Folder with the published file, plain or packed with gzip; without it, the hub's data set, the same rows."""

    revision: str = ""
    """Commit of the hub's data set; not used with `path`."""

    test_limit: CountOrZero | None = None
    """Only the first so many questions in published order, for small trials."""


@checked
class MmluSettings(Settings):
    """Where MMLU comes from. It is published by subject: `test_limit` draws from all subjects, by seeded hash."""

    revision: str = "c30699e8356da336a370243923dbaf21066bb9fe"

    split_seed: Seed = 0
    """Seed of the hash order in which `test_limit` questions are drawn."""


@checked
class SvampSettings(Settings):
    """Where SVAMP comes from."""

    revision: str = "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef"


@checked
class GsmHardSettings(Settings):
    """Where GSM-hard comes from."""

    revision: str = "960448f73503112d4226baeb8eb41d3fb5ae2506"


@checked
class CommonsenseQASettings(Settings):
    """Where CommonsenseQA comes from."""

    revision: str = "94630fe30dad47192a8546eb75f094926d47e155"


class File(NamedTuple):
    """A published file: the beginning of its questions' ids, its name, how its rows are read, its title in logs."""

    prefix: str
    name: str
    read: Reader
    title: str


class Hub(NamedTuple):
    """A data set on the hub: its name and configuration, the splits that make up the set, how its rows are read."""

    name: str
    config: str | None
    splits: tuple[str, ...]
    read: Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """A task family (`aft.tasks.base.Task`) with test questions only."""

    Settings: type[Any]
    file: File
    hub: Hub  # read in place of the file where no `path` is set
    prompt: Callable[[Question], str]
    extract_answer: Callable[..., str | None]
    answers_equal: Callable[[str, str], bool]

    def load_questions(self, settings: Any) -> Mapping[str, list[Question]]:
        """All questions in published order as test, and neither train nor validation questions.

        A question that is asked twice (by `content_hash`) is kept once; a warning counts what that drops. Raises
        `DataError` for a missing file or a malformed row.
        """
        prefix, name, read, title = self.file
        if settings.path is not None:
            rows = file_rows(settings.path, name)
        else:
            dataset, config, splits, read = self.hub
            rows = (row for split in splits for row in hub_rows(dataset, config, split, settings.revision))
        published = [read(row, where, f"{prefix}/{number:05d}") for number, (where, row) in enumerate(rows)]
        questions, _ = without_repeats(published, frozenset(), title)
        if isinstance(settings, MmluSettings) and settings.test_limit is not None:
            questions = draw(questions, settings.test_limit, settings.split_seed)
        return {"train": [], "validation": [], "test": questions[: settings.test_limit]}


def _number(question: str, answer: str) -> Reader:
    """Reads rows whose question and answer, a number, are the fields of these names."""

    def read(row: Any, where: str, question_id: str) -> Question:
        text, number = text_field(row, question, where), field(row, answer, where)
        return number_question(question_id=question_id, question=text, answer=number, where=where)

    return read


def _svamp(row: Any, where: str, question_id: str) -> Question:
    text = f"{text_field(row, 'Body', where)} {text_field(row, 'Question', where)}"
    return number_question(question_id=question_id, question=text, answer=field(row, "Answer", where), where=where)


def _choice(question_id: str, question: str, choices: Any, answer: Any, where: str) -> Question:
    return multiple_choice.choice_question(
        question_id=question_id,
        split="test",
        question=question,
        choices=choices,
        answer=answer,
        reasoning="",
        where=where,
    )


def _mmlu(row: Any, where: str, question_id: str) -> Question:
    """The answer is a letter or, on the hub, an index."""
    answer = field(row, "answer", where)
    if type(answer) is int and 0 <= answer < len(multiple_choice.LETTERS):
        answer = multiple_choice.LETTERS[answer]
    return _choice(question_id, text_field(row, "question", where), field(row, "choices", where), answer, where)


def _commonsenseqa(row: Any, where: str, question_id: str) -> Question:
    """A row as published, {question: {stem, choices: [{label, text}]}}, or as on the hub, {question, choices}."""
    asked = field(row, "question", where)
    if isinstance(asked, dict):
        stem, options = text_field(asked, "stem", where), _options(asked, "choices", where)
        pairs = [(field(option, "label", where), field(option, "text", where)) for option in options]
    else:
        stem, options = text_field(row, "question", where), field(row, "choices", where)
        pairs = list(itertools.zip_longest(*(_options(options, name, where) for name in ("label", "text"))))
    letters = list(multiple_choice.LETTERS)
    if [label for label, _ in pairs] != letters:
        raise DataError(f"{where} has no options {', '.join(letters)}, in this order; restore the published file.")
    return _choice(question_id, stem, [text for _, text in pairs], field(row, "answerKey", where), where)


def _options(row: Any, name: str, where: str) -> list[Any]:
    options = field(row, name, where)
    if not isinstance(options, list):
        raise DataError(f"{where} has no list of options; restore the published file.")
    return options


EVALUATION_SETS: Mapping[str, EvaluationSet] = {
    # Hendrycks et al., arXiv 2009.03300: 57 subjects, four options. The AFT paper (arXiv 2309.02144) answers the 14,042
    # test questions zero-shot, to see what alignment does to a model outside of what it is trained on.
    "mmlu": EvaluationSet(
        Settings=MmluSettings,
        file=File("mmlu/test", "test.jsonl", _mmlu, "test questions of MMLU"),
        hub=Hub("cais/mmlu", "all", ("test",), _mmlu),
        prompt=multiple_choice.prompt,
        extract_answer=multiple_choice.extract_answer,
        answers_equal=multiple_choice.answers_equal,
    ),
    # Talmor et al., arXiv 1811.00937: everyday questions, five options. The test set is published without answers, so
    # the 1,221 dev questions are the test here. ECQA explains the questions of the train and dev sets: beside ECQA, a
    # mere 8 of the 1,221 are new. It is a test of models trained on something else.
    "commonsenseqa": EvaluationSet(
        Settings=CommonsenseQASettings,
        file=File("commonsenseqa/dev", "dev_rand_split.jsonl", _commonsenseqa, "dev questions of CommonsenseQA"),
        hub=Hub("tau/commonsense_qa", None, ("validation",), _commonsenseqa),
        prompt=multiple_choice.prompt,
        extract_answer=multiple_choice.extract_answer,
        answers_equal=multiple_choice.answers_equal,
    ),
    # Patel et al., arXiv 2103.07191: 1,000 arithmetic word problems in varied wording, on the hub in two parts.
    "svamp": EvaluationSet(
        Settings=SvampSettings,
        file=File("svamp/test", "SVAMP.json", _svamp, "questions of SVAMP"),
        hub=Hub("ChilleD/SVAMP", None, ("train", "test"), _svamp),
        prompt=gsm8k.prompt,
        extract_answer=gsm8k.extract_answer,
        answers_equal=gsm8k.answers_equal,
    ),
    # Gao et al., arXiv 2211.10435: GSM8K's test questions with larger numbers in them. Answers are floats, computed by
    # programs, and some make no sense in their story, such as a negative count; two are the same if they agree to
    # thousandths, as published results count them.
    "gsm_hard": EvaluationSet(
        Settings=GsmHardSettings,
        file=File("gsm_hard/test", "test.jsonl", _number("question", "answer"), "questions of GSM-hard"),
        hub=Hub("reasoning-machines/gsm-hard", None, ("train",), _number("input", "target")),  # its only split
        prompt=gsm8k.prompt,
        extract_answer=gsm8k.extract_answer,
        answers_equal=numbers_agree,
    ),
}
