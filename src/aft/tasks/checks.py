"""How answers are checked where the settings say so: what marks the answer of a response, and when two are the same.

A number is read and compared exactly (`aft.tasks.answers`); a choice is a letter, A to E; a text counts without case,
white space and punctuation at its ends; LaTeX is compared by math-verify (`aft.tasks.latex`). What a model thinks, up
to the last `</think>`, is no answer, and nothing counts from the next problem on that it sets itself.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from aft.tasks import multiple_choice
from aft.tasks.answers import after_thoughts, canonical_number, last_match, last_number, numbers_equal, stated_number
from aft.tasks.base import Question
from aft.tasks.latex import canonical_latex, last_box, latex_equal
from aft.tasks.run_on import own_part

Check = Literal["number", "choice", "text", "math"]
Marker = Literal["hashes", "answer_is", "boxed", "after_think"]

_THOUGHT = "</think>"
_HASHES = re.compile(r"(?<!#)####(?!#)")
_ANSWER_IS = re.compile(r"\banswer(?:[ ]is\b:?|[*_]{0,2}:)[*_]{0,2}(?=[\W_]{0,40}[^\W_])", re.IGNORECASE)
_ENDINGS: Mapping[Marker, tuple[str, str, str]] = {  # what stands before the reasoning, after it, and after the answer
    "hashes": ("", "\n#### ", ""),
    "answer_is": ("", "\nThe answer is ", "."),
    "boxed": ("", "\nThe answer is $\\boxed{", "}$."),
    "after_think": ("<think>\n", f"\n{_THOUGHT}\n", ""),
}


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """A task family (`aft.tasks.base.Task`) without questions of its own: they come with their prompts."""

    check: Check
    marker: Marker

    def prompt(self, question: Question) -> str:
        """As the settings made it."""
        return question.prompt

    def extract_answer(self, response: str, *, strict: bool = True) -> str | None:
        """The canonical answer after the marker, None if there is none; total and linear in time.

        Of several `####` the first counts, of the other markers the last. Without `strict`, where the own marker marks
        nothing, the others are tried.
        """
        has_thought, own = _THOUGHT in response, own_part(after_thoughts(response))
        for marker in (self.marker,) if strict else (self.marker, *_MARKED):
            marked = _MARKED[marker](own) if has_thought or marker != "after_think" else None
            answer = self._read(marked, marker) if marked is not None else None
            if answer is not None:
                return answer
        return None

    def canonical(self, answer: str) -> str | None:
        """An answer that stands alone in canonical form, None if it is none."""
        return self._read(answer, "hashes")

    def answers_equal(self, answer: str, other: str) -> bool:
        """Whether two canonical answers are the same."""
        return {"number": numbers_equal, "math": latex_equal}.get(self.check, str.__eq__)(answer, other)

    def with_answer(self, reasoning: str, answer: str) -> str:
        """A reference: the reasoning, and the answer behind its marker."""
        before, between, after = _ENDINGS[self.marker]
        return f"{before}{reasoning}{between}{answer}{after}".lstrip()

    def _read(self, marked: str, marker: Marker) -> str | None:
        match self.check:
            case "number":
                return _NUMBERS[marker](marked)
            case "choice":
                strict = marker in ("hashes", "boxed")  # nothing but the letter, or an option that begins with it
                opening = "#### " if strict else "The answer is " if marker == "answer_is" else ""
                return multiple_choice.extract_answer(opening + marked, strict=strict)
            case "text":
                return _canonical_text(marked)
            case "math":
                return canonical_latex(marked)


def _canonical_text(text: str) -> str | None:
    return " ".join(unicodedata.normalize("NFC", text).split()).strip(" .,;:!?\"'`*$").casefold() or None


def _line_after(found: re.Match[str] | None) -> str | None:
    return found.string[found.end() :].strip().partition("\n")[0] if found else None


_MARKED: Mapping[Marker, Callable[[str], str | None]] = {
    "hashes": lambda text: _line_after(_HASHES.search(text)),
    "answer_is": lambda text: _line_after(last_match(_ANSWER_IS, text)),
    "boxed": last_box,
    "after_think": str.strip,
}
_NUMBERS: Mapping[Marker, Callable[[str], str | None]] = {  # how much may stand beside the number
    "hashes": canonical_number,
    "answer_is": stated_number,
    "boxed": stated_number,
    "after_think": last_number,
}

OWN: Mapping[str, AnswerCheck] = {
    f"jsonl/{check}/{marker}": AnswerCheck(check, marker)
    for check, marker in product(get_args(Check), get_args(Marker))
}
"""By what the questions of `aft.tasks.jsonl` have for their dataset, which goes with them wherever they are checked."""
