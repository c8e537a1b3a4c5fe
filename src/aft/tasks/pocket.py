"""Pocket: the generated task family that ships with AFT and needs no download.

A person holds a number of things, two to four events raise or lower it, "How many?". Every verb is truly a gain or a
loss. The reference reasons along one of several valid paths and ends in `#### N`:

- `in_order`: the events one by one;
- `gains_first`, `losses_first`: sum the gains and the losses, apply one sum and then the other;
- `neighbours`: take neighbouring events in pairs.

The settings can ask other questions of the same kind, with other numbers, other lengths or other words: what a model
has learned should carry over to these out-of-distribution sets.

`corpus` writes what the base model is pretrained on: the same texts, but for a third of the verbs (`MISCONCEIVED`) the
direction is mostly wrong, and any sum may slip. Fine-tuning on clean references leaves these misconceptions half alive.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from aft.errors import DataError, SettingsError
from aft.tasks.base import SPLITS, Question, content_hash

GAINS = (
    *("finds", "buys", "wins", "earns", "receives", "collects"),
    *("gathers", "borrows", "inherits", "unpacks", "makes", "picks"),
)
LOSSES = (
    *("sells", "loses", "drops", "breaks", "lends", "donates"),
    *("discards", "misplaces", "forfeits", "spends", "returns", "wastes"),
)
MISCONCEIVED = (*GAINS[-4:], *LOSSES[-4:])
PEOPLE = {
    "Mia": "She",
    "Ava": "She",
    "Zoe": "She",
    "Ida": "She",
    "Ben": "He",
    "Leo": "He",
    "Max": "He",
    "Tom": "He",
}
THINGS = ("pens", "cards", "shells", "stamps", "coins", "beads", "books", "stones")
PATHS = ("in_order", "gains_first", "losses_first", "neighbours")
CONNECTIVES = ("has", "How", "many", "gains", "losses", "more", "fewer")

GENERATED = True  # its questions resemble one another by design

_FINAL_ANSWER = re.compile(r"####[ \t]?(-?[0-9]{1,6})(?![0-9])")


Phrasing = Literal["plain", "named", "list", "question_first"]

# What the default questions and the corpus tell: the largest amount, the most that a start exceeds the losses by, and
# the fewest and most events.
_AMOUNTS, _SPARE = 9, 10
_FEWEST, _MOST = 2, 4

_MOST_IN_VAIN = 20_000  # draws in a row that bring no new question: there are hardly more


@dataclass(frozen=True, slots=True)
class Settings:
    """How many questions each split holds, the seed that they all follow from, and what they are like.

    A set of another name asks what the default settings cannot, whatever their seed: with amounts or events beyond
    theirs, or in another phrasing. So none of its questions is among their references or in the corpus.
    """

    train: int = 300
    validation: int = 400
    test: int = 1000
    seed: int = 0
    name: str = "pocket"  # the first part of every question id
    amounts: int = _AMOUNTS  # the largest amount of an event
    spare: int = _SPARE  # the most that the start exceeds the losses by
    fewest_events: int = _FEWEST
    most_events: int = _MOST
    phrasing: Phrasing = "plain"  # the others ask in words that are known, but in another order; "named" is the nearest

    def __post_init__(self) -> None:
        if min(self.train, self.validation, self.test) < 1:
            raise SettingsError("Every split of the pocket task needs at least one question.")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", self.name):
            raise SettingsError(
                f"The name '{self.name}' of a pocket set must be up to 40 letters, digits or '_', '.', '-'."
            )
        for name in ("amounts", "spare"):
            if not 1 <= getattr(self, name) <= 9999:
                raise SettingsError(f"The setting '{name}' is {getattr(self, name)}, but must lie in 1 ... 9999.")
        if not 1 <= self.fewest_events <= self.most_events <= len(GAINS + LOSSES):
            raise SettingsError(
                f"fewest_events ({self.fewest_events}) and most_events ({self.most_events}) must be ordered and lie in "
                f"1 ... {len(GAINS + LOSSES)}, the number of verbs."
            )
        if self.phrasing not in get_args(Phrasing):
            raise SettingsError(f"The phrasing '{self.phrasing}' is none of {', '.join(get_args(Phrasing))}.")
        beyond = (
            self.phrasing != "plain"
            or self.amounts > _AMOUNTS
            or self.spare > _SPARE
            or self.fewest_events < _FEWEST
            or self.most_events > _MOST
        )
        own = (self.amounts, self.spare, self.fewest_events, self.most_events)
        is_default = not beyond and own == (_AMOUNTS, _SPARE, _FEWEST, _MOST)
        if not (is_default if self.name == "pocket" else beyond):
            raise SettingsError(
                f"The set 'pocket' has amounts of 1 ... {_AMOUNTS}, {_FEWEST} ... {_MOST} events, plain phrasing: give "
                "a set with larger amounts, more to spare, fewer or more events, or another phrasing its own name, and "
                "only such a one."
            )


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `amount` things come (`gain`) or go."""

    verb: str
    amount: int
    gain: bool


