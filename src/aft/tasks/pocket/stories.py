"""Stories: a person holds a number of things, events raise or lower it, "How many?"; told in words, and read back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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

Phrasing = Literal["plain", "named", "list", "question_first"]

# Patterns of an amount, of an event as it is named ("finds 7"), and of its two parts.
NUMBER = "[0-9]{1,9}"
EVENT = f"[a-z]{{1,20}} {NUMBER}"
EVENTS = re.compile(f"([a-z]{{1,20}}) ({NUMBER})")
_OPENING = f"(?P<person>[A-Z][a-z]*) has (?P<start>{NUMBER}) (?P<thing>[a-z]+)"
_PLAIN = re.compile(rf"{_OPENING}\.(?P<events>(?: [A-Z][a-z]+ {EVENT}\.)+) How many\?")
_STORIES: dict[Phrasing, re.Pattern[str]] = {
    "plain": _PLAIN,
    "named": _PLAIN,
    "list": re.compile(rf"{_OPENING}(?P<events>(?:, {EVENT})+)\. How many\?"),
    "question_first": re.compile(
        rf"How many [a-z]+ has [A-Z][a-z]*\? {_OPENING}\.(?P<events>(?: [A-Z][a-z]+ {EVENT}\.)+)"
    ),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `amount` things come (`gain`) or go."""

    verb: str
    amount: int
    gain: bool

    @property
    def signed(self) -> int:
        """The change of the number of things."""
        return self.amount if self.gain else -self.amount


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
            return f"{opening}, {listed(self.events)}. How many?"
        who = self.person if self.phrasing == "named" else PEOPLE[self.person]
        events = " ".join(f"{who} {listed([event])}." for event in self.events)
        if self.phrasing == "question_first":
            return f"How many {self.thing} has {self.person}? {opening}. {events}"
        return f"{opening}. {events} How many?"

    @property
    def answer(self) -> int:
        """The number of things at the end."""
        return self.start + sum(event.signed for event in self.events)


def listed(events: Sequence[Event]) -> str:
    """As events are named, in a story and in a step: "finds 7, sells 5"."""
    return ", ".join(f"{event.verb} {event.amount}" for event in events)


def parse_story(text: str) -> Story | None:
    """The story that `Story.question` puts into these words, None for any other text."""
    for phrasing, pattern in _STORIES.items():
        found = pattern.fullmatch(text)
        if found and found["person"] in PEOPLE:
            events = tuple(Event(verb, int(n), verb in GAINS) for verb, n in EVENTS.findall(found["events"]))
            story = Story(found["person"], found["thing"], int(found["start"]), events, phrasing)
            verbs = [event.verb for event in events]
            known = story.thing in THINGS and len(set(verbs)) == len(verbs) and set(verbs) <= {*GAINS, *LOSSES}
            if known and story.question == text:
                return story
    return None
