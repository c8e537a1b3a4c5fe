"""MAWPS (Koncel-Kedziorski et al., NAACL 2016): arithmetic word problems, collected in sets that overlap.

By default all are test questions, and there is no reasoning to train on. `mawps_1920`, the selection of SVAMP's authors
(Patel et al., arXiv 2103.07191), has an equation for each question, from which references can be written as GSM8K has
them: `8 - 3 = <<8-3=5>>5`, then `#### 5`. Their wording varies by a hash of the question, so that a right sample is
seldom the reference word for word.

Answers are floats, 0.8333333333333334 for 5/6, so that two are the same if they agree to thousandths.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import starmap
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from aft.bounds import CountOrZero, Seed
from aft.checked import checked
from aft.errors import DataError, SettingsError
from aft.records import number_in
from aft.tasks import gsm8k
from aft.tasks.answers import numbers_agree
from aft.tasks.base import Question, spaceless_hash
from aft.tasks.calculator import value_of, value_of_side
from aft.tasks.rows import MEND, Row, draw, field, file_rows, number_question, text_field, without_repeats

__all__ = ["Settings", "answers_equal", "extract_answer", "load_questions", "prompt"]

logger = logging.getLogger(__name__)

MawpsSet = Literal["AddSub", "MultiArith", "SingleEq", "mawps_1920"]

_WITH_EQUATIONS: MawpsSet = "mawps_1920"
_FOLDS = 5  # of the authors' cross-validation
_PLACE = re.compile(r"\bnumber[0-9]+\b")  # of a number in a question of theirs
_DECIMALS = 4  # of a number in a reference; equations then hold by the calculator's tolerance
_WORDS = {  # what a step calls its operation
    "+": ("sum", "plus", "add"),
    "-": ("difference", "minus", "subtract"),
    "*": ("product", "times", "multiply"),
    "/": ("quotient", "divided by", "divide"),
}
_WORDINGS = (  # of a step, one of which is chosen by hash
    "{left} {sign} {right} = {result}",
    "{left} {word} {right} is {result}.",
    "The {noun} of {left} and {right} is {result}.",
    "We {verb}: {left} {sign} {right} = {result}",
    "{left} {word} {right} gives {result}",
)


@checked
class Settings:
    """Where MAWPS comes from, which of its sets are asked, and how many questions of mawps_1920 train."""

    path: str
    """Folder with the published files of the sets, plain or packed with gzip; of `mawps_1920` its file or its folds."""

    sets: tuple[MawpsSet, ...] = ("AddSub", "MultiArith", "SingleEq")
    """The sets that are asked, one after the other; `mawps_1920` is the selection of SVAMP's authors."""

    test_limit: CountOrZero | None = None
    """Only the first so many questions."""

    train_size: CountOrZero = 0
    """How many questions of `mawps_1920` train, none of which is a test question; 0 = MAWPS only tests."""

    validation_size: CountOrZero = 0
    """How many other questions of `mawps_1920` go to validation."""

    split_seed: Seed = 0
    """Seed of the hash order in which these are drawn; the order in the file plays no part."""

    def __post_init__(self) -> None:
        """Raise `SettingsError` if nothing is asked."""
        if not self.sets:
            raise SettingsError(f"sets is empty; choose of {', '.join(get_args(MawpsSet))}, at least one.")


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """All questions of the chosen sets in published order as test; training and validation questions if asked for.

    A question that is asked twice (by `content_hash`, for which spaces do not count) is kept once: in test, else in the
    first set that has it. Of the questions to train on those are left out, too, whose equation does not give their
    answer; warnings count what is dropped. Raises `DataError` for a missing file or a malformed row, `SettingsError`
    where there are fewer questions than asked for.
    """
    test: list[Question] = []
    asked: set[str] = set()
    for name in settings.sets:
        published = [question for _, _, question in _published(settings.path, name)]
        new, asked = without_repeats(published, asked, f"questions of MAWPS' {name}")
        test += new
    test = test[: settings.test_limit]
    if not settings.train_size + settings.validation_size:
        return {"train": [], "validation": [], "test": test}
    pool = _to_learn(settings, test)
    if settings.train_size + settings.validation_size > len(pool):
        raise SettingsError(
            f"train_size and validation_size are {settings.train_size} and {settings.validation_size}, but "
            f"{_WITH_EQUATIONS} has {len(pool)} questions beside those of test; choose fewer, or lower test_limit."
        )
    validation = draw(pool, settings.validation_size, settings.split_seed)
    train = draw([one for one in pool if one not in validation], settings.train_size, settings.split_seed)
    chosen = {"train": train, "validation": validation}
    return {name: [replace(one, split=name) for one in rows] for name, rows in chosen.items()} | {"test": test}


prompt, extract_answer, answers_equal = gsm8k.prompt, gsm8k.extract_answer, numbers_agree


def _published(path: str, name: str) -> list[tuple[str, Any, Question]]:
    """Where each row of a set stands, what stands there, and its question."""
    rows = _selected(Path(path)) if name == _WITH_EQUATIONS else file_rows(path, f"{name}.json")
    return [(where, row, _question(row, where, f"mawps/{name}/{at:05d}")) for at, (where, row) in enumerate(rows)]


def _selected(folder: Path) -> Iterator[Row]:
    """The rows of `mawps_1920`: of its one file, or of `fold0` to `fold4`, as the authors' `data/cv_mawps` has them.

    Each fold's `dev.csv` has a fifth of the questions; their texts have `number0`, `number1` and so on for their
    numbers, which stand in a field of their own.
    """
    one, folds = f"{_WITH_EQUATIONS}.jsonl", [folder / f"fold{number}" for number in range(_FOLDS)]
    if (folder / one).is_file() or (folder / f"{one}.gz").is_file():
        yield from file_rows(str(folder), one)
        return
    if not folds[0].is_dir():
        raise DataError(
            f"There is neither {one} nor {folds[0].name} in {folder}; the setting 'path' must name a folder with one "
            "of them, such as data/cv_mawps of github.com/arkilpatel/SVAMP."
        )
    for fold in folds:
        for where, row in file_rows(str(fold), "dev.csv"):
            yield where, _with_numbers(row, where)


