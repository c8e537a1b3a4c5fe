"""A million texts that no model should write, and some do: no answer check raises, or does not end."""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aft.errors import SettingsError
from aft.tasks import get_task, task_names

TEXTS = 1_000_000

RESPONSES = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 48+24 = <<48+24=72>>72 altogether.\n#### 72",
    "So the total is $1,234.50.\n#### $1,234.50",
    "The answer is \\boxed{\\frac{3}{4}} of the cake.",
    "**Answer:** 3 1/2 hours, or 210 minutes (a 12.5% rise).",
    "A: 10 - 5 = 5 eggs. All 5 are left; the answer is -5.0e3.",
    "Let x be the price. 2x + 10 = 30, so x = 10.\nTherefore the correct option is (C) 10.\n#### C",
    "The answer is option B: 24 km/hr. Option A is wrong, and (D) cannot be correct.",
    "c) is the correct answer.\n\nQuestion: What is 2 + 2?\nAnswer: 4",
    "Mia finds 7 and buys 3: 7 + 3 = 10 more.\n4 + 10 = 14\n#### 14",
)
PIECES = (
    *"0123456789.,:/-+*=x$%eE_()[]{}^ \n#AQabcde?!\\'\"`~|<>&;",
    *("\u2212", "\u2013", "\u00d7", "\u00f7", "\u00bd", "\u20ac", "\ufeff", "\u200b", "\u2028", "\x00", "\ud800"),
    *("\u0663", "\u096b", "\uff15", "\u00b2", "\u2465", "\u4e09", "\U0001d7d7", "\u0130", "\ufdfa", "e\u0301\u0301"),
    *("####", "\\boxed{", "\\frac{", "\\text{", "answer is ", "Answer:", "\nA:", "\nQ:", "option ", "(c)", "<<", ">>"),
    *("1e999999", "1/0", "0/0", "1/3", "9" * 50, "1,000,000", "1,00", "12:00", "NaN", "inf", "%d%s%n", "{0.__class__}"),
    *("__import__('os').system('x')", "eval(1)", "lambda: 0", "1_000", "0x1F", "9**9**9", "(a+)+$", "${HOME}"),
)
BOMBS = (
    "9" * 10**6,
    "#### " + "9" * 10**6,
    "#### 1/" + "7" * 10**5,
    "#### " + "9" * 5000 + "/" + "7" * 5000,
    "the answer is 1e" + "9" * 10**5,
    "#### 1e999999",
    "#### 1e-999999",
    "#### 9" + "e9" * 10**5,
    "#### " + "(" * 10**5 + "5" + ")" * 10**5,
    "\\boxed{" * 10**4 + "5" + "}" * 10**4,
    "\\frac{1}{" * 10**4,
    "#### __import__('os').system('exit 1')",
    "#### 9**9**9**9",
    "\u0663" * 10**5,
    "#### \U0001d7d7\u096b\uff15",
    "%" * 10**5,
    "a" * 10**5 + "!",
    " " * 10**5 + "x",
    "\n" * 10**5,
    "\x00" * 10**5,
    "\ud800" * 10**5,
)
UNITS = (
    *("9", "a", " ", "\n", "%", "#", "####", "1,", "1.", "1/", "1 ", "1 1/1 ", "-", "- ", "$-", "1e", "e9", "=", "1="),
    *("**", "(", "(1", ")", "{", "\\boxed{", "\\frac{1}{2}", "\\frac{", "\\text{", "\\,", "cm^2", "\u0663", "\u2212"),
    *("answer is ", "answer: ", "answer ", "ans", "A:", "\nA:", "\nQ", "\n ", "option ", "option", "is correct "),
    *("(c)", "C", "C)", "C is ", "* ", ". ", "! ", "<<1+1=2>>", "#### 1\n", "#### C\n", "12:00", "(a+)+", "\u00bd"),
    *(
        "\nProblem:",
        "\nInput: 1",
        "\nHuman: 1?",
        "Step 1 ",
        "100 ",
        "1 and 1/1 ",
        "\\frac1",
        "\\boxed{ ",
        "answer:\n",
        "\u00b2",
    ),
)

