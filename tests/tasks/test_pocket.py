"""Pocket: every sum is right where it should be, and wrong as often as it should be elsewhere."""

import dataclasses
import random
import re
import time
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft.errors import SettingsError
from aft.models.tokens import decode_response, encode_prompt, encode_response
from aft.tasks import content_hash, get_task, pocket
from aft.tasks.pocket import GAINS, LOSSES, MISCONCEIVED, PATHS, Corpus, Settings

SMALL = Settings(train=60, validation=30, test=40)
stories = st.integers(0, 2**64).map(lambda seed: pocket.draw_story(random.Random(seed)))
paths = st.sampled_from(PATHS)

STEP = re.compile(
    r"(?P<told>[a-z0-9, ]+): (?P<sum>-?[0-9]+(?: [+-] [0-9]+)*)(?: = (?P<result>-?[0-9]+))?(?P<more> more| fewer)?\."
)


def read(solution: str) -> tuple[list[re.Match[str]], str]:
    """The steps of a solution and its last line."""
    *lines, last = solution.split("\n")
    steps = [STEP.fullmatch(line) for line in lines]
    assert all(steps), solution
    return [step for step in steps if step], last


def value(expression: str) -> int:
    """What "12 + 7 - 5" comes to."""
    first, *rest = expression.split()
    signed = [int(sign + number) for sign, number in zip(rest[::2], rest[1::2], strict=True)]
    return int(first) + sum(signed)


def told(label: str) -> dict[str, int]:
    """The events that a step names, by verb; nothing for a sum that it takes up again ("gains", "more")."""
    names = label.removeprefix("gains ").removeprefix("losses ")
    if names in ("gains", "losses", "more", "fewer"):
        return {}
    return {name.split()[0]: int(name.split()[1]) for name in names.split(", ")}


def believed(solution: str) -> dict[str, bool]:
    """Which events a solution takes for gains, by verb, whatever its path."""
    directions: dict[str, bool] = {}
    for step in read(solution)[0]:
        events = told(step["told"])
        if step["told"].startswith(("gains ", "losses ")):
            directions |= dict.fromkeys(events, step["told"].startswith("gains "))
        elif step["more"]:  # two neighbours: the larger gives the direction, the sign tells the other's
            large = max(events, key=lambda verb: events[verb])
            gains = step["more"] == " more"
            directions |= {verb: gains if verb == large or "+" in step["sum"] else not gains for verb in events}
        else:
            directions |= dict.fromkeys(events, "+" in step["sum"])
    return directions


# --- questions --------------------------------------------------------------------------------------------------------


def test_the_same_settings_give_the_same_questions():
    questions = pocket.load_questions(SMALL)
    assert pocket.load_questions(SMALL) == questions
    assert {split: len(rows) for split, rows in questions.items()} == {"train": 60, "validation": 30, "test": 40}
    other = pocket.load_questions(dataclasses.replace(SMALL, seed=1))
    assert {q.content_hash for q in other["test"]}.isdisjoint({q.content_hash for q in questions["test"]})


def test_more_test_questions_change_no_other():
    longer = pocket.load_questions(dataclasses.replace(SMALL, test=50))
    shorter = pocket.load_questions(SMALL)
    assert longer["test"][:40] == shorter["test"]
    assert longer["train"] == shorter["train"] and longer["validation"] == shorter["validation"]


def test_no_question_is_in_two_splits():
    """Nor twice in one: by content, as whoever changes only case or spaces would find it."""
    sizes = Settings(train=1500, validation=300, test=1500)
    rows = [question for split in pocket.load_questions(sizes).values() for question in split]
    assert len({question.content_hash for question in rows}) == len(rows) == 3300
    assert len({question.question_id for question in rows}) == 3300
    assert all(question.content_hash == content_hash(question.question) for question in rows)


def test_a_story_that_comes_again_is_passed_over(monkeypatch):
    """Of a hundred stories, ninety are asked for: nearly all are drawn several times, none is asked twice."""
    draw = pocket.draw_story
    monkeypatch.setattr(pocket, "draw_story", lambda rng: draw(random.Random(rng.randrange(100))))
    questions = pocket.load_questions(Settings(train=30, validation=30, test=30))
    rows = [question for split in questions.values() for question in split]
    assert len({question.content_hash for question in rows}) == len(rows) == 90


def test_rows_are_what_a_task_promises():
    for split, rows in pocket.load_questions(SMALL).items():
        for number, question in enumerate(rows):
            assert question.question_id == f"pocket/{split}/{number:05d}"
            assert (question.dataset, question.split, question.choices) == ("pocket", split, None)
            assert pocket.extract_answer(question.reference) == question.answer
            assert pocket.answers_equal(question.answer, question.answer)
            assert pocket.prompt(question) == question.question + "\n"
            assert "####" not in question.question, "the answer must not be found in a prompt"


def test_references_take_all_paths():
    """One drawn for each reference: each of the four is the path of about a quarter."""
    references = [q.reference for q in pocket.load_questions(Settings(train=400))["train"]]
    by_name = [reference for reference in references if re.search(r"^(gains|losses) ", reference)]
    assert 0.35 < len(by_name) / 400 < 0.65


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_empty_splits_are_refused(split):
    with pytest.raises(SettingsError, match="at least one question"):
        Settings(**{split: 0})


