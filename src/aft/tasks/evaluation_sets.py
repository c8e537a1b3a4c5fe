"""Published sets that are only evaluated on: MMLU, SVAMP, MAWPS, GSM-hard and CommonsenseQA, one entry of a table each.

There is no reasoning to train on: every question is a test question, and its reference is the line of its answer.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from aft.bounds import CountOrZero, Seed
from aft.checked import checked
from aft.errors import DataError, SettingsError
from aft.tasks import gsm8k, multiple_choice
from aft.tasks.answers import numbers_agree
from aft.tasks.base import Question, content_hash
from aft.tasks.rows import (
    draw,
    field,
    file_rows,
    hub_rows,
    number_question,
    text_field,
    without_repeats,
)

MawpsSet = Literal["AddSub", "MultiArith", "SingleEq", "mawps_1920"]

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


@checked
class MawpsSettings:
    """Where MAWPS comes from, and which of its sets are asked."""

    path: str
    """Folder with the published files of the sets, plain or packed with gzip."""

    sets: tuple[MawpsSet, ...] = ("AddSub", "MultiArith", "SingleEq")
    """The sets that are asked, one after the other; `mawps_1920` is the selection of SVAMP's authors."""

    test_limit: CountOrZero | None = None
    """Only the first so many questions, for small trials."""

    def __post_init__(self) -> None:
        """Raise `SettingsError` if nothing is asked."""
        if not self.sets:
            raise SettingsError(f"sets is empty; choose of {', '.join(get_args(MawpsSet))}, at least one.")


class File(NamedTuple):
    """A published file: its name, how its rows are read, and what the log calls its questions."""

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
    files: Mapping[str, File]  # by what the ids of their questions begin with
    hub: Hub | None  # read in place of the one file where no `path` is set
    prompt: Callable[[Question], str]
    extract_answer: Callable[..., str | None]
    answers_equal: Callable[[str, str], bool]

    def load_questions(self, settings: Any) -> Mapping[str, list[Question]]:
        """All questions in published order as test, and neither train nor validation questions.

        A question that is asked twice (by `content_hash`) is kept once, in the first file that has it; a warning counts
        what that drops. Raises `DataError` for a missing file or a malformed row.
        """
        chosen = [f"mawps/{name}" for name in settings.sets] if isinstance(settings, MawpsSettings) else self.files
        questions: list[Question] = []
        asked: set[str] = set()
        for prefix in chosen:
            new, asked = without_repeats(self._published(settings, prefix), asked, self.files[prefix].title)
            questions += new
        if isinstance(settings, MmluSettings) and settings.test_limit is not None:
            questions = draw(questions, settings.test_limit, settings.split_seed)
        return {"train": [], "validation": [], "test": questions[: settings.test_limit]}

    def _published(self, settings: Any, prefix: str) -> list[Question]:
        if self.hub is None or settings.path is not None:
            name, read, _ = self.files[prefix]
            rows = file_rows(settings.path, name)
        else:
            dataset, config, splits, read = self.hub
            rows = (row for split in splits for row in hub_rows(dataset, config, split, settings.revision))
        return [read(row, where, f"{prefix}/{number:05d}") for number, (where, row) in enumerate(rows)]


def _number(question: str, answer: str) -> Reader:
    """Reads rows whose question and answer, a number, are the fields of these names."""

    def read(row: Any, where: str, question_id: str) -> Question:
        text, number = text_field(row, question, where), field(row, answer, where)
        return number_question(question_id=question_id, question=text, answer=number, where=where)

    return read


def _svamp(row: Any, where: str, question_id: str) -> Question:
    text = f"{text_field(row, 'Body', where)} {text_field(row, 'Question', where)}"
    return number_question(question_id=question_id, question=text, answer=field(row, "Answer", where), where=where)


def _mawps(row: Any, where: str, question_id: str) -> Question:
    text, solutions = text_field(row, "sQuestion", where), field(row, "lSolutions", where)
    if not isinstance(solutions, list) or len(solutions) != 1:
        raise DataError(f"{where} has no list of one number in 'lSolutions'; restore the published file.")
    return number_question(question_id=question_id, question=text, answer=solutions[0], where=where)


def _without_spaces(read: Reader) -> Reader:
    """As `read`, but spaces make no new question: some sets write "the beach ." where others write "the beach."."""

    def read_without(row: Any, where: str, question_id: str) -> Question:
        question = read(row, where, question_id)
        return replace(question, content_hash=content_hash("".join(question.question.split())))

    return read_without


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
        files={"mmlu/test": File("test.jsonl", _mmlu, "test questions of MMLU")},
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
        files={"commonsenseqa/dev": File("dev_rand_split.jsonl", _commonsenseqa, "dev questions of CommonsenseQA")},
        hub=Hub("tau/commonsense_qa", None, ("validation",), _commonsenseqa),
        prompt=multiple_choice.prompt,
        extract_answer=multiple_choice.extract_answer,
        answers_equal=multiple_choice.answers_equal,
    ),
    # Patel et al., arXiv 2103.07191: 1,000 arithmetic word problems in varied wording, on the hub in two parts.
    "svamp": EvaluationSet(
        Settings=SvampSettings,
        files={"svamp/test": File("SVAMP.json", _svamp, "questions of SVAMP")},
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
        files={"gsm_hard/test": File("test.jsonl", _number("question", "answer"), "questions of GSM-hard")},
        hub=Hub("reasoning-machines/gsm-hard", None, ("train",), _number("input", "target")),  # its only split
        prompt=gsm8k.prompt,
        extract_answer=gsm8k.extract_answer,
        answers_equal=numbers_agree,
    ),
    # Koncel-Kedziorski et al., NAACL 2016: arithmetic word problems, collected in sets that overlap. Answers are
    # floats, 0.8333333333333334 for 5/6, so that two are the same if they agree to thousandths.
    "mawps": EvaluationSet(
        Settings=MawpsSettings,
        files={
            **{
                f"mawps/{name}": File(f"{name}.json", _without_spaces(_mawps), f"questions of MAWPS' {name}")
                for name in ("AddSub", "MultiArith", "SingleEq")
            },
            "mawps/mawps_1920": File(
                "mawps_1920.jsonl", _without_spaces(_number("question", "answer")), "questions of MAWPS' mawps_1920"
            ),
        },
        hub=None,
        prompt=gsm8k.prompt,
        extract_answer=gsm8k.extract_answer,
        answers_equal=numbers_agree,
    ),
}