@dataclass(frozen=True, slots=True)
class Story:
    """What a question tells: who holds how many of what, the events in order, and how it is asked."""

    person: str
    thing: str
    start: int
    events: tuple[Event, ...]
    phrasing: Phrasing = "plain"

    @property
    def question(self) -> str:
        """The story as asked."""
        opening = f"{self.person} has {self.start} {self.thing}"
        if self.phrasing == "list":
            return f"{opening}, {_told(self.events)}. How many?"
        who = self.person if self.phrasing == "named" else PEOPLE[self.person]
        told = " ".join(f"{who} {_told([event])}." for event in self.events)
        if self.phrasing == "question_first":
            return f"How many {self.thing} has {self.person}? {opening}. {told}"
        return f"{opening}. {told} How many?"

    @property
    def answer(self) -> int:
        """The number of things at the end."""
        return self.start + sum(map(_signed, self.events))


_DEFAULT = Settings()


def draw_story(rng: random.Random, settings: Settings = _DEFAULT) -> Story:
    """A random story in which no true path ever goes below zero."""
    verbs = rng.sample(GAINS + LOSSES, rng.randint(settings.fewest_events, settings.most_events))
    events = tuple(Event(verb, rng.randint(1, settings.amounts), verb in GAINS) for verb in verbs)
    lost = sum(event.amount for event in events if not event.gain)
    start = lost + rng.randint(1, settings.spare)
    return Story(rng.choice(list(PEOPLE)), rng.choice(THINGS), start, events, settings.phrasing)


def _is_default(story: Story) -> bool:
    """Whether the default settings can tell this story, too."""
    lost = sum(event.amount for event in story.events if not event.gain)
    largest = max(event.amount for event in story.events)
    return (
        story.phrasing == "plain"
        and _FEWEST <= len(story.events) <= _MOST
        and largest <= _AMOUNTS
        and story.start - lost <= _SPARE
    )


def load_questions(settings: Settings) -> dict[str, list[Question]]:
    """Generate the splits, disjoint by content hash; the same settings give the same questions.

    Raises `SettingsError` if there are not as many different questions as asked for.
    """
    rng = random.Random(f"{settings.name} questions {settings.seed}")
    sizes = dict(zip(SPLITS, (settings.train, settings.validation, settings.test), strict=True))
    stories = _new_stories(rng, settings)
    questions: dict[str, list[Question]] = {}
    for split, size in sizes.items():
        questions[split] = []
        for number in range(size):
            story, hashed = next(stories)
            question_id = f"{settings.name}/{split}/{number:05d}"
            questions[split].append(_question(story, split, question_id, hashed, rng.choice(PATHS)))
    return questions


