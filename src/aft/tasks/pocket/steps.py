"""The check of chains of thought: each step for its form, its events, their direction and its arithmetic."""

import re
from dataclasses import dataclass

from aft.errors import DataError
from aft.tasks.answers import after_thoughts
from aft.tasks.base import Question
from aft.tasks.pocket.answers import extract_answer
from aft.tasks.pocket.solutions import Part
from aft.tasks.pocket.stories import EVENT, EVENTS, GAINS, NUMBER, Event, listed, parse_story

# The three forms of a step: "finds 7, sells 5: 7 - 5 = 2 more.", "gains finds 7, buys 2: 7 + 2 = 9." with the equation
# only where there are several, and "finds 7: 20 + 7 = 27.", with the name of an earlier sum in place of an event.
_PAIR = re.compile(rf"({EVENT}, {EVENT}): ({NUMBER}) ([+-]) ({NUMBER}) = ({NUMBER}) (more|fewer)\.")
_KIND = re.compile(rf"(gains|losses) ({EVENT}(?:, {EVENT})*): ({NUMBER}(?: \+ {NUMBER})*)(?: = (-?{NUMBER}))?\.")
_TAKEN = re.compile(rf"({EVENT}|gains|losses|more|fewer): (-?{NUMBER}) ([+-]) ({NUMBER}) = (-?{NUMBER})\.")
_OTHER_AMOUNTS = "has other amounts in its equation than it takes"
WRONG_DIRECTION = "takes a gain for a loss, or a loss for a gain"
WRONG_ARITHMETIC = "has a sum that is not right"
_EQUATION = re.compile(r"-?[0-9]++(?: [+-] [0-9]++)*+(?: = -?[0-9]++)?")


def wrong_steps(question: Question, response: str) -> list[str]:
    """One sentence per wrong step, none where there is no fault, and then the final answer is right; linear in time.

    Each line before the first that begins with `####` is a step. It is wrong for the first of these faults that it has:
    it is of no known form; it takes an event that the story does not tell, or not with this amount, or that was taken
    before, or a sum that no step made; its equation has other amounts; it takes a gain for a loss or the reverse; it
    starts from another total than the step before gave; its arithmetic is wrong. Beside these count each event and each
    sum that no step takes, and a final answer that is missing or not the last total.

    A step is judged by what the steps before it said, right or wrong, so that a fault counts once; a line of no form
    may have given any total. Raises `DataError` for a question that tells no story.
    """
    story = parse_story(question.question)
    if story is None:
        raise DataError(f"The question {question.question_id} tells no pocket story; make the questions again.")
    lines, final = _before_answer(response)
    told = _Told({event.verb: event for event in story.events}, [], story.start)
    faults = [(line, _fault(line, told)) for line in lines]
    wrong = [f'"{line[:80]}" {fault}.' for line, fault in faults if fault]
    wrong += [f"No step takes {listed([event])}." for event in told.events.values()]
    wrong += [f"No step takes the sum of {abs(amount)} {name}." for name, amount in told.sums]
    answer = extract_answer(final)
    if answer is None:
        wrong.append("There is no final answer.")
    elif told.total not in (None, int(answer)):
        wrong.append(f"The final answer is {answer}, but the last total {told.total}.")
    return wrong


def equations(response: str) -> list[str]:
    """The equations before the final answer, in order, without blanks: "20+7=27"."""
    lines, _ = _before_answer(response)
    numbers = (found.group() for line in lines for found in _EQUATION.finditer(line))
    return [number.replace(" ", "") for number in numbers if "=" in number]


def _before_answer(response: str) -> tuple[list[str], str]:
    """The lines before the first that begins with `####`, and that line; it is empty where there is none."""
    lines = after_thoughts(response).split("\n")
    end = next((number for number, line in enumerate(lines) if line.startswith("####")), len(lines))
    return lines[:end], lines[end] if end < len(lines) else ""