Extract = Callable[..., str | None]


def distinct(check: str) -> dict[Any, list[str]]:
    """Every distinct function that families with questions of their own have by this name, and whose it is."""
    found: dict[Any, list[str]] = {}
    for name in task_names():
        try:
            function = getattr(get_task(name), check)
        except SettingsError:  # only brings others together
            continue
        found.setdefault(function, []).append(name)
    return found


EXTRACT, EQUAL = distinct("extract_answer"), distinct("answers_equal")
EQUAL.pop(get_task("math").answers_equal)  # another process does that, see test_latex
every_extraction = pytest.mark.parametrize("extract", EXTRACT, ids=[names[0] for names in EXTRACT.values()])


def read(extract: Extract, text: str) -> None:
    """Fails if what is extracted is no answer; raises if extraction does."""
    strict, flexible = extract(text), extract(text, strict=False)
    assert flexible is None or isinstance(flexible, str)
    assert strict is None or strict == flexible


def compare(text: str, other: str) -> None:
    """Fails if a comparison is not true or false, or depends on the order; raises if it does."""
    for equal in EQUAL:
        assert equal(text, text) is True
        assert equal(text, other) is equal(other, text)


def texts(seed: int, count: int) -> Iterator[str]:
    """Random pieces, random characters of all of Unicode, and parts of responses with a few places changed."""
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.random()
        if kind < 0.4:
            yield "".join(rng.choices(PIECES, k=rng.randrange(10)))
        elif kind < 0.45:
            yield "".join(map(chr, rng.choices(range(0x110000), k=rng.randrange(40))))
        else:
            text = rng.choice(RESPONSES)
            for _ in range(rng.randrange(1, 4)):
                place = rng.randrange(len(text) + 1)
                text = text[:place] + rng.choice(PIECES) + text[place + rng.randrange(4) :]
            start = rng.randrange(len(text))
            yield text[start : start + 40]


def test_all_families_are_tried() -> None:
    names = {name for names in EXTRACT.values() for name in names}
    assert names == {
        *("aqua_rat", "commonsenseqa", "ecqa", "gsm8k", "gsm_hard", "math", "mawps", "mmlu", "pocket", "svamp"),
    }


def test_a_million_texts_never_raise() -> None:
    """The ways to extract an answer take turns; every fortieth text is also compared with the one before it."""
    turns, before = itertools.cycle(EXTRACT), ""
    for number, (text, extract) in enumerate(zip(texts(seed=0, count=TEXTS), turns, strict=False)):
        try:
            read(extract, text)
            if number % 40 == 0:
                compare(text, before)
        except Exception as error:
            pytest.fail(f"{EXTRACT[extract]}: {text!r}, {before!r}: {error!r}")
        before = text


@every_extraction
def test_bombs_never_raise(extract: Extract) -> None:
    for bomb in BOMBS:
        read(extract, bomb)


def test_bombs_can_be_compared() -> None:
    for bomb in BOMBS:
        compare(bomb, "5")


def long_text(unit: str, length: int = 60_000) -> str:
    """What is cubic in its length does not end (see `faulthandler_timeout`), nor what is quadratic at ten million."""
    return unit * (length // len(unit))


@every_extraction
def test_long_texts_of_one_piece_never_raise(extract: Extract) -> None:
    for unit, start in itertools.product(UNITS, ("", "#### ", "The answer is ")):
        read(extract, start + long_text(unit))


@pytest.mark.parametrize("equal", EQUAL, ids=[names[0] for names in EQUAL.values()])
def test_long_texts_of_one_piece_can_be_compared(equal: Callable[[str, str], bool]) -> None:
    for unit in UNITS:
        assert equal(long_text(unit), "5") is False


@every_extraction
def test_lines_of_ten_megabytes(extract: Extract) -> None:
    for unit in ("9", "word "):
        read(extract, long_text(unit, 10_000_000))