def test_pocket_is_a_task():
    assert get_task("pocket").Settings is Settings


# --- chains of thought ------------------------------------------------------------------------------------------------


@given(stories, paths)
def test_every_path_reaches_the_true_answer_by_right_sums(story, path):
    """Each line's equation holds, no result is below zero, every event is told once, and the last line is the end."""
    steps, last = read(pocket.solution(story.start, story.events, path))
    for step in steps:
        if step["result"] is not None:
            assert value(step["sum"]) == int(step["result"]) >= 0
    assert last == f"#### {story.answer}"
    assert steps[-1]["result"] == str(story.answer)
    events = [event for step in steps for event in told(step["told"]).items()]
    assert sorted(events) == sorted((event.verb, event.amount) for event in story.events)


@given(stories, paths)
def test_every_path_takes_events_in_their_true_direction(story, path):
    directions = believed(pocket.solution(story.start, story.events, path))
    assert directions == {event.verb: event.verb in GAINS for event in story.events}


@given(stories)
def test_steps_build_on_one_another(story):
    """In order: each sum starts from the result before, the first from the start."""
    steps, _ = read(pocket.solution(story.start, story.events, "in_order"))
    results = [int(step["result"]) for step in steps]
    assert [int(step["sum"].split()[0]) for step in steps] == [story.start, *results[:-1]]


@given(stories)
def test_a_story_tells_what_its_answer_counts(story):
    """The question alone decides: gains and losses are those of the verbs it tells."""
    start = int(re.match(r"[A-Z][a-z]+ has ([0-9]+) [a-z]+\. ", story.question)[1])  # type: ignore[index]
    events = re.findall(r"(?:She|He) ([a-z]+) ([0-9]+)\.", story.question)
    change = sum(int(amount) if verb in GAINS else -int(amount) for verb, amount in events)
    assert start + change == story.answer
    assert 2 <= len({verb for verb, _ in events}) == len(events) <= 4
    assert story.question.endswith(" How many?")


def test_the_four_paths_by_hand():
    """Ben has 20; finds 7, sells 5, buys 2: 24."""
    events = (pocket.Event("finds", 7, True), pocket.Event("sells", 5, False), pocket.Event("buys", 2, True))
    assert {path: pocket.solution(20, events, path) for path in PATHS} == {
        "in_order": "finds 7: 20 + 7 = 27.\nsells 5: 27 - 5 = 22.\nbuys 2: 22 + 2 = 24.\n#### 24",
        "gains_first": "gains finds 7, buys 2: 7 + 2 = 9.\nlosses sells 5: 5.\n"
        "gains: 20 + 9 = 29.\nlosses: 29 - 5 = 24.\n#### 24",
        "losses_first": "losses sells 5: 5.\ngains finds 7, buys 2: 7 + 2 = 9.\n"
        "losses: 20 - 5 = 15.\ngains: 15 + 9 = 24.\n#### 24",
        "neighbours": "finds 7, sells 5: 7 - 5 = 2 more.\nmore: 20 + 2 = 22.\nbuys 2: 22 + 2 = 24.\n#### 24",
    }


# --- the flawed corpus ------------------------------------------------------------------------------------------------


def test_a_third_of_the_verbs_is_misconceived_on_both_sides():
    assert len(set(GAINS + LOSSES)) == len(GAINS + LOSSES) == 3 * len(MISCONCEIVED)
    assert len(set(MISCONCEIVED) & set(GAINS)) == len(set(MISCONCEIVED) & set(LOSSES))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_misconceived_verbs_are_wrong_as_often_as_set_and_others_never(share):
    """1,000 texts tell about 1,000 misconceived events: four deviations are below 4 · √(.25 / 900) = .067."""
    texts = pocket.corpus(Corpus(texts=1000, misconception=share, slip=0.0), set())
    wrong: dict[str, list[bool]] = {}
    for _, solution in texts:
        for verb, gain in believed(solution).items():
            wrong.setdefault(verb, []).append(gain != (verb in GAINS))
    assert wrong.keys() == {*GAINS, *LOSSES}
    assert not [verb for verb, flags in wrong.items() if verb not in MISCONCEIVED and any(flags)]
    flags = [flag for verb in MISCONCEIVED for flag in wrong[verb]]
    assert len(flags) > 900
    assert sum(flags) / len(flags) == pytest.approx(share, abs=0.067 if 0 < share < 1 else 0)


def test_without_misconceptions_and_slips_the_corpus_is_clean():
    for prompt, solution in pocket.corpus(Corpus(texts=200, misconception=0.0, slip=0.0), set()):
        start = int(re.search("[0-9]+", prompt)[0])  # type: ignore[index]
        events = re.findall(r"(?:She|He) ([a-z]+) ([0-9]+)\.", prompt)
        answer = start + sum(int(amount) if verb in GAINS else -int(amount) for verb, amount in events)
        assert solution.endswith(f"\n#### {answer}")


