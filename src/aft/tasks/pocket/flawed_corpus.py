"""What the pocket base model is pretrained on: stories as pocket asks them, with flawed solutions."""

import random
from collections.abc import Iterator

from aft.bounds import Count, Seed, Share
from aft.checked import checked
from aft.tasks.base import content_hash
from aft.tasks.pocket.questions import draw_story
from aft.tasks.pocket.solutions import PATHS, solution
from aft.tasks.pocket.stories import GAINS, LOSSES, MISCONCEIVED, PEOPLE, THINGS, Event, Story

_CONNECTIVES = ("has", "How", "many", "gains", "losses", "more", "fewer")


@checked
class Corpus:
    """The texts that the pocket base model is pretrained on."""

    texts: Count = 90_000  # how many question-and-answer texts
    misconception: Share = 0.7  # how often a misconceived verb is taken in the wrong direction
    slip: Share = 0.02  # how often any sum is off by one or by ten
    seed: Seed = 0


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
    words = sorted({*GAINS, *LOSSES, *PEOPLE, *PEOPLE.values(), *THINGS, *_CONNECTIVES})
    digits = [str(digit) for digit in range(10)]
    signs = [".", ",", ":", "?", "+", "-", "=", "#"]
    return ["\n", *(blank + token for blank in ("", " ") for token in (*words, *digits, *signs))]
