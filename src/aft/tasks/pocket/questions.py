"""The questions of every split: what they may be like, and how they are drawn."""

import random
import re
from collections.abc import Iterator
from typing import Annotated

from aft.bounds import Count, Seed, counted
from aft.checked import checked
from aft.errors import SettingsError
from aft.tasks.base import SPLITS, Question, content_hash
from aft.tasks.pocket.solutions import PATHS, solution
from aft.tasks.pocket.stories import GAINS, LOSSES, PEOPLE, THINGS, Event, Phrasing, Story

# What the default questions and the flawed corpus tell: the largest amount, the most that a start exceeds the losses
# by, and the fewest and most events.
_AMOUNTS, _SPARE = 9, 10
_FEWEST, _MOST = 2, 4

_HELD_OUT = 0x40  # a quarter of all questions: those whose content hash begins with a smaller byte

_MOST_IN_VAIN = 20_000  # draws in a row that bring no new question: there are hardly more


_Amount = Annotated[int, counted(most=9999)]


@checked
class Settings:
    """How many questions each split holds, the seed that they all follow from, and what they are like.

    A set of another name asks what the default settings cannot, whatever their seed: with amounts or events beyond
    theirs, or in another phrasing. So none of its questions is among their references or in the corpus.
    """

    train: Count = 150
    validation: Count = 400
    test: Count = 1000
    seed: Seed = 0
    name: str = "pocket"  # the first part of every question id
    amounts: _Amount = _AMOUNTS  # the largest amount of an event
    spare: _Amount = _SPARE  # the most that the start exceeds the losses by
    fewest_events: Count = _FEWEST
    most_events: Count = _MOST
    phrasing: Phrasing = "plain"  # the others ask in words that are known, but in another order; "named" is the nearest

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", self.name):
            raise SettingsError(
                f"The name '{self.name}' of a pocket set must be up to 40 letters, digits or '_', '.', '-'."
            )
        if not self.fewest_events <= self.most_events <= len(GAINS + LOSSES):
            raise SettingsError(
                f"fewest_events ({self.fewest_events}) and most_events ({self.most_events}) must be ordered and lie in "
                f"1 ... {len(GAINS + LOSSES)}, the number of verbs."
            )
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


def may_be_held_out(hashed: str) -> bool:
    """Whether a question of this content hash may be asked for validation or test, and so is never learned from.

    The hash alone decides: whatever seed and sizes are chosen, no held-out question is in the corpus of a base model or
    in a train split.
    """
    return int(hashed[:2], 16) < _HELD_OUT


def load_questions(settings: Settings) -> dict[str, list[Question]]:
    """Generate the splits, disjoint by content hash; the same settings give the same questions.

    Each split is drawn from a random stream of its own, test before validation, which passes over what test asks; the
    train split passes over all that `may_be_held_out`. Raises `SettingsError` if there are not as many different
    questions as asked for.
    """
    seen: set[str] = set()
    questions: dict[str, list[Question]] = {}
    for split in reversed(SPLITS):
        # Train has the stream that all splits had once, so that its questions are still the same.
        stream = "questions" if split == "train" else f"{split} questions"
        rng = random.Random(f"{settings.name} {stream} {settings.seed}")
        size: int = getattr(settings, split)
        questions[split] = [
            _question(story, split, f"{settings.name}/{split}/{number:05d}", hashed, path)
            for number, (story, hashed, path) in zip(
                range(size), _new_stories(rng, settings, seen, held_out=split != "train"), strict=False
            )
        ]
    return {split: questions[split] for split in SPLITS}


def _new_stories(
    rng: random.Random, settings: Settings, seen: set[str], *, held_out: bool
) -> Iterator[tuple[Story, str, str]]:
    """Stories that were not `seen`, and are from then on: each with the content hash of its question and a path.

    Default stories come only under the default settings.
    """
    in_vain = 0
    while in_vain < _MOST_IN_VAIN:
        # The path is drawn with every story, so that one that is passed over changes none of those after it.
        story, path = draw_story(rng, settings), rng.choice(PATHS)
        hashed = content_hash(story.question)
        in_vain += 1
        if may_be_held_out(hashed) != held_out:
            continue
        if hashed not in seen and (settings.name == _DEFAULT.name or not _is_default(story)):
            seen.add(hashed)
            in_vain = 0
            yield story, hashed, path
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