def _with_numbers(row: Any, where: str) -> dict[str, Any]:
    """A row of a fold, its numbers put back into the question."""
    numbers = [number_in(number) for number in text_field(row, "Numbers", where).split()]
    if None in numbers:
        raise DataError(f"{where} has no numbers in the field 'Numbers'; {MEND}.")
    shown = {f"number{at}": repr(number).removesuffix(".0") for at, number in enumerate(numbers)}
    try:
        question = _PLACE.sub(lambda found: shown[found[0]], text_field(row, "Question", where))
    except KeyError as error:
        raise DataError(f"{where} has no number for '{error.args[0]}' of its question; {MEND}.") from error
    named = {name.lower(): field(row, name, where) for name in ("Equation", "Answer")}
    return {"question": question, "numbers": numbers, **named}


def _question(row: Any, where: str, question_id: str) -> Question:
    """A row of any set; spaces make no new question, "the beach ." is "the beach."."""
    if question_id.startswith(f"mawps/{_WITH_EQUATIONS}/"):
        text, answer = text_field(row, "question", where), field(row, "answer", where)
    else:
        text, solutions = text_field(row, "sQuestion", where), field(row, "lSolutions", where)
        if not isinstance(solutions, list) or len(solutions) != 1:
            raise DataError(f"{where} has no list of one number in 'lSolutions'; restore the published file.")
        answer = solutions[0]
    question = number_question(question_id=question_id, question=text, answer=answer, where=where)
    return replace(question, content_hash=spaceless_hash(text))


def _to_learn(settings: Settings, test: list[Question]) -> list[Question]:
    """The questions of the set with equations that are no test questions, with references."""
    tested = {question.question_id for question in test}
    others = [row for row in _published(settings.path, _WITH_EQUATIONS) if row[-1].question_id not in tested]
    told = [question for question in starmap(_with_reference, others) if question.reference]
    if len(told) < len(others):
        wrong, title = len(others) - len(told), f"questions of {_WITH_EQUATIONS} that are not tested"
        logger.warning(
            "Left out %d of the %d %s: their equation does not give the answer in steps of four decimals.",
            wrong,
            len(others),
            title,
        )
    tested_hashes = {question.content_hash for question in test}
    kept, _ = without_repeats(told, tested_hashes, f"questions of {_WITH_EQUATIONS} left")
    return kept


class _Part(NamedTuple):
    """A part of an equation: as the calculator reads it, how a reference shows what it comes to, and its steps."""

    expression: str
    shown: str
    steps: list[tuple[str, ...]]  # sign, left, right and result, as shown


def _with_reference(where: str, row: Any, question: Question) -> Question:
    """The question with its equation in steps for a reference; without any if that does not give the answer."""
    equation, numbers = text_field(row, "equation", where), field(row, "numbers", where)
    if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
        raise DataError(f"{where} has no list of numbers in 'numbers'; {MEND}.")
    try:
        solved = _solved(equation.split(), {f"number{i}": f"{Decimal(repr(n)):f}" for i, n in enumerate(numbers)})
    except (IndexError, ValueError) as error:
        raise DataError(f"{where} has the equation {equation[:60]!r}, which cannot be read; {MEND}.") from error
    answer = _shown(Fraction(question.answer))
    holds = solved and all(value_of(f"{a}{sign}{b}={result}") is not None for sign, a, b, result in solved.steps)
    if not (solved and holds and solved.steps) or solved.shown != answer:
        return replace(question, reference="")
    steps = [_step(question.content_hash, number, *step) for number, step in enumerate(solved.steps)]
    return replace(question, reference="\n".join([*steps, f"#### {answer}"]))


def _solved(equation: list[str], numbers: Mapping[str, str]) -> _Part | None:
    """An equation in prefix form, "- number0 * number1 2.0", solved; None where the calculator has no value for it.

    Raises `IndexError` or `ValueError` for what is no such equation.
    """
    parts: list[_Part] = []
    for token in reversed(equation):
        operands = (parts.pop(), parts.pop()) if token in _WORDS else ()
        inner = token.join(part.expression for part in operands) or numbers.get(token, token)
        value = value_of_side(f"({inner})")
        if value is None and operands:
            return None
        if value is None:
            raise ValueError(token)
        steps = [step for part in operands for step in part.steps]
        if operands:
            steps.append((token, *(part.shown for part in operands), _shown(value)))
        parts.append(_Part(f"({inner})", _shown(value), steps))
    (whole,) = parts
    return whole


def _shown(value: Fraction) -> str:
    """Rounded to `_DECIMALS`, without zeros at the end."""
    rounded = round(value, _DECIMALS)
    return f"{float(rounded):.{_DECIMALS}f}".rstrip("0").rstrip(".") if rounded.denominator > 1 else str(rounded)


def _step(hashed: str, number: int, sign: str, left: str, right: str, result: str) -> str:
    """A step of a reference, with its calculator mark, in a wording that the hash of the question chooses."""
    noun, word, verb = _WORDS[sign]
    at = hashlib.sha256(f"{hashed}:{number}".encode()).digest()[0] % len(_WORDINGS)
    told = {"left": left, "right": right, "sign": sign, "noun": noun, "word": word, "verb": verb}
    return _WORDINGS[at].format(**told, result=f"<<{left}{sign}{right}={result}>>{result}")
