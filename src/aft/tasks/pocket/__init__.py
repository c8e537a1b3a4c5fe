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

from aft.tasks.pocket.answers import answers_equal, extract_answer
from aft.tasks.pocket.flawed_corpus import Corpus, corpus, flawed_solution, vocabulary
from aft.tasks.pocket.questions import Settings, draw_story, load_questions, may_be_held_out, prompt
from aft.tasks.pocket.solutions import PATHS, solution
from aft.tasks.pocket.steps import equations, wrong_steps
from aft.tasks.pocket.stories import GAINS, LOSSES, MISCONCEIVED, Event, Story, parse_story

__all__ = [
    "GAINS",
    "GENERATED",
    "LOSSES",
    "MISCONCEIVED",
    "PATHS",
    "Corpus",
    "Event",
    "Settings",
    "Story",
    "answers_equal",
    "corpus",
    "draw_story",
    "equations",
    "extract_answer",
    "flawed_solution",
    "load_questions",
    "may_be_held_out",
    "parse_story",
    "prompt",
    "solution",
    "vocabulary",
    "wrong_steps",
]

GENERATED = True  # its questions resemble one another by design
