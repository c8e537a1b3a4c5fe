"""Questions with options: how they are asked, and which option a response chooses.

The canonical answer is the letter of an option, A to E, and a reference ends in the line `#### C`. What an option says
plays no part in the check, which sees the response alone: options repeat one another, and contain one another.

Text is untrusted: every function is total, and every pattern takes linear time, because it repeats within bounds.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aft.errors import DataError
from aft.tasks import gsm8k
from aft.tasks.answers import after_thoughts, last_match
from aft.tasks.base import Question, content_hash
from aft.tasks.rows import checked_text
from aft.tasks.run_on import own_part

LETTERS = "ABCDE"

_MARKED = re.compile(r"(?<!#)####(?!#)([^\n]*)")
# (c), but not f(c), and option c
_NAMED = re.compile(r"(?<!\w)(?:[(\[][ ]?([A-Ea-e])[ ]?[)\]]|[Oo]ption[ ]([A-Ea-e]))(?!\w)")
# A line that is a letter, or that begins with one as options do: "C", "(c).", "C) 24", "**C**: 24"
_ALONE = re.compile(
    r"""[\s(\[{*_"'`$]{0,8}(?:\\(?:boxed|text|textbf|mathrm)[ ]?\{[\s(*]{0,4}){0,2}
        (?P<letter>[A-Ea-e])
        (?: [\s)\]}.:*_"'`$]{0,12}\Z | [*_]{0,2}[)\]:.][*_]{0,2}[ ](?P<option>[^\n]{0,2000})\Z )""",
    re.VERBOSE,
)
# What follows "the answer is": a letter in brackets; else a capital that is no word and no variable of an equation;
# else a small letter on which the line ends, or before a colon.
_STATED = re.compile(
    r"""[\s:=*_"'`$\u2013-]{0,16}
        (?:(?i:the|correct|right|answer|option|choice|letter|is)\b[\s:*_"']{1,6}){0,5}
        (?: [(\[{][ ]?(?P<bracketed>[A-Ea-e])[ ]?[)\]}](?!\w)
          | (?<!\w)(?P<closed>[A-Ea-e])[ ]?[)\]](?!\w)
          | (?<!\w)(?P<capital>[A-E])(?![\w'\u2019(]|-\w|\*[ ]?[\w(]|[ ]?[=+/^<>\u00d7\u221a])
            (?!(?<=A)[ ](?!because|since|as\b|which|for\b|and\b|with\b)\w)
          | (?<!\w)(?P<small>[a-e])(?=[\s.*_"'`$]{0,8}(?:\n|\Z)|[ ]?:[ ])
        )""",
    re.VERBOSE,
)
_ANSWER_IS = re.compile(
    r"""\b(?:answer|ans)\b(?:[ ](?:choice|option))?[*_ ]{0,4}
        (?: (?:is|are|was|be|will[ ]be|would[ ]be|must[ ]be|should[ ]be)\b | [:=\u2013-] | (?<=ans)\.
          | (?= [(\[][A-E][)\]] | (?-i:[A-E])\b | [a-e][\s.]{0,8}(?:\n|\Z) ) )
        (?=[\W_]{0,40}[^\W_])                 # before nothing it is no marker""",
    re.IGNORECASE | re.VERBOSE,
)
_OPTION_IS = re.compile(
    r"""(?: \b(?:option|choice|alternative)s?\b[^\n.(]{0,60}?[ ](?:is|be)\b
          | \b(?:correct|right)[ ]?(?:option|choice)[ ]?: )
        (?=[\W_]{0,40}[^\W_])""",
    re.IGNORECASE | re.VERBOSE,
)
_IS_CORRECT = re.compile(
    r"""(?<![\w(])[(\[]?(?P<letter>[A-E])[)\]]?
        [ ](?:is|must[ ]be|would[ ]be)[ ](?:the[ ])?(?:correct|right|answer|best)""",
    re.VERBOSE,
)
_BOX = re.compile(r"\\boxed\{(?=\s{0,8}[^\s}])")
_BOXED = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf)[ ]?\{)?[\s(]{0,4}(?P<letter>[A-Ea-e])[ ]?[)}.:]")
_SENTENCE_END = re.compile(r"[.!?]\s+|\n\s*")
_LONGEST_STATEMENT = 300  # characters after "the answer is" in which a named letter counts