@dataclass(slots=True)
class _Told:
    """What the steps so far have left, and where they have come to; the next one is judged by it."""

    events: dict[str, Event]  # that no step has taken yet, by verb
    sums: list[Part]  # that no step has taken yet
    total: int | None  # None after a line of no form

    def take(self, names: str) -> tuple[list[Event], str | None]:
        """The events that a step names, with the amounts that it gives them, and what is wrong with the first such."""
        events = [Event(verb, int(amount), verb in GAINS) for verb, amount in EVENTS.findall(names)]
        faults = [
            f"takes {listed([e])}, which is not there to take" for e in events if self.events.pop(e.verb, None) != e
        ]
        return events, faults[0] if faults else None

    def take_sum(self, name: str, amount: int) -> tuple[int, str | None]:
        """The signed amount of an earlier sum of that name, `amount` if there is such a one, and what is wrong."""
        known = [part for part in self.sums if part[0] == name]
        if not known:
            return amount, f"takes a sum of {name} that no step made"
        part = (name, amount) if (name, amount) in known else known[0]
        self.sums.remove(part)
        return part[1], None


def _fault(line: str, told: _Told) -> str | None:
    """What is wrong with one step, which is then entered into `told`; nothing is wrong with a blank line."""
    events_left = len(told.events)
    if pair := _PAIR.fullmatch(line):
        part, fault = _read_pair(pair, told)
    elif kind := _KIND.fullmatch(line):
        part, fault = _read_kind(kind, told)
    elif taken := _TAKEN.fullmatch(line):
        return _read_taken(taken, told)
    elif not line.strip():
        return None
    else:
        told.take(line)
        told.total = None
        return "is no step of a known form"
    if len(told.events) < events_left:  # a sum of things that were there to take
        told.sums.append(part)
    return fault


def _read_pair(pair: re.Match[str], told: _Told) -> tuple[Part, str | None]:
    """The sum that a step over two neighbours makes, and what is wrong with it."""
    names, a, sign, b, result, direction = pair.groups()
    events, fault = told.take(names)
    change = int(result) if direction == "more" else -int(result)
    if fault is None and sorted((int(a), int(b))) != sorted(event.amount for event in events):
        fault = _OTHER_AMOUNTS
    elif fault is None and (sign == "+") != (events[0].gain == events[1].gain):
        fault = WRONG_DIRECTION
    elif fault is None and int(a) + int(sign + b) != int(result):
        fault = WRONG_ARITHMETIC
    elif fault is None and change != sum(event.signed for event in events):
        fault = WRONG_DIRECTION
    return (direction, change), fault


def _read_kind(kind: re.Match[str], told: _Told) -> tuple[Part, str | None]:
    """The sum that a step over gains, or over losses, makes, and what is wrong with it."""
    name, names, terms, result = kind.groups()
    amounts = [int(term) for term in terms.split(" + ")]
    events, fault = told.take(names)
    total = int(result) if result else sum(amounts)
    if fault is None and sorted(amounts) != sorted(event.amount for event in events):
        fault = _OTHER_AMOUNTS
    elif fault is None and any(event.gain != (name == "gains") for event in events):
        fault = WRONG_DIRECTION
    elif fault is None and (total != sum(amounts) or (not result and len(amounts) > 1)):
        fault = WRONG_ARITHMETIC
    return (name, total if name == "gains" else -total), fault


def _read_taken(taken: re.Match[str], told: _Told) -> str | None:
    """What is wrong with a step that adds an event or a sum to the total."""
    name, start, sign, amount, result = taken.groups()
    signed = int(sign + amount)
    events, fault = told.take(name)
    change = events[0].signed if events else 0
    if not events:
        change, fault = told.take_sum(name, signed)
    expected, told.total = told.total, int(result)
    if fault:
        return fault
    if abs(change) != abs(signed):
        return _OTHER_AMOUNTS
    if change != signed:
        return WRONG_DIRECTION
    if expected not in (None, int(start)):
        return f"starts from {start} where the total is {expected}"
    return WRONG_ARITHMETIC if int(start) + signed != int(result) else None
