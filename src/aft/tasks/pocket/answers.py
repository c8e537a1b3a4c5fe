"""Final answers: `#### N` at the end of a response."""

import re

_FINAL_ANSWER = re.compile(r"####[ \t]?(-?[0-9]{1,6})(?![0-9])")


def extract_answer(response: str, *, strict: bool = True) -> str | None:
    """The number after the first `####`; without `strict`, the last number of the text counts where there is none."""
    marked = _FINAL_ANSWER.search(response)
    if marked:
        return str(int(marked.group(1)))
    numbers = [] if strict else re.findall(r"(?<![0-9])-?[0-9]{1,6}(?![0-9])", response)
    return str(int(numbers[-1])) if numbers else None


def answers_equal(answer: str, other: str) -> bool:
    """Canonical answers are whole numbers without leading zeros."""
    return answer == other
