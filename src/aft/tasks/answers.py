"""Numbers in text that a model wrote: found with regular expressions, compared as exact rationals.

What is read: digits 0-9 with well-formed thousands commas, decimals, a sign (hyphen, en dash or U+2212),
currency signs, per cent (73% is 73), simple and mixed fractions (2 1/2, 2½, 2 and 1/2, 2\\frac12), exponents
(1.5e3), Markdown and the common LaTeX wrappers, a unit after the number. What is not: digits of other scripts,
spaces or apostrophes that group digits, number words and scales ("5 million" is 5 with a unit), powers, roots and
indices (10²), versions, dates, clock times and ratios (only the full hour, 2:00, is the number 2), names such
as Q1, adjectives such as 6-inch, more than 40 digits, and the operands of an expression that the writer left
unfinished: "so 10 - 5" answers neither 10 nor 5. What is not read is no number, not a part of itself.

Text is untrusted: nothing here evaluates it, every function is total, and every pattern takes linear time,
because what it repeats without a bound can be matched in one way only.
"""

import re
import unicodedata
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

_DIGITS = 40  # the longest numerator, denominator and decimal that count as a number
_DECIMALS = 3  # to which numbers must agree where published answers are rounded

_SIGNS = str.maketrans(  # one sign each for minus (an em dash stays punctuation), division and multiplication
    "\u2010\u2011\u2013\u2212\ufe63\uff0d\u2044\u2215\u00b7\u2219\u22c5", "------//\u00d7\u00d7\u00d7"
)
_VULGAR = {  # ½ and its like: "1/2"
    character: unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    for character in map(chr, (*range(0xBC, 0xBF), *range(0x2150, 0x215F), 0x2189))
}
_SPELLINGS = {"\\$": "$", "\\%": "%", "{,}": ",", "\\,": "", "\\!": "", "`": ""}
_SPELLINGS |= {"&frac12;": "\u00bd", "&frac14;": "\u00bc", "&frac34;": "\u00be"}
_SPELLINGS |= {"\\times": "\u00d7", "\\cdot": "\u00d7", "\\div": "\u00f7", "\\pm": "\u00b1", "\\pi": "\u03c0"}
_OPERAND = r"(?:\{[ ]?([0-9]{1,40}+)[ ]?\}|(?<![0-9])([0-9]{1,40}+))"  # of \over
_ARGUMENT = r"(?:[ ]?\{[ ]?([0-9]{1,40})[ ]?\}|[ ]?([0-9]))"  # of a LaTeX command: {12}, or one digit
_MARKUP = (
    (re.compile(rf"[ ]?([{''.join(_VULGAR)}])(?![0-9])"), lambda found: f" {_VULGAR[found[1]]}"),
    (re.compile(r"(?<![0-9.,:/])([0-9]{1,9})[ ]and[ ](?=[0-9]{1,9}/[0-9])"), r"\1 "),
    (re.compile(r"(?<=[0-9])[ ]?(?=\\[dtc]?frac)"), " "),
    (re.compile(rf"\\[dtc]?frac{_ARGUMENT}{_ARGUMENT}(?![0-9])"), r"\1\2/\3\4"),
    (re.compile(rf"{_OPERAND}[ ]?\\over(?![A-Za-z])[ ]?{_OPERAND}"), r"\1\2/\3\4"),
    (re.compile(r"\\(?:[dtc]?frac|sqrt|over(?![A-Za-z]))"), "\u221a"),  # of something else: no number is told
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)[ ]?\{([^{}]{0,200})\}"), r" \1"),
    (re.compile(r"(?<=[A-Za-z])\^\{?[23]\}?"), ""),  # the power of a unit, as in cm^2, is no number
    (re.compile(r"(?<![0-9])\*\*|\*\*(?![0-9])"), ""),  # bold type, but not the power 2**3
)

