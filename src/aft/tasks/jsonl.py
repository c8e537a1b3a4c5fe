"""Questions of one's own: rows of a file (JSONL, JSON, CSV, Parquet), and settings in place of Python.

The settings say which fields hold what, how a question is asked, and how an answer is marked and checked
(`aft.tasks.checks`). Whatever is wrong with a row is told with its file and line.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from json import loads
from math import isnan
from pathlib import Path
from typing import Any

from aft.bounds import Share
from aft.checked import checked
from aft.errors import DataError, SettingsError
from aft.records import READERS, read_objects
from aft.tasks import gsm8k, latex
from aft.tasks.base import SPLITS, Question, content_hash
from aft.tasks.checks import OWN, AnswerCheck, Check, Marker
from aft.tasks.multiple_choice import LETTERS, with_options
from aft.tasks.rows import Row, checked_text

__all__ = ["Settings", "load_questions"]

logger = logging.getLogger(__name__)

_ASKED = "{question}"
_TOLD = 5  # faults, or repeats, that are told one by one
_OTHER_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}  # of splits


@checked
class Settings:
    """Where the questions are, and how they are asked and checked."""

    path: str
    """A file (.jsonl, .json, .csv or .parquet), or a folder with one for each split: train, validation, test.

    A file of validation questions may also be called valid, val or dev. All but .parquet may be packed, as .jsonl.gz.
    """

    question: str = "question"
    """Field with the text of the question."""

    answer: str = "answer"
    """Field with the final answer, or with a solution that ends in it behind the marker, which then is the reference.

    Of a choice it is the letter of an option, or what one option says.
    """

    reference: str | None = None
    """Field with the solution to learn from; None = `reference`, if there is one. The answer is added if it lacks it.

    A question without it is learnt from right samples alone.
    """

    choices: str | None = None
    """Field with the list of options, in CSV as JSON; None = `choices`. It is read for the check `choice` only."""

    id: str | None = None
    """Field with a name that no other question has; None = `id`, if there is one, else a hash of what is asked."""

    split: str | None = None
    """Field that says train, validation or test; None = `split`, if there is one, else splits are drawn by hash."""

    validation_share: Share = 0.1
    """Share of the questions that go to validation, where neither files nor a field say so.

    A question's split follows from a hash of what it asks, so that it stays there when others are added.
    """

    test_share: Share = 0.2
    """Share of the questions that go to test, in the same way."""

    prompt: str = gsm8k.PROMPT
    """What the model reads, with {question} for the question and its options."""

    check: Check = "number"
    """When two answers are the same: as numbers, letters, texts, or LaTeX (which needs the extra `math`)."""

    marker: Marker = "hashes"
    """What marks the answer: `#### 42`, `The answer is 42.`, `\\boxed{42}`, or that a `</think>` stands before it."""

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a prompt that does not ask, and for shares that leave less than nothing."""
        if _ASKED not in self.prompt:
            raise SettingsError(f"prompt has no {_ASKED}, where the question is to stand.")
        if self.validation_share + self.test_share > 1:
            raise SettingsError("validation_share and test_share are more than 1 together.")


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """Questions of each split, in the order of the file.

    A question that is asked twice (by `content_hash`) is kept once, in test rather than in validation rather than in
    train; a warning names what that drops. Raises `DataError` for the rows that cannot be used, a few of them by file
    and line, and `SettingsError` if what the check needs is not installed.
    """
    if settings.check == "math":
        latex.check_installed()
    rows = list(_rows(Path(settings.path)))
    if not rows:
        raise DataError(f"{settings.path} has no rows.")
    reader = _Reader.of(settings, [row for _, (_, row) in rows])
    found: list[tuple[str, Question]] = []
    faults: list[str] = []
    for split, (where, row) in rows:
        try:
            found.append((where, reader.question(row, where, split)))
        except DataError as error:
            faults.append(str(error))
    faults = faults or list(_same_ids(found))
    if faults:
        raise DataError(_few(faults))
    return _asked_once(found, reader.check)


