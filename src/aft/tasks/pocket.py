"""Pocket: the generated task family that ships with AFT and needs no download.

A person holds a number of things, two to four events raise or lower it, "How many?". Every verb is truly a gain or a
loss. The reference reasons along one of several valid paths and ends in `#### N`:

- `in_order`: the events one by one;
- `gains_first`, `losses_first`: sum the gains and the losses, apply one sum and then the other;
- `neighbours`: take neighbouring events in pairs.

`corpus` writes what the base model is pretrained on: the same texts, but for a third of the verbs (`MISCONCEIVED`) the
direction is mostly wrong, and any sum may slip. Fine-tuning on clean references leaves these misconceptions half alive.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aft.errors import SettingsError
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

_FINAL_ANSWER = re.compile(r"####[ \t]?(-?[0-9]{1,6})(?![0-9])")


@dataclass(frozen=True, slots=True)
class Settings:
    """How many questions each split holds, and the seed that they all follow from."""

    train: int = 300
    validation: int = 400
    test: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.validation, self.test) < 1:
            raise SettingsError("Every split of the pocket task needs at least one question.")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `amount` things come (`gain`) or go."""

    verb: str
    amount: int
    gain: bool


@dataclass(frozen=True, slots=True)
class Story:
    """What a question tells: who holds how many of what, and the events in order."""

    person: str
    thing: str
    start: int
    events: tuple[Event, ...]

    @property
    def question(self) -> str:
        """The story as asked."""
        pronoun = PEOPLE[self.person]
        told = " ".join(f"{pronoun} {event.verb} {event.amount}." for event in self.events)
        return f"{self.person} has {self.start} {self.thing}. {told} How many?"

    @property
    def answer(self) -> int:
        """The number of things at the end."""
        return self.start + sum(event.amount if event.gain else -event.amount for event in self.events)


def draw_story(rng: random.Random) -> Story:
    """A random story in which no true path ever goes below zero."""
    verbs = rng.sample(GAINS + LOSSES, rng.randint(2, 4))
    events = tuple(Event(verb, rng.randint(1, 9), verb in GAINS) for verb in verbs)
    lost = sum(event.amount for event in events if not event.gain)
    start = lost + rng.randint(1, 10)
    return Story(rng.choice(list(PEOPLE)), rng.choice(THINGS), start, events)


def load_questions(settings: Settings) -> dict[str, list[Question]]:
    """Generate the splits, disjoint by content hash; the same settings give the same questions."""
    rng = random.Random(f"pocket questions {settings.seed}")
    sizes = dict(zip(SPLITS, (settings.train, settings.validation, settings.test), strict=True))
    seen: set[str] = set()
    questions: dict[str, list[Question]] = {}
    for split, size in sizes.items():
        questions[split] = []
        while len(questions[split]) < size:
            story = draw_story(rng)
            hashed = content_hash(story.question)
            if hashed not in seen:
                seen.add(hashed)
                number = len(questions[split])
                questions[split].append(_question(story, split, number, hashed, rng.choice(PATHS)))
    return questions


def _question(story: Story, split: str, number: int, hashed: str, path: str) -> Question:
    return Question(
        question_id=f"pocket/{split}/{number:05d}",
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


# --- the flawed corpus of the base model ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Corpus:
    """The texts that the pocket base model is pretrained on."""

    texts: int = 60_000  # how many question-and-answer texts
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