def prompt(question: Question) -> str:
    """The prompt of GSM8K, with the options after the question."""
    return gsm8k.prompt(replace(question, question=with_options(question.question, question.choices or ())))


def with_options(question: str, choices: Sequence[str]) -> str:
    """The question, and each of its options on a line of its own: "(A) 24"."""
    return question + "".join(f"\n({letter}) {text}" for letter, text in zip(LETTERS, choices, strict=False))


def extract_answer(response: str, *, strict: bool = True) -> str | None:
    """The letter of the option that a response chooses, None if there is none; total and linear in time.

    Strict: the letter on the line of the first `####`, alone or as options are written, "C) 24"; nothing counts from
    the next "Question:" on, which a model that does not stop at its answer asks itself (see `own_part`), and nothing in
    thoughts (see `after_thoughts`). Flexible, where the strict reading finds nothing, the first of: the letter in the
    last LaTeX box; after the last "answer is" or "Answer:"; after the last "option ... is", or before "is correct"; the
    only one that the last sentence names, as (c) or option c; the first line, if it is a letter or begins with one as
    options do. A marker that nothing follows is none.
    """
    own = own_part(after_thoughts(response))
    marked = _MARKED.search(own)
    answer = _alone(marked[1]) if marked else None
    if strict or answer:
        return answer
    return (
        _boxed(own)
        or _after_last(_ANSWER_IS, own)
        or _after_last(_OPTION_IS, own)
        or _called_correct(own)
        or _only_named(_last_sentence(own))
        or _alone(own.strip().partition("\n")[0])
    )


def answers_equal(answer: str, other: str) -> bool:
    """Whether two letters are the same."""
    return answer == other


def choice_question(
    *, question_id: str, split: str, question: str, choices: Any, answer: Any, reasoning: str, where: str
) -> Question:
    """A row with options as a `Question`; `question_id` begins with its family, `answer` is the letter of an option.

    Raises `DataError` for options that are no texts, fewer than two or more than `LETTERS`, and for another answer.
    """
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise DataError(f"{where} has no list of 2 to {len(LETTERS)} options; restore the published file.")
    options = tuple(checked_text(text, "an option", where) for text in choices)
    if not isinstance(answer, str) or answer not in tuple(LETTERS[: len(options)]):
        raise DataError(f"{where} has the answer {answer!r}, which is no letter of its options; restore the file.")
    return Question(
        question_id=question_id,
        dataset=question_id.partition("/")[0],
        split=split,
        question=question,
        choices=options,
        reference=f"{reasoning}\n#### {answer}".lstrip(),
        answer=answer,
        content_hash=content_hash(question, options),
    )


def _alone(line: str) -> str | None:
    """The letter that a line is, or begins with as options do; None if it goes on to another."""
    alone = _ALONE.match(line.strip())
    if alone is None or _NAMED.search(alone["option"] or ""):
        return None
    return alone["letter"].upper()


def _boxed(text: str) -> str | None:
    box = last_match(_BOX, text)
    boxed = _BOXED.match(text, box.end()) if box else None
    return boxed["letter"].upper() if boxed else None


def _after_last(marker: re.Pattern[str], text: str) -> str | None:
    """The letter right after the last match of `marker`, else the only one named in the rest of that line."""
    statement = last_match(marker, text)
    if statement is None:
        return None
    stated = _STATED.match(text, statement.end())
    if stated:
        return next(filter(None, stated.groups())).upper()
    rest = text[statement.end() : statement.end() + _LONGEST_STATEMENT]
    return _only_named(rest.lstrip().partition("\n")[0])


def _called_correct(text: str) -> str | None:
    called = last_match(_IS_CORRECT, text)
    return called["letter"] if called else None


def _only_named(text: str) -> str | None:
    letters = {named[named.lastindex or 0].upper() for named in _NAMED.finditer(text)}
    return letters.pop() if len(letters) == 1 else None


def _last_sentence(text: str) -> str:
    stripped, end = text.strip(), 0  # stripped, for no run of white space is looked at from each of its places
    for match in _SENTENCE_END.finditer(stripped):
        end = match.end()
    return stripped[end:]