def _rows(path: Path) -> Iterable[tuple[str | None, Row]]:
    """Each row with the split that its file is for, None of a single file."""
    if path.is_dir():
        files = {
            split: [file for file in sorted(path.iterdir()) if _split_of(file) == split and _is_read(file)]
            for split in SPLITS
        }
        for split, several in files.items():
            if len(several) > 1:
                raise DataError(
                    f"{path} has several files for {split} ({', '.join(f.name for f in several)}); keep one."
                )
        if not any(files.values()):
            raise DataError(f"{path} has no file train, validation or test with the ending {' or '.join(READERS)}.")
    elif not path.is_file():
        raise DataError(f"There is no file {path}; the setting 'path' names the file with the questions, or a folder.")
    elif not _is_read(path):
        raise DataError(f"{path} is of no known kind; its name must end in {', '.join(READERS)}.")
    else:
        files = {None: [path]}
    for split, several in files.items():
        for file in several:
            for where, row in read_objects(file):
                yield split, (where, row)


def _split_of(file: Path) -> str:
    name = file.name.partition(".")[0]
    return _OTHER_NAMES.get(name, name)


def _is_read(file: Path) -> bool:
    packed = file.suffix == ".gz" and file.with_suffix("").suffix != ".parquet"  # which packs itself
    return (file.with_suffix("") if packed else file).suffix in READERS


@dataclass(frozen=True, slots=True)
class _Reader:
    """How a row is read: the names of its fields, None of what there is not."""

    settings: Settings
    check: AnswerCheck
    fields: Mapping[str, str | None]

    @classmethod
    def of(cls, settings: Settings, rows: Sequence[dict[str, Any]]) -> "_Reader":
        """Raises `DataError` for a field that is named in the settings and is in no row."""
        known = dict.fromkeys(name for row in rows for name in row)
        fields: dict[str, str | None] = {}
        needed = ("question", "answer", *(["choices"] if settings.check == "choice" else []))
        for what in ("question", "answer", "reference", "choices", "id", "split"):
            name = getattr(settings, what) or what
            if name not in known and (what in needed or getattr(settings, what)):
                near = get_close_matches(name, known, n=1, cutoff=0.5)
                guess = f"did you mean '{near[0]}'? There are" if near else "there are"
                raise DataError(
                    f"No row of {settings.path} has the field '{name}' that the setting '{what}' names: {guess} "
                    f"{', '.join(known) or 'none'}."
                )
            fields[what] = name if name in known else None
        return cls(settings, OWN[f"jsonl/{settings.check}/{settings.marker}"], fields)

    def question(self, row: dict[str, Any], where: str, split: str | None) -> Question:
        """The row as a question; raises `DataError` with what is wrong."""
        asked = _text(row, self.fields["question"], where, "question")
        choices = _choices(row, self.fields["choices"], where) if self.settings.check == "choice" else None
        hashed = content_hash(asked, choices)
        given = _text(row, self.fields["answer"], where, "answer")
        solved = self.check.extract_answer(given)
        answer = solved or self.check.canonical(given) or _letter(given, choices)
        if answer is None or (choices and answer not in LETTERS[: len(choices)]):
            raise DataError(
                f"{where} has the answer {given[:40]!r}, which the check '{self.settings.check}' cannot read."
            )
        named = _text(row, self.fields["id"], where, "id") if self.fields["id"] else hashed
        as_given = not solved and self.settings.check in ("text", "math")
        shown = given.strip("$ ").rstrip(".") if as_given else answer
        return Question(
            question_id=f"jsonl/{named}",
            dataset=f"jsonl/{self.settings.check}/{self.settings.marker}",
            split=split or self._split(row, where, hashed),
            question=asked,
            choices=choices,
            reference=self._reference(row, where, given if solved else "", shown, answer),
            answer=answer,
            content_hash=hashed,
            prompt=self.settings.prompt.replace(_ASKED, with_options(asked, choices or ())),
        )

    def _reference(self, row: dict[str, Any], where: str, solution: str, shown: str, answer: str) -> str:
        """The solution to learn from, its answer behind the marker; empty if there is none."""
        name = self.fields["reference"]
        told = _text(row, name, where, "reference") if name and not _is_empty(row.get(name)) else solution
        if not told:
            return ""
        read = self.check.extract_answer(told)
        reference = told if read else self.check.with_answer(told, shown)
        read = read or self.check.extract_answer(reference)
        if read is None or not self.check.answers_equal(read, answer):
            raise DataError(
                f"{where} has a reference that is read as the answer {read!r}, but its answer is {shown!r:.50}."
            )
        return reference if self.check.is_explained(told) else ""

    def _split(self, row: dict[str, Any], where: str, hashed: str) -> str:
        if name := self.fields["split"]:
            told = _text(row, name, where, "split").lower()
            split = _OTHER_NAMES.get(told, told)
            if split not in SPLITS:
                raise DataError(f"{where} has the split {told[:40]!r}, which is none of {', '.join(SPLITS)}.")
            return split
        place = int(hashed, 16) / 16 ** len(hashed)
        held_out = self.settings.test_share + self.settings.validation_share
        return "test" if place < self.settings.test_share else "validation" if place < held_out else "train"


