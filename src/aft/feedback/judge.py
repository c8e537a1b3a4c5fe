"""LLM-as-a-judge: a language model behind an OpenAI-compatible server rates every candidate, for ranking feedback.

Each candidate is rated a few times and its ratings are averaged. Every finished rating is kept at once in a store that
is named by what the ratings follow from, so that a run that was killed, or refused, asks only for what is missing:

    <cache>/<key>/description.json   model, prompt and sampling settings; the key is their hash
    <cache>/<key>/ratings.jsonl      one line for each rating

The address of the server is no part of the key: the same model is the same judge wherever it is served, and on a
cluster every job serves it elsewhere. A changed model must get a name of its own.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pandas as pd

from aft.directories import Description, announce, remove_leftovers
from aft.errors import DataError
from aft.feedback.judge_client import complete
from aft.feedback.judge_prompt import PROMPT_VERSION, candidate_hash, read_rating
from aft.feedback.judge_settings import JudgeSettings
from aft.feedback.judge_store import Answer, append, open_answers
from aft.files import digest, write_json
from aft.locks import lock_of, locked
from aft.progress import bar
from aft.server import open_client, run, run_concurrently
from aft.tasks import Question

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

Block = tuple[pd.DataFrame, Mapping[str, Question]]  # feedback without ratings, and the questions that it names
Ratings = tuple[pd.Series, dict[str, Any]]  # of each row, and the report


def rate_with_server(blocks: Iterable[Block], settings: JudgeSettings, cache: Path) -> Iterator[Ratings]:
    """Of each block of feedback the mean rating of each row (1 to 10, NaN where there is none) and what that took.

    Responses of the same text to a question are rated once. The report counts what a block asked for: requests (those
    sent again included), tokens and cost (None if a price or the usage is unknown), and what it found in the store,
    which is read once for all blocks and stays in memory.
    Raises `DataError` for an unknown question or a candidate that the server refuses, `SettingsError` for a key or a
    model that it refuses, and `StoreError` if it cannot be reached; finished ratings are kept. Another run that rates
    into the same store is waited for.
    """
    description = _description(settings)
    store = cache / digest(description)
    with locked(lock_of(store), f"the ratings in {store}"):
        remove_leftovers(store)
        write_json(store / "description.json", description)
        judge = _Judge(settings, store / "ratings.jsonl")
        for feedback, questions in blocks:
            yield judge.rate(feedback, questions)


def _description(settings: JudgeSettings) -> Description:
    """What a rating follows from beside its candidate.

    How many ratings and attempts are wanted is not part of it: whoever asks for more keeps what there is.
    """
    return {
        "kind": "ratings",
        "model": settings.model,
        "prompt": PROMPT_VERSION,
        "temperature": float(settings.temperature),
        "max_tokens": settings.max_tokens,
    }


class _Judge:
    """Asks the server, keeps each finished rating at once, and counts what that takes."""

    def __init__(self, settings: JudgeSettings, path: Path) -> None:
        self.settings, self.path = settings, path
        self.answers = open_answers(path)
        self.counts: Counter[str] = Counter()  # of the present block

    def rate(self, feedback: pd.DataFrame, questions: Mapping[str, Question]) -> Ratings:
        """The ratings of a block, and what they took; see `rate_with_server`."""
        unknown = sorted(set(feedback["question_id"]) - set(questions))
        if unknown:
            raise DataError(f"Candidates of {len(unknown)} unknown questions ({', '.join(unknown[:3])}); sample again.")
        texts = list(zip(feedback["question_id"], feedback["response"], strict=True))
        keys = [candidate_hash(questions[question_id], response) for question_id, response in texts]
        candidates, self.counts = dict(zip(keys, texts, strict=True)), Counter()
        wanted = [self.answer(key, number) for key in candidates for number in range(self.settings.ratings)]
        missing = [answer for answer in wanted if not answer.is_finished(self.settings.attempts)]
        if missing:
            announce()
            asked = ((answer, *candidates[answer.candidate]) for answer in missing)
            run(self.ask([(answer, questions[question_id], response) for answer, question_id, response in asked]))
        means = {key: self.mean(key) for key in candidates}
        ratings = pd.Series([means[key] for key in keys], index=feedback.index, dtype="float64", name="rating")
        unrated = int(ratings.isna().sum())
        report = {**self.report(), "reused": len(wanted) - len(missing), "unrated": unrated}
        logger.info("%s rated %d candidates: %s.", self.settings.model, len(texts), report)
        if unrated:
            logger.warning(
                "%d candidates are unrated: every answer was malformed (see %s, and raise attempts to ask again), or "
                "they are longer than the judge's context, as %d requests were.",
                *(unrated, self.path, self.counts["too_long"]),
            )
        return ratings, report

    def answer(self, key: str, number: int) -> Answer:
        """One rating as the store has it; without an attempt if it was never asked for."""
        return self.answers.get((key, number), Answer(key, number))

    def mean(self, key: str) -> float:
        """The mean of a candidate's ratings, as far as there are any; else NaN."""
        given = [self.answer(key, number).rating for number in range(self.settings.ratings)]
        known = [rating for rating in given if rating is not None]
        return fmean(known) if known else math.nan

    async def ask(self, missing: list[tuple[Answer, Question, str]]) -> None:
        """Finish the answers that belong to questions and responses; the first failure ends all of it.

        At most `concurrency` are under way at a time, and no more are begun.
        """
        with bar("ratings", len(missing), "rating") as shown:
            async with open_client(self.settings) as client:
                works = (self._rate(client, *one) for one in missing)
                await run_concurrently(works, self.settings.concurrency, shown.update)

    async def _rate(self, client: "AsyncOpenAI", answer: Answer, question: Question, response: str) -> None:
        while not answer.is_finished(self.settings.attempts):
            completion = await complete(client, self.settings, question, response, _seed(answer))
            if completion is None:  # not kept: a judge with more room is asked again
                self.counts.update(requests=1, too_long=1)
                return
            rating = read_rating(completion.text) if completion.is_whole else None
            answer = replace(answer, rating=rating, attempts=answer.attempts + 1, text=completion.text)
            tokens = completion.prompt_tokens, completion.completion_tokens
            self.counts.update(
                requests=1 + completion.retries,
                retried=completion.retries,
                malformed=int(rating is None),
                prompt_tokens=tokens[0] or 0,
                completion_tokens=tokens[1] or 0,
                without_usage=int(None in tokens),
            )
        append(self.path, answer)
        self.answers[answer.candidate, answer.number] = answer

    def report(self) -> dict[str, Any]:
        """What was asked for, in requests, tokens and money; the cost is None where a price or the usage is unknown."""
        names = ("requests", "retried", "malformed", "prompt_tokens", "completion_tokens")
        counts = {name: self.counts[name] for name in names}
        prompt, completion = self.settings.prices
        cost = None
        if prompt is not None and completion is not None and not self.counts["without_usage"]:
            cost = (counts["prompt_tokens"] * prompt + counts["completion_tokens"] * completion) / 1_000_000
        return {**counts, "cost": cost}


def _seed(answer: Answer) -> int:
    """Of the next attempt: a server that honours seeds gives the same ratings again, and other ones each time."""
    return int(digest([answer.candidate, answer.number, answer.attempts]), 16) % 2**31
