"""Where a response ends: a model that does not stop at its answer sets itself the next problem, and answers that, too.

Text is untrusted: every pattern takes linear time, because what it repeats without a bound can be matched in one way
only.
"""

import re
from functools import lru_cache

_LONGEST_QUESTION = 1000  # characters of a line that are looked at
_WINDOW = 8  # and characters before it
# A line on which a model that does not stop begins with another problem. A solution may also set out its own problem
# or input: what is `likely` needs more signs than its first word ("Input: 5 apples" or "Human: 2 legs" is a line of a
# sum), what is `possible` an answer that was given before.
_NEXT_QUESTION = re.compile(
    r"""(?: \n | (?:</s>|<\|endoftext\|>|<\|im_end\|>)\s? )[ \t]{0,8}
        (?: \#\#\#[ ]Instruction | \[INST\] | <\|(?:user|im_start)\|>
          | Please[ ](?:answer|solve)\b | (?:Answer|Solve)[ ]the[ ]following\b
          | (?:\#{1,3}[ ]|[*_>]{1,3}[ ]?)?(?=[A-Z])
            (?: (?i:q|(?:(?:next|new|another)[ ])?question|instruction)[*_]{0,3}[ ]?:
              | (?P<likely> (?i: human | user
                   | (?:(?:next|new|another)[ ])?(?:problem|exercise|example|task|input)(?:[ ]\#?[0-9]{1,3})? )
                [*_]{0,3}[ ]?: )(?![ *_]{0,4}[$\u20ac\u00a3-]?[0-9][^\n?]{0,300}(?:\n|\Z)) )
          | (?P<possible> (?i: please[ ](?:answer|solve)\b
              | (?P<heading>\#{1,4}[ ]|\*\*)?(?:[*_>-]{1,3}[ ]?)?(?!(?:the|this|that|my|our)\b)
                (?: human | user
                  | (?:[a-z-]{1,15}[ ])?(?:problem|exercise|example|task|question|input)(?:[ ]statement)?
                    (?P<numbered>[ ]\#?[0-9]{1,3})? )
                [*_]{0,3}
                (?: [ ]?:(?![ *_]{0,4}[$\u20ac\u00a3-]?[0-9][^\n?]{0,300}(?:\n|\Z))
                  | (?(numbered)[.)][ ]|(?!)) | (?(heading)[ \t]{0,4}(?=\r?\n)|(?!)) ) ))
        )""",
    re.VERBOSE,
)
# A number that numbers no step, an answer, an option: a solution has come to something.
_WORKED_OUT = re.compile(
    r"(?<![Ss]tep )(?<![0-9])[0-9]++(?![.):][*_]{0,2}[ ]\S)|\b[Aa]nswer(?: is|[*_]{0,2}:)|\([A-Ea-e]\)"
)
# A final answer, a number or a letter.
_GIVEN = re.compile(
    r"""\\boxed\{
      | (?: (?<!\#)\#{4}(?!\#) | \banswer(?:[ ]is\b|[*_]{0,2}:) | (?:^|\n)A: )
        [\W_]{0,12}(?: [0-9] | (?-i:[A-E])\b | (?<=[(\[])[a-e][)\]] )
      | (?: \banswer(?:[ ]is\b|[*_]{0,2}:) | (?:^|\n)A: )[^\n0-9?]{0,100}+[0-9]""",
    re.IGNORECASE | re.VERBOSE,
)


@lru_cache(maxsize=8)  # a response is read for its answer and for its equations, a reference beside each of them
def own_part(response: str) -> str:
    """What stands before the next problem that a model sets itself; linear in time.

    It begins with a line such as "Question:" or "Please answer ...". "Problem:", "Exercise:", "Input:" or "Human:" may
    belong to a solution: it begins one after a final answer, or, where the response has come to a number or an option
    before, with two of three signs: an empty line before it, a number and a question mark in it. After a final answer
    less is enough: "## Problem" or "user:". The first line begins none: there it is the problem asked that is told
    again.
    """
    worked_out, given = _WORKED_OUT.search(response), _GIVEN.search(response)
    for opening in _NEXT_QUESTION.finditer(response, len(response) - len(response.lstrip())):
        is_certain = opening["likely"] is None and opening["possible"] is None
        is_next = opening["likely"] and worked_out and worked_out.start() < opening.start() and _tells_another(opening)
        if is_certain or is_next or (given and given.end() <= opening.start()):
            return response[: opening.start()]
    return response


def _tells_another(opening: re.Match[str]) -> bool:
    """Whether two of three signs are there that a line does not belong to the solution before it."""
    before = opening.string[max(0, opening.start() - _WINDOW) : opening.start()]
    line = opening.string[opening.end() : opening.end() + _LONGEST_QUESTION].lstrip(" *_\r\n").partition("\n")[0]
    return (before.rstrip(" \t\r")[-1:] == "\n") + (re.search("[0-9]", line) is not None) + ("?" in line) >= 2
