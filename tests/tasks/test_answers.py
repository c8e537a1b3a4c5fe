"""Numbers in text: what is read, what is not, and that reading is total, linear and canonical."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.tasks.answers import (
    boxed_number,
    canonical_number,
    last_number,
    numbers_agree,
    numbers_equal,
    stated_number,
)

READERS = (canonical_number, stated_number, boxed_number, last_number)

WHOLE = [  # (text, the number it states with at most a unit beside it)
    ("18", "18"),
    ("18.", "18"),
    ("18.00", "18"),
    ("18.00.", "18"),
    ("1.50", "1.5"),
    ("007", "7"),
    ("0", "0"),
    ("-0", "0"),
    (".5", "0.5"),
    ("-.25", "-0.25"),
    ("-5", "-5"),
    ("- 5", "-5"),
    ("+5", "5"),
    ("\u22125", "-5"),
    ("\u20135", "-5"),
    ("--5", None),
    ("\u20145", None),  # an em dash is no sign
    ("$18", "18"),
    ("\\$18", "18"),
    ("$ 18", "18"),
    ("US$18", "18"),
    ("-$18", "-18"),
    ("$-18", "-18"),
    ("€18", "18"),
    ("£1,250", "1250"),
    ("18 €", "18"),
    ("1,000", "1000"),
    ("$1,234.50", "1234.5"),
    ("12,345,678", "12345678"),
    ("1{,}000", "1000"),
    ("1,\\!000", "1000"),
    ("1\\,000", "1000"),
    ("73%", "73"),
    ("73 %", "73"),
    ("73\\%", "73"),
    ("**73**", "73"),
    ("*73*", "73"),
    ("`73`", "73"),
    ("'73'", "73"),
    ("(73)", "73"),
    ("\\boxed{73}", "73"),
    ("$\\boxed{73}$", "73"),
    ("\\(73\\)", "73"),
    ("$$73$$", "73"),
    ("\\boxed{\\frac{3}{4}}", "0.75"),
    ("\\boxed{18\\text{ dollars}}", "18"),
    ("1/2", "0.5"),
    ("4/6", "2/3"),
    ("-1/3", "-1/3"),
    ("\\frac{1}{3}", "1/3"),
    ("-\\dfrac{10}{4}", "-2.5"),
    ("3 1/2", "3.5"),
    ("-3 1/2", "-3.5"),
    ("3\\frac{1}{2}", "3.5"),
    ("24 2/3", "74/3"),
    ("1e3", "1000"),
    ("1.5e3", "1500"),
    ("2E-2", "0.02"),
    ("2:00", "2"),
    ("18 eggs", "18"),
    ("18km", "18"),
    ("18 cm^2", "18"),
    ("18 m^{3}", "18"),
    ("$15/hour", "15"),
    ("6th", "6"),
    ("5 million", "5"),  # a scale is a unit: GSM8K also asks "how many million?"
    ("9" * 40, "9" * 40),
    ("0." + "0" * 38 + "1", "0." + "0" * 38 + "1"),
    ("", None),
    ("   ", None),
    ("eighteen", None),
    ("-", None),
    ("$", None),
    (".", None),
    ("10-5", None),
    ("10 - 5", None),
    ("10 -5", None),
    ("10\u20135", None),
    ("3 + 4", None),
    ("3*4", None),
    ("3 * 4 = 12", None),
    ("2**3", None),
    ("2^10", None),
    ("4 x 6", None),
    ("4\u00d76", None),
    ("x = 3", None),
    ("18 = total", None),
    ("10 - x", None),
    ("x - 4", None),
    ("7 or 8", None),
    ("7, 8", None),
    ("7,8", None),
    ("about 3", None),
    ("12,34", None),
    ("1,0000", None),
    ("1.000,50", None),
    ("1.2.3", None),
    ("1/0", None),
    ("1/2/3", None),
    ("1/2 3/4", None),
    ("1 1/1234567890", None),
    ("0" * 101 + "1", None),
    ("5 10/2", None),
    ("2024-01-15", None),
    ("1/2/2024", None),
    ("2:20", None),
    ("3:4", None),
    ("Q1", None),
    ("x2", None),
    ("6-inch", None),
    ("\u0663\u0664", None),  # Arabic-Indic digits
    ("9" * 41, None),
    ("0." + "0" * 39 + "1", None),  # 1/10**40 has a denominator of 41 digits
    ("1e1000000000", None),
    ("1e99", None),
    ("1e-99", None),
    ("nan", None),
    ("inf", None),
    ("0x10", None),
    ("1_000", None),
    ("__import__('os').abort()", None),
]


@pytest.mark.parametrize(("text", "expected"), WHOLE)
def test_a_text_that_is_one_number(text: str, expected: str | None) -> None:
    assert canonical_number(text) == expected


SPELLED = [  # (text, the number it states in whole and after "the answer is"): rightly, or not at all
    ("½", "0.5"),
    ("2½", "2.5"),
    ("2 ½", "2.5"),
    ("-$2½", "-2.5"),
    ("3¼ hours", "3.25"),
    ("16⅔%", "50/3"),
    ("7⅞", "7.875"),
    ("4⅒", "4.1"),
    ("2 1\u20442", "2.5"),  # a fraction slash
    ("2  1/2", "2.5"),
    ("2 and 1/2 hours", "2.5"),
    ("3\\frac12", "3.5"),
    ("3 \\dfrac 1 2", "3.5"),
    ("3\\tfrac{1}{2}", "3.5"),
    ("\\frac12", "0.5"),
    ("\\frac1{12}", "1/12"),
    ("\\frac{1}2", "0.5"),
    ("1e3", "1000"),
    ("18 cm²", "18"),
    ("18 cm⁴", "18"),
    ("\\frac{1}{2}3", None),
    ("3\\frac{x}{2}", None),
    ("\\frac{1.5}{2}", None),
    ("½2", None),
    ("2⅓⅓", None),
    ("⅟4", None),
    ("2½/3", None),
    ("2½-inch", None),
    ("2 and a half", None),
    ("2 and 3/2", None),
    ("10²", None),
    ("10⁻²", None),
    ("2^{10}", None),
    ("10₂", None),
    ("5⑤", None),
    ("1\u0663", None),  # a digit of another script
    ("12\u066b5", None),  # an Arabic decimal point
    ("\uff11\uff18", None),  # digits in full width
    ("1 000", None),
    ("1 000 000", None),
    ("1\u202f000", None),
    ("1'000", None),
    ("5:30", None),
    ("3 \\times 4", None),
    ("12 \\div 4", None),
    ("3 · 4", None),
    ("2\\sqrt{2}", None),
    ("√16", None),
    ("\\sqrt[3]{8}", None),
    ("5π", None),
    ("5 ± 1", None),
]


@pytest.mark.parametrize(("text", "expected"), SPELLED)
def test_a_number_that_is_not_read_is_none_and_not_its_first_digits(text: str, expected: str | None) -> None:
    assert canonical_number(text) == expected
    assert stated_number(f" {text}.") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 18 eggs. She has 20 hens.", "18"),
        (" $1,234.50.", "1234.5"),
        (": **18**", "18"),
        (":\n\n18 eggs\n19 hens", "18"),
        (" 13 + 14 = 27.", "27"),
        (" (4.67 + 12) / 2 = 7.33 rolls.", "7.33"),
        (" x = 27 - 7 = 20.", "20"),
        (" 90 minutes / 2 = 45 minutes.", "45"),
        (" 66 - 10 = <<66-10=56>>56 students.", "56"),
        (" 18, because 3 * 6 = 18 and 2 + 2 = 4.", "18"),
        (" 3 hours and 30 minutes.", "3"),
        (" -$5.", "-5"),
        (" $3 - $5 = -$2.", "-2"),
        (" 160 - ?.", None),
        (" 49 - x.", None),
        (" 4.5*x + 4*y.", None),
        (" 7/20 = 35%.", "35"),
        (" 5² = 25.", "25"),
        (" \\sqrt{16} = 4.", "4"),
        (" 3 \\times 4 = 12.", "12"),
        (" 50% of 12 = 6.", "6"),
        (" ½ of 12 = 6.", "6"),
        (" 24 - 9 =", None),
        (" for Q1 only.", None),
        (" impossible.", None),
        ("", None),
    ],
)
def test_a_statement_gives_its_first_number_or_the_right_side_of_its_equation(text: str, expected: str | None) -> None:
    assert stated_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So \\boxed{18}.", "18"),
        ("\\boxed{1} then \\boxed{2}, of 3", "2"),
        ("\\boxed{x = 18}", "18"),
        ("\\boxed{{18}}", "18"),
        ("\\boxed{\\text{Total: }18}", "18"),
        ("\\boxed{18", "18"),
        ("\\boxed{none} 5", None),
        ("18", None),
    ],
)
def test_the_last_box_counts(text: str, expected: str | None) -> None:
    assert boxed_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He has 3, she has 4 apples.", "4"),
        ("Total:\n- 3 pens\n- 4 cards", "4"),  # bullets are no signs
        ("Debt: -4", "-4"),
        ("Debt = - $4", "-4"),
        ("it fell to -4 degrees", "-4"),
        ("It is ...5", "5"),
        ("So 10-5", None),
        ("a case of COVID-19", None),
        ("so x - 4", None),
        ("so 4 x 6", None),
        ("so 10 - (5", None),
        ("so x - (5", None),
        ("in all 10 - 5 apples", None),
        ("9 * (3 + 4", None),
        ("She runs the 400-meter hurdles in 36 seconds, a 2-second gain.", "36"),
        ("Q3. How many?", None),
        ("It was on 2024-01-15", None),
        ("So 1 000 in all", None),
        ("So 3 + 15 = \uff11\uff18", None),
        ("He has 3 and eats ½", "0.5"),
        ("She runs 5 200-meter laps", "5"),
        ("none", None),
    ],
)
def test_the_last_number_of_a_text(text: str, expected: str | None) -> None:
    assert last_number(text) == expected


def test_equality_is_exact() -> None:
    """1.50 = 3/2 and 1,000 = 1000.0 as rationals; 33.33 differs from 100/3 by 1/300; words equal only themselves."""
    assert numbers_equal("1.50", "3/2")
    assert numbers_equal("1,000", "1000.0")
    assert numbers_equal("$-5", "\u22125")
    assert not numbers_equal("33.33", "100/3")
    assert not numbers_equal("1", "1.00001")
    assert numbers_equal("red", "red")
    assert not numbers_equal("red", "blue")


@given(st.fractions(max_denominator=10**20).filter(lambda value: abs(value.numerator) < 10**40))
@settings(deadline=None)
def test_the_canonical_form_keeps_the_value_and_is_its_own_form(value: Fraction) -> None:
    form = canonical_number(str(value))
    assert form is not None
    assert Fraction(form) == value
    assert canonical_number(form) == form


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
@settings(deadline=None)
def test_spellings_of_a_decimal_share_one_form(units: int, zeros: int) -> None:
    """Hundredths with commas, currency and trailing zeros: 1234.50 = $1,234.500 = **1234.5**."""
    sign, whole, hundredths = "-" if units < 0 else "", abs(units) // 100, abs(units) % 100
    plain = canonical_number(f"{sign}{whole}.{hundredths:02d}")
    assert plain is not None
    assert Fraction(plain) == Fraction(units, 100)
    assert canonical_number(f"{sign}${whole:,}.{hundredths:02d}" + "0" * zeros) == plain
    assert canonical_number(f"**{sign}{whole}.{hundredths:02d}**.") == plain


PIECES = [
    *"0123456789.,:/-+*=x$%eE_()[]{}^ \n#AQ",
    "\u2212",
    "\u0663",
    "\u00bd",
    "\u00b2",
    "\\frac{",
    "\\frac",
    "\\boxed{",
]
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@given(st.one_of(st.text(max_size=80), HOSTILE))
@settings(deadline=None)
def test_reading_never_raises_and_gives_canonical_forms(text: str) -> None:
    for read in READERS:
        form = read(text)
        assert form is None or canonical_number(form) == form


@given(st.lists(st.one_of(HOSTILE, st.sampled_from(["1/2", "0.5", ".50", "2/4", "50%", "50"])), min_size=3, max_size=3))
@settings(deadline=None)
def test_equality_is_an_equivalence(texts: list[str]) -> None:
    first, second, third = texts
    assert numbers_equal(first, first)
    assert numbers_equal(first, second) == numbers_equal(second, first)
    if numbers_equal(first, second) and numbers_equal(second, third):
        assert numbers_equal(first, third)


@pytest.mark.parametrize(
    "unit",
    [
        "1,",
        "9",
        "$-",
        "1/",
        "1.",
        "1 ",
        "- ",
        "-",
        "1 1/1 ",
        "100 ",
        "1 and 1/1 ",
        "½",
        "\\frac1",
        "1,1-a ",
        "1e",
        "**",
        "\\boxed{",
        "\\text{",
        "{",
        "=",
        "\n",
    ],
)
@pytest.mark.usefixtures("linear_time")
def test_reading_takes_linear_time(unit: str) -> None:
    """200,000 characters, over which a quadratic pattern would take minutes."""
    text = unit * (200_000 // len(unit)) + "1-a"
    for read in READERS:
        number = read(text)
        assert number is None or canonical_number(number) == number


@pytest.mark.parametrize(
    ("number", "other", "agree"),
    [
        ("0.8333333333333334", "5/6", True),
        ("0.833", "5/6", True),  # 0.833 and 0.83333 are both 0.833 in thousandths
        ("0.83", "5/6", False),
        ("3244047.0999999996", "3244047.1", True),
        ("24", "24.0004", True),
        ("24", "24.0006", False),  # 24.001 in thousandths
        ("24", "-24", False),
        ("0.0000005158", "0", True),
        ("$1,000", "1000", True),
        ("1/3", "2/6", True),
        ("two", "two", True),
        ("two", "2", False),
        ("", "0", False),
    ],
)
def test_numbers_agree_in_thousandths(number: str, other: str, agree: bool) -> None:
    assert numbers_agree(number, other) == numbers_agree(other, number) == agree


@given(*[st.decimals(-10, 10, places=4)] * 3)
@settings(deadline=None)
def test_agreement_is_transitive_and_within_a_thousandth(a: object, b: object, c: object) -> None:
    if numbers_agree(str(a), str(b)):
        assert abs(Fraction(str(a)) - Fraction(str(b))) <= Fraction(1, 1000)
        assert numbers_agree(str(b), str(c)) == numbers_agree(str(a), str(c))