def _text(row: dict[str, Any], name: str | None, where: str, what: str) -> str:
    """The field that holds `what`, text or a number."""
    value = row.get(name or what)
    if _is_empty(value):
        raise DataError(f"{where} has no {what}: the field '{name}' is empty.")
    if isinstance(value, bool | list | dict | bytes):
        raise DataError(
            f"{where} has the {what} {str(value)[:40]!r} in the field '{name}', which is neither text nor number."
        )
    return checked_text(str(value), f"the field '{name}'", where)


def _is_empty(value: Any) -> bool:
    return value is None or (isnan(value) if isinstance(value, float) else value == "" or str(value).isspace())


def _choices(row: dict[str, Any], name: str | None, where: str) -> tuple[str, ...]:
    value = row.get(name or "choices")
    if isinstance(value, str):  # in CSV
        try:
            value = loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS):
        raise DataError(f"{where} has no list of 2 to {len(LETTERS)} options in the field '{name}'.")
    return tuple(_text({"an option": option}, "an option", where, "text") for option in value)


def _letter(given: str, choices: tuple[str, ...] | None) -> str | None:
    """The letter of the one option that says what is given."""
    places = [place for place, option in enumerate(choices or ()) if option.casefold() == given.casefold()]
    return LETTERS[places[0]] if len(places) == 1 else None


def _same_ids(found: Iterable[tuple[str, Question]]) -> Iterable[str]:
    first: dict[str, tuple[str, str]] = {}
    for where, question in found:
        there, hashed = first.setdefault(question.question_id, (where, question.content_hash))
        if there != where and hashed != question.content_hash:
            yield f"{where} has the id of {there}, {question.question_id.removeprefix('jsonl/')!r}."


def _asked_once(found: Sequence[tuple[str, Question]], check: AnswerCheck) -> dict[str, list[Question]]:
    """The questions of each split without what was asked before; raises `DataError` for one with several answers."""
    first: dict[str, tuple[str, Question]] = {}
    repeats, contradictions = [], []
    for split in reversed(SPLITS):
        for where, question in [one for one in found if one[1].split == split]:
            there, earlier = first.setdefault(question.content_hash, (where, question))
            same = f"{where} asks the same question as {there}"
            if not check.answers_equal(question.answer, earlier.answer):
                contradictions.append(f"{same}, but answers {question.answer!r:.50} and not {earlier.answer!r:.50}.")
            elif earlier is not question:
                repeats.append(f"{same}." if earlier.split == split else f"{same}, which is in {earlier.split}.")
    if contradictions:
        raise DataError(_few(contradictions))
    if repeats:
        logger.warning("Dropped %d of %d questions, which are asked twice: %s", len(repeats), len(found), _few(repeats))
    kept = [question for _, question in found if first[question.content_hash][1] is question]
    return {split: [question for question in kept if question.split == split] for split in SPLITS}


def _few(sentences: Sequence[str]) -> str:
    more = len(sentences) - _TOLD
    return " ".join([*sentences[:_TOLD], *([f"There are {more} more of the kind."] if more > 0 else [])])