def _new_stories(rng: random.Random, settings: Settings) -> Iterator[tuple[Story, str]]:
    """Stories with the content hash of their question, none of them twice, and default ones only under the default."""
    seen: set[str] = set()
    in_vain = 0
    while in_vain < _MOST_IN_VAIN:
        story = draw_story(rng, settings)
        hashed = content_hash(story.question)
        in_vain += 1
        if hashed not in seen and (settings.name == _DEFAULT.name or not _is_default(story)):
            seen.add(hashed)
            in_vain = 0
            yield story, hashed
    raise SettingsError(
        f"The pocket set '{settings.name}' has hardly more than {len(seen)} different questions; ask for fewer, or "
        "allow larger amounts or more events."
    )


def _question(story: Story, split: str, question_id: str, hashed: str, path: str) -> Question:
    return Question(
        question_id=question_id,
        dataset="pocket",
        split=split,
        question=story.question,
        choices=None,
        reference=solution(story.start, story.events, path),
        answer=str(story.answer),
        content_hash=hashed,
    )


def prompt(question: Question) -> str:
    """The question on its own line; the response begins on the next."""
    return f"{question.question}\n"


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


# --- the chains of thought ------------------------------------------------------------------------------------------

Sum = Callable[[int, int], int]  # how a step adds two numbers: exactly, or with slips
_Part = tuple[str, int]  # what a path takes together: "finds 7, sells 5" and its signed amount


def solution(start: int, events: tuple[Event, ...], path: str, add: Sum = lambda a, b: a + b) -> str:
    """The COT along `path`, one step a line, with the final answer as its last line.

    Events count in the direction that they carry, which need not be the true one; `add` makes every sum.
    """
    lines: list[str] = []
    if path == "in_order":
        parts = [(_told([event]), _signed(event)) for event in events]
    elif path == "neighbours":
        parts = [_together(events[i : i + 2], add, lines) for i in range(0, len(events), 2)]
    else:
        wanted = (True, False) if path == "gains_first" else (False, True)
        parts = [_kind(events, gain, add, lines) for gain in wanted if any(e.gain == gain for e in events)]
    total = start
    for told, amount in parts:
        result = add(total, amount)
        lines.append(f"{told}: {total} {'-' if amount < 0 else '+'} {abs(amount)} = {result}.")
        total = result
    return "\n".join([*lines, f"#### {total}"])


def _signed(event: Event) -> int:
    return event.amount if event.gain else -event.amount


def _told(events: list[Event] | tuple[Event, ...]) -> str:
    return ", ".join(f"{event.verb} {event.amount}" for event in events)


def _together(pair: tuple[Event, ...], add: Sum, lines: list[str]) -> _Part:
    """Two neighbouring events become one amount, in a line of its own; an odd last event stays as it is."""
    if len(pair) == 1:
        return _told(pair), _signed(pair[0])
    large, small = sorted(pair, key=lambda event: event.amount, reverse=True)
    sign = "+" if large.gain == small.gain else "-"
    result = abs(add(large.amount, small.amount if sign == "+" else -small.amount))
    direction = "more" if large.gain else "fewer"
    lines.append(f"{_told(pair)}: {large.amount} {sign} {small.amount} = {result} {direction}.")
    return direction, result if large.gain else -result


def _kind(events: tuple[Event, ...], gain: bool, add: Sum, lines: list[str]) -> _Part:
    """All gains, or all losses, become one amount."""
    chosen = [event for event in events if event.gain == gain]
    name = "gains" if gain else "losses"
    total = chosen[0].amount
    terms = " + ".join(str(event.amount) for event in chosen)
    for event in chosen[1:]:
        total = add(total, event.amount)
    lines.append(f"{name} {_told(chosen)}: {terms}{f' = {total}' if len(chosen) > 1 else ''}.")
    return name, total if gain else -total


# --- the check of chains of thought ---------------------------------------------------------------------------------