@pytest.mark.parametrize("slip", [0.0, 0.2, 1.0])
def test_sums_slip_as_often_as_set_by_one_or_ten(slip):
    """Of equations with one sum; where neighbours meet, an amount below zero loses its sign, so they are left out."""
    off = []
    for _, solution in pocket.corpus(Corpus(texts=600, misconception=0.0, slip=slip), set()):
        lines = re.findall(r": (-?[0-9]+) ([+-]) ([0-9]+) = (-?[0-9]+)\.$", solution, flags=re.MULTILINE)
        off += [int(result) - (int(a) + int(sign + b)) for a, sign, b, result in lines]
    assert len(off) > 1000
    assert set(off) <= {-10, -1, 0, 1, 10}
    assert sum(value != 0 for value in off) / len(off) == pytest.approx(slip, abs=0.05 if 0 < slip < 1 else 0)


@pytest.mark.parametrize("wrong", [{"texts": 0}, {"misconception": 1.5}, {"misconception": -0.1}, {"slip": 2.0}])
def test_a_corpus_that_cannot_be_is_refused(wrong):
    with pytest.raises(SettingsError, match="at least one text, and shares"):
        Corpus(**wrong)


def test_excluded_questions_are_never_in_the_corpus():
    """As many texts as asked for, and the others as they were."""
    settings = Corpus(texts=300)
    texts = list(pocket.corpus(settings, set()))
    excluded = {content_hash(prompt) for prompt, _ in texts[::3]}
    others = list(pocket.corpus(settings, excluded))
    assert len(others) == 300
    assert not [prompt for prompt, _ in others if content_hash(prompt) in excluded]


def test_the_corpus_follows_from_its_seed():
    def first(seed):
        return list(islice(pocket.corpus(Corpus(seed=seed), set()), 20))

    assert first(0) == first(0) != first(1)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        ("finds 2: 5 + 2 = 7.\n#### 7", "7", "7"),
        ("####7", "7", "7"),
        ("####\t7", "7", "7"),
        ("#### -7", "-7", "-7"),
        ("#### 007", "7", "7"),
        ("#### -0", "0", "0"),
        ("#### 7\n#### 8", "7", "7"),  # the first end counts: what follows is another text
        ("#### 7.", "7", "7"),
        ("##### 7", "7", "7"),
        ("#### 999999", "999999", "999999"),
        ("#### 1234567", None, None),  # more digits than any answer can have
        ("### 7", None, "7"),
        ("####  7", None, "7"),
        ("#### seven", None, None),
        ("#### \n7", None, "7"),
        ("finds 2: 5 + 2 = 7.", None, "7"),
        ("5 - 7 = -2.", None, "-2"),
        ("12-5", None, "5"),  # the sign of a sum, not of a number
        ("12 - 5", None, "5"),
        ("7 and 1234567", None, "7"),
        ("\u0667", None, None),  # digits of other scripts are no digits
        ("#### \u0667", None, None),
        ("", None, None),
    ],
)
def test_the_answer_of_a_response(response, strict, flexible):
    assert pocket.extract_answer(response) == strict
    assert pocket.extract_answer(response, strict=False) == flexible


@given(st.text(alphabet="#-0123456789 \n.a"), st.booleans())
def test_answers_are_canonical_whatever_is_written(text, strict):
    answer = pocket.extract_answer(text, strict=strict)
    assert answer is None or answer == str(int(answer))
    if strict and answer is not None:
        assert pocket.extract_answer(text, strict=False) == answer


@pytest.mark.parametrize("unit", ["#", "#### ", "#### -", "-", "9", "1 ", "####1234567", "12-"])
def test_extraction_takes_linear_time(unit):
    """Two million characters: what looks back over all that it has seen would take hours."""
    text = unit * (2_000_000 // len(unit))
    began = time.process_time()
    pocket.extract_answer(text)
    pocket.extract_answer(text, strict=False)
    assert time.process_time() - began < 10


# --- the vocabulary ---------------------------------------------------------------------------------------------------


def test_the_vocabulary_covers_every_text(pocket_tokenizer):
    """No unknown token in questions, references and flawed texts, and all of them come back as they were."""
    questions = [question for split in pocket.load_questions(SMALL).values() for question in split]
    pairs = [(pocket.prompt(question), question.reference) for question in questions]
    pairs += pocket.corpus(Corpus(texts=500, slip=0.5), set())
    assert len(set(pocket.vocabulary())) == len(pocket.vocabulary())
    for prompt, response in pairs:
        asked, written = encode_prompt(pocket_tokenizer, prompt), encode_response(pocket_tokenizer, response)
        assert pocket_tokenizer.unk_token_id not in asked + written
        assert decode_response(pocket_tokenizer, asked[1:]) == prompt
        assert decode_response(pocket_tokenizer, written) == response


def test_every_digit_is_a_token(pocket_tokenizer):
    tokens = pocket_tokenizer.tokenize("sells 12: 345 - 12 = 333.")
    assert tokens == ["sells", " 1", "2", ":", " 3", "4", "5", " -", " 1", "2", " =", " 3", "3", "3", "."]