_NUMBER = re.compile(
    r"""(?=[-U$€£¥₹.\d])                                         # for speed: what a number can begin with
        (?P<minus>-[ ]?)?(?:(?:US)?[$€£¥₹][ ]?(?P<inner_minus>-)?)?  # -$5 and $-5 alike
        (?<!\w)(?<!\d[.,:/\u066b\u066c\uff0e])                   # not inside a name or another numeral
        (?P<numeral>                                             # taken whole, then judged by _NUMERAL
            \d{1,3}(?:[ \u00a0\u2009\u202f'\u2019]\d{3}){1,13}+(?!\d|/\d)
          | (?:(?<!\.)\.)?\d++(?:[.,:/\u066b\u066c\uff0e]\d++)*+)
        (?!(?:[ ]{1,2}[0-9]{1,9}/[0-9]{1,9})?-[A-Za-z]|_[0-9])   # "400-meter hurdles" count nothing
        (?P<part>[ ]{1,2}[0-9]{1,9}/[0-9]{1,9}(?![.,:/ ]?[0-9]))?  # the fraction of a mixed number
        (?P<exponent>[eE][+-]?[0-9]+)?""",
    re.VERBOSE,
)
_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,20}|[0-9]{1,100})"
_NUMERAL = re.compile(rf"{_INTEGER}(?:/{_INTEGER}|:00)?|{_INTEGER}?\.[0-9]{{1,100}}")

# What makes a number an operand: in the few characters before it, with its minus, and right after it.
_WINDOW = 8
_OPERATOR_BEFORE = re.compile(
    r"""(?: [0-9)\]}%?][ ]{0,2}-            # 10-5, 10 - 5, 10 -5
          | \w-                             # x-5; but "is -5" has a sign
          | \w[ ]{1,2}-[ ]                  # x - 5
          | [\w)\]}%?][ ]{0,2}[+*/\u00d7\u00f7\u00b1^]
          | [0-9][ ]{0,2}[xX]
          | \u221a(?:\[[0-9]\])?            # the root of 5
          | \}\{                            # a second argument of a LaTeX command
        )[ ({\[-]{0,3}$                    # 10 - (5
    """,
    re.VERBOSE,
)
_OPERATOR_AFTER = re.compile(
    r"""[ ]?%?(?:[ ][A-Za-z]{1,20})?        # 90 minutes / 2
        [ ]{0,2}(?: [+\u00d7\u00f7\u00b1^\u221a\u03c0]
          | \*{1,2}[ ]{0,2}[$(0-9]
          | [-/][ ]{0,2}[$(0-9?]
          | [-/*][ ]{0,2}[nxyz]\b
          | [xX][ ]{0,2}[$(0-9]
        )
      | [\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209f\u2150-\u215f\u2460-\u249b]  # raised, lowered, in a circle
      | ['\u2019]?[ ]{1,2}[0-9]{1,9}/[0-9]  # 2 1/2/3, 2'1/2
      | [ ]and[ ](?:a|one|two|three)[ -](?:half|third|quarter|fourth)""",
    re.VERBOSE,
)
_EQUALS = re.compile(r"[ %]*+(?:of[ ]\S{1,20}[ ]{0,2})?=")  # right after the left side; 50% of 12 = 6
_SPACED_SIGN = re.compile(r"(?:^|[=:] {0,2})- $")  # elsewhere "- 5" is a bullet or a dash
_WRAPPERS = re.compile(r"(?:\\boxed|[\s\"'*_$(+{\[\\])*+")
_BOX = re.compile(r"\\boxed\{(?=\s{0,8}[^\s}])")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")


@lru_cache(maxsize=10_000)  # answers are compared with the same ones again and again
def canonical_number(text: str) -> str | None:
    """The number that `text` states, with nothing but a unit beside it, in canonical form; else None.

    "$1,234.50" gives "1234.5", "18 eggs." gives "18", "2/6" gives "1/3"; "7 or 8", "10-5", "x = 3" and "about
    3" give None. Two numbers are the same rational if and only if their canonical forms are the same text,
    and the canonical form of a canonical form is itself.
    """
    text = _plain(text).strip()
    numbers = _NUMBER.finditer(text)
    number = next(numbers, None)
    if number is None or next(numbers, None) is not None:
        return None
    alone = _WRAPPERS.fullmatch(text, 0, number.start()) and "=" not in text[number.end() :]
    return _value(number) if alone else None


def stated_number(text: str) -> str | None:
    """The canonical number of a statement, given the text after its marker ("the answer is"); else None.

    The statement ends with the first line or sentence that has a digit. Its first number counts, but of an
    equation the right side: "13 + 14 = 27 eggs. All 27 ..." states 27, "3 hours and 30 minutes" states 3, and
    "10 - x" nothing.
    """
    text = _plain(text).lstrip(" ")
    digit = re.search(r"\d", text)
    if digit is None:
        return None
    end = _SENTENCE_END.search(text, digit.start())
    statement = text[: end.start()] if end else text
    number = _NUMBER.search(statement)
    if number and "=" in statement[number.end() :] and _is_left_side(number):
        number = _NUMBER.search(statement, statement.rindex("=") + 1)
    return _value(number) if number else None