_N = "[0-9]{1,9}"
_E = f"[a-z]{{1,20}} {_N}"
_EVENT = re.compile(f"([a-z]{{1,20}}) ({_N})")
_OPENING = f"(?P<person>[A-Z][a-z]*) has (?P<start>{_N}) (?P<thing>[a-z]+)"
_PLAIN = re.compile(rf"{_OPENING}\.(?P<events>(?: [A-Z][a-z]+ {_E}\.)+) How many\?")
_STORIES: dict[Phrasing, re.Pattern[str]] = {
    "plain": _PLAIN,
    "named": _PLAIN,
    "list": re.compile(rf"{_OPENING}(?P<events>(?:, {_E})+)\. How many\?"),
    "question_first": re.compile(
        rf"How many [a-z]+ has [A-Z][a-z]*\? {_OPENING}\.(?P<events>(?: [A-Z][a-z]+ {_E}\.)+)"
    ),
}
# The three forms of a step: "finds 7, sells 5: 7 - 5 = 2 more.", "gains finds 7, buys 2: 7 + 2 = 9." with the equation
# only where there are several, and "finds 7: 20 + 7 = 27.", with the name of an earlier sum in place of an event.
_PAIR = re.compile(rf"({_E}, {_E}): ({_N}) ([+-]) ({_N}) = ({_N}) (more|fewer)\.")
_KIND = re.compile(rf"(gains|losses) ({_E}(?:, {_E})*): ({_N}(?: \+ {_N})*)(?: = (-?{_N}))?\.")
_TAKEN = re.compile(rf"({_E}|gains|losses|more|fewer): (-?{_N}) ([+-]) ({_N}) = (-?{_N})\.")
_OTHER_AMOUNTS = "has other amounts in its equation than it takes"
_WRONG_DIRECTION = "takes a gain for a loss, or a loss for a gain"
_WRONG_ARITHMETIC = "has a sum that is not right"
_EQUATION = re.compile(r"-?[0-9]++(?: [+-] [0-9]++)*+(?: = -?[0-9]++)?")


def parse_story(text: str) -> Story | None:
    """The story that `Story.question` puts into these words, None for any other text."""
    for phrasing, pattern in _STORIES.items():
        told = pattern.fullmatch(text)
        if told and told["person"] in PEOPLE:
            events = tuple(Event(verb, int(n), verb in GAINS) for verb, n in _EVENT.findall(told["events"]))
            story = Story(told["person"], told["thing"], int(told["start"]), events, phrasing)
            verbs = [event.verb for event in events]
            known = story.thing in THINGS and len(set(verbs)) == len(verbs) and set(verbs) <= {*GAINS, *LOSSES}
            if known and story.question == text:
                return story
    return None


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
    wrong += [f"No step takes {_told([event])}." for event in told.events.values()]
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
    lines = response.split("\n")
    end = next((number for number, line in enumerate(lines) if line.startswith("####")), len(lines))
    return lines[:end], lines[end] if end < len(lines) else ""


