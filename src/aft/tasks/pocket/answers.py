"""Final answers: `#### N` at the end of a response."""

import re

from aft.tasks.answers import after_thoughts

# A whole number, and what makes it none: 7.5, 7½, 7 1/2, 7/2
_NUMBER = r"(-?[0-9]{1,6})(?![0-9])([.,/:][0-9]|[ ]?[\u00bc-\u00be\u2150-\u215e]|[ ][0-9]{1,6}/[0-9])?"
_FINAL_ANSWER = re.compile(rf"####[ \t]?{_NUMBER}")
_ANY_NUMBER = re.compile(rf"(?<![0-9]){_NUMBER}")


def extract_answer(response: str, *, strict: bool = True) -> str | None:
    """The number after the first `####`; without `strict`, the last number of the text counts where there is none.

    Answers are whole numbers: one with a fraction is no answer, and hides those elsewhere.
    """
    response = after_thoughts(response)
    marked = _FINAL_ANSWER.search(response)
    numbers = [marked.groups()] if marked else [] if strict else _ANY_NUMBER.findall(response)
    number, part = numbers[-1] if numbers else (None, None)
    return str(int(number)) if number and not part else None


def answers_equal(answer: str, other: str) -> bool:
    """Canonical answers are whole numbers without leading zeros."""
    return answer == other