def boxed_number(text: str) -> str | None:
    """The canonical number in the last LaTeX box of `text` that is not empty; None without a box or a number in it."""
    box = last_match(_BOX, text)
    return stated_number(_plain(text[box.end() :]).partition("}")[0]) if box else None


def after_thoughts(response: str) -> str:
    """What a response says after its last `</think>`: all of it if it has no thoughts, nothing while one is unclosed.

    An answer is looked for there only: `<think>#### 7</think>` before `#### 42` answers 42.
    """
    _, closed, said = response.rpartition("</think>")
    if "<think>" in said:
        return ""
    return said.lstrip() if closed else said


def last_number(text: str) -> str | None:
    """The canonical form of the last number in `text`; None if there is none or it cannot be an answer."""
    number = last_match(_NUMBER, _plain(text))
    return _value(number) if number else None


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match of `pattern` in `text`, None if there is none."""
    found = None
    for found in pattern.finditer(text):  # noqa: B007 (only the last one is wanted)
        pass
    return found


def numbers_equal(number: str, other: str) -> bool:
    """Whether two texts state the same rational number; texts that state none are equal if they are the same.

    Exact, without a tolerance: 33.33 is not 100/3. "Nearly equal" is not transitive, and votes need classes.
    """
    return (canonical_number(number) or number) == (canonical_number(other) or other)


def numbers_agree(number: str, other: str) -> bool:
    """Whether two texts state numbers that are the same when rounded to thousandths; without numbers, the same text.

    For answers that are published as decimals cut off somewhere, 0.8333 for 5/6. Rounding keeps "agrees" transitive,
    which a tolerance would not be. Two numbers that round to the same differ by at most 0.001.
    """
    one, another = canonical_number(number), canonical_number(other)
    if one is None or another is None:
        return (one or number) == (another or other)
    return round(Fraction(one), _DECIMALS) == round(Fraction(another), _DECIMALS)


def _plain(text: str) -> str:
    """`text` with one spelling of each sign and without the mark-up that models put around numbers."""
    text = text.translate(_SIGNS)
    for spelling, plain in _SPELLINGS.items():
        text = text.replace(spelling, plain)
    for pattern, plain in _MARKUP:
        text = pattern.sub(plain, text)
    return text


def _value(number: re.Match[str]) -> str | None:
    """The canonical form of a match of `_NUMBER`; None if it is malformed, too long or an operand."""
    numeral, part, exponent = number["numeral"], number["part"], number["exponent"] or "e0"
    if not _NUMERAL.fullmatch(numeral) or len(exponent) > len("e+99") or _is_operand(number):
        return None
    try:
        value = Fraction(numeral.replace(",", "").removesuffix(":00"))
        fraction = Fraction(part.strip()) if part else Fraction(0)
    except ZeroDivisionError:
        return None
    if part and (value.denominator != 1 or fraction >= 1):
        return None  # "1/2 3/4" and "5 10/2" are two numbers, not a mixed one
    value = (value + fraction) * Fraction(10) ** int(exponent[1:])
    return _canonical(-value if _is_negative(number) else value)


def _canonical(value: Fraction) -> str | None:
    """`value` as a decimal if it has one of at most 40 digits, else as p/q; None over 40 digits."""
    if max(abs(value.numerator), value.denominator) >= 10**_DIGITS:
        return None
    with localcontext(prec=_DIGITS):
        decimal = Decimal(value.numerator) / Decimal(value.denominator)
        return format(decimal.normalize(), "f") if Fraction(decimal) == value else str(value)


def _before(number: re.Match[str]) -> str:
    """The few characters before the number, its own minus included."""
    return number.string[max(0, number.start() - _WINDOW) : number.start()] + (number["minus"] or "")


def _is_negative(number: re.Match[str]) -> bool:
    minus = number["minus"]
    spaced_sign = minus == "- " and _SPACED_SIGN.search(_before(number)) is not None
    return minus == "-" or spaced_sign or number["inner_minus"] is not None


def _is_operand(number: re.Match[str]) -> bool:
    after = _OPERATOR_AFTER.match(number.string, number.end())
    return after is not None or _OPERATOR_BEFORE.search(_before(number)) is not None


def _is_left_side(number: re.Match[str]) -> bool:
    """Whether the number stands on the left side of an equation: an operand, or followed by "="."""
    return _is_operand(number) or _EQUALS.match(number.string, number.end()) is not None