@dataclass(slots=True)
class _Told:
    """What the steps so far have left, and where they have come to; the next one is judged by it."""

    events: dict[str, Event]  # that no step has taken yet, by verb
    sums: list[_Part]  # that no step has taken yet
    total: int | None  # None after a line of no form

    def take(self, names: str) -> tuple[list[Event], str | None]:
        """The events that a step names, with the amounts that it gives them, and what is wrong with the first such."""
        events = [Event(verb, int(amount), verb in GAINS) for verb, amount in _EVENT.findall(names)]
        faults = [
            f"takes {_told([e])}, which is not there to take" for e in events if self.events.pop(e.verb, None) != e
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


def _read_pair(pair: re.Match[str], told: _Told) -> tuple[_Part, str | None]:
    """The sum that a step over two neighbours makes, and what is wrong with it."""
    names, a, sign, b, result, direction = pair.groups()
    events, fault = told.take(names)
    change = int(result) if direction == "more" else -int(result)
    if fault is None and sorted((int(a), int(b))) != sorted(event.amount for event in events):
        fault = _OTHER_AMOUNTS
    elif fault is None and (sign == "+") != (events[0].gain == events[1].gain):
        fault = _WRONG_DIRECTION
    elif fault is None and int(a) + int(sign + b) != int(result):
        fault = _WRONG_ARITHMETIC
    elif fault is None and change != sum(map(_signed, events)):
        fault = _WRONG_DIRECTION
    return (direction, change), fault


def _read_kind(kind: re.Match[str], told: _Told) -> tuple[_Part, str | None]:
    """The sum that a step over gains, or over losses, makes, and what is wrong with it."""
    name, names, terms, result = kind.groups()
    amounts = [int(term) for term in terms.split(" + ")]
    events, fault = told.take(names)
    total = int(result) if result else sum(amounts)
    if fault is None and sorted(amounts) != sorted(event.amount for event in events):
        fault = _OTHER_AMOUNTS
    elif fault is None and any(event.gain != (name == "gains") for event in events):
        fault = _WRONG_DIRECTION
    elif fault is None and (total != sum(amounts) or (not result and len(amounts) > 1)):
        fault = _WRONG_ARITHMETIC
    return (name, total if name == "gains" else -total), fault


def _read_taken(taken: re.Match[str], told: _Told) -> str | None:
    """What is wrong with a step that adds an event or a sum to the total."""
    name, start, sign, amount, result = taken.groups()
    signed = int(sign + amount)
    events, fault = told.take(name)
    change = _signed(events[0]) if events else 0
    if not events:
        change, fault = told.take_sum(name, signed)
    expected, told.total = told.total, int(result)
    if fault:
        return fault
    if abs(change) != abs(signed):
        return _OTHER_AMOUNTS
    if change != signed:
        return _WRONG_DIRECTION
    if expected not in (None, int(start)):
        return f"starts from {start} where the total is {expected}"
    return _WRONG_ARITHMETIC if int(start) + signed != int(result) else None


# --- the flawed corpus of the base model ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Corpus:
    """The texts that the pocket base model is pretrained on."""

    texts: int = 90_000  # how many question-and-answer texts
    misconception: float = 0.7  # how often a misconceived verb is taken in the wrong direction
    slip: float = 0.02  # how often any sum is off by one or by ten
    seed: int = 0

    def __post_init__(self) -> None:
        if self.texts < 1 or not (0 <= self.misconception <= 1 and 0 <= self.slip <= 1):
            raise SettingsError("The corpus needs at least one text, and shares of misconception and slip in 0 ... 1.")


def corpus(settings: Corpus, excluded: set[str]) -> Iterator[tuple[str, str]]:
    """Pairs of prompt and flawed solution; no question whose content hash is in `excluded` is among them."""
    rng = random.Random(f"pocket corpus {settings.seed}")
    written = 0
    while written < settings.texts:
        story = draw_story(rng)
        if content_hash(story.question) in excluded:
            continue
        written += 1
        yield f"{story.question}\n", flawed_solution(story, rng, settings)


def flawed_solution(story: Story, rng: random.Random, settings: Corpus) -> str:
    """A solution in which misconceived verbs mostly point the wrong way and sums may slip."""

    def believed(event: Event) -> Event:
        wrong = event.verb in MISCONCEIVED and rng.random() < settings.misconception
        return Event(event.verb, event.amount, event.gain != wrong)

    def add(a: int, b: int) -> int:
        slipped = rng.choice((-10, -1, 1, 10)) if rng.random() < settings.slip else 0
        return a + b + slipped

    events = tuple(believed(event) for event in story.events)
    return solution(story.start, events, rng.choice(PATHS), add)


def vocabulary() -> list[str]:
    """Every token of pocket texts: words with and without a leading blank, digits one by one, signs."""
    words = sorted({*GAINS, *LOSSES, *PEOPLE, *PEOPLE.values(), *THINGS, *CONNECTIVES})
    digits = [str(digit) for digit in range(10)]
    signs = [".", ",", ":", "?", "+", "-", "=", "#"]
    return ["\n", *(blank + token for blank in ("", " ") for token in (*words, *digits, *signs))]
