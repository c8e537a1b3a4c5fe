"""Feedback: which sampled responses are right, how they are rated, and how the responses of a question rank.

Each shard of feedback is made from a few shards of candidates, which hold whole questions, and carries its own counts;
what a killed run has finished is not made again.
"""

import hashlib
import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from aft.code import deciding
from aft.errors import DataError, SettingsError
from aft.feedback.equations import mark_distinct_equations
from aft.feedback.given import given_ratings, told_of_labels, with_given_labels
from aft.feedback.judge import rate_with_server
from aft.feedback.label import count, label_responses, rank_binary, summarise
from aft.feedback.ratings import RatingsFile, with_ratings
from aft.feedback.steps import rate_steps
from aft.files import digest, hash_file
from aft.pipelines.parameters import Labelling
from aft.pipelines.tables import candidates as check_candidates
from aft.pipelines.tables import feedback as check_feedback
from aft.pipelines.tables import lookup
from aft.sampling.settings import SamplerSettings
from aft.scoring.groups import pack
from aft.shards import Shards, ShardStore, attributes, encode, n_rows
from aft.tasks import Question, marking_code
from aft.tasks.latex import not_compared

logger = logging.getLogger(__name__)

_OWN = ("pipelines/label_and_rank/nodes.py", "pipelines/tables.py")
ROOMS = ("feedback", "records.py", "tasks", *_OWN)  # whose code decides feedback
_ROWS = 8192  # responses of a shard: about 100 MB in memory
_Report = dict[str, Any]  # counts, which can be added up
_Ratings = tuple[pd.Series, _Report]
_HERE = SamplerSettings()


def label_and_rank(
    candidates: Shards,
    train_questions: pd.DataFrame,
    labelling: Labelling,
    seed: int,
    rating_cache: str,
    sample_cache: str,
    sampler: SamplerSettings = _HERE,
) -> tuple[Shards, dict[str, Any]]:
    """The shards of the feedback, in the order of those of the candidates, and its summary.

    Several that are missing are made on the cluster that samples, if there is one; a judge's server is asked from here.
    Raises `DataError` if there is no response, and what labels, the judge and `make_on_cluster` raise.
    """
    sizes = list(map(n_rows, candidates.paths))
    if not sum(sizes):
        raise DataError("There is no sampled response to label; run sample_cots with samples of at least 1.")
    paths = [path.absolute() for path in candidates.paths]  # a worker may begin in another folder
    blocks = [Shards([paths[number] for number in numbers]) for numbers in pack(sizes, _ROWS)]
    asked, marking = lookup(train_questions), marking_code(train_questions["dataset"].unique())
    labeller = _Labeller(labelling, seed, Path(rating_cache), marking)

    def unrated(number: int) -> tuple[list[Question], Shards]:
        return list(asked(blocks[number].column("question_id")).values()), blocks[number]

    def block_of(number: int) -> tuple[list[Question], Shards, _Ratings | None]:
        return *unrated(number), rated[number] if rated else None

    def make(missing: Sequence[int]) -> Generator[tuple[int, bytes], None, None]:
        if sampler.cluster is None or len(missing) == 1:
            yield from ((number, encode(labeller.feedback(*block_of(number)))) for number in missing)
        else:
            from aft.sampling.cluster import make_on_cluster

            cluster = replace(sampler.cluster, gpus_per_worker=0)
            yield from make_on_cluster(labeller.feedback, missing, block_of, cluster, ROOMS)

    contents: list[Any] = [list(map(hash_file, block.paths)) for block in blocks]
    # A judge's answers are not made from the candidates alone: what is missing of them is asked for in every run.
    rated: list[_Ratings] = []
    if labelling.judge == "openai":
        rated += labeller.rated(map(unrated, range(len(blocks))))
        contents = [[own, ratings.tolist()] for own, (ratings, _) in zip(contents, rated, strict=True)]
    store = ShardStore(Path(sample_cache), labeller.description(train_questions), *ROOMS)
    shards = store.fill(list(map(digest, contents)), make)
    told = list(map(attributes, shards))
    counts, given, judged = (_added(one[name] for one in told) for name in ("counts", "given", "judged"))
    summary = _summary(counts, given, len(train_questions), labelling)
    labeller.tell(judged)
    if late := sum(one["not_compared"] for one in told):
        logger.warning(
            "%d responses could not be compared in time, and count as wrong unless a label came with them. With less "
            "load they may be: remove %s to label again.",
            *(late, store.directory),
        )
    return Shards(shards), summary | {"judge": labelling.judge} | _added(report for _, report in rated)


class _Unrated(NamedTuple):
    feedback: pd.DataFrame
    candidates: pd.DataFrame
    questions: dict[str, Question]  # those that are asked in them
    given: _Report  # how labels that came with the candidates compare


class _Labeller:
    """Makes the feedback on blocks of candidates, here or in a worker."""

    def __init__(self, labelling: Labelling, seed: int, rating_cache: Path, marking: Mapping[str, Any]) -> None:
        self.labelling, self.rating_cache = labelling, rating_cache
        self.marking = marking  # `marking_code` of the questions where the run is
        self.file: RatingsFile | None = None
        if labelling.judge == "file" and labelling.ratings_file is not None:
            self.file = RatingsFile(Path(labelling.ratings_file.replace("{seed}", str(seed))))

    def description(self, questions: pd.DataFrame) -> dict[str, Any]:
        """What feedback follows from beside its candidates; the questions are hashed some at a time."""
        hashed = hashlib.sha256()
        for start in range(0, len(questions), _ROWS):
            some = questions[start : start + _ROWS]
            choices = ["" if given is None else "\n".join(given) for given in some["choices"]]
            hashed.update(pd.util.hash_pandas_object(some.assign(choices=choices), index=False).to_numpy().tobytes())
        return {
            "kind": "feedback",
            "labelling": {**deciding(self.labelling), "ratings_file": self.file and hash_file(self.file.path)},
            "questions": hashed.hexdigest(),
            "own_tasks": self.marking,
        }

    def feedback(self, questions: Sequence[Question], block: Shards, rated: _Ratings | None) -> pd.DataFrame:
        """The feedback on a block, with its counts in `attrs`; `rated` are its ratings, where they are known.

        Raises `SettingsError` where answers are marked by other code than where the run is.
        """
        own = marking_code(one.dataset for one in questions)
        if any(self.marking.get(name) != code for name, code in own.items()):
            raise SettingsError(
                f"A worker has other code of {' and '.join(own)} than this run; install the same on every machine."
            )
        late = not_compared()
        unrated = self._unrated(questions, block)
        ratings, judged = rated or self._ratings(unrated)
        feedback = check_feedback(with_ratings(unrated.feedback, ratings))
        told = {"counts": count(feedback), "given": unrated.given, "judged": judged}
        feedback.attrs = {**told, "not_compared": not_compared() - late}
        return feedback

    def rated(self, blocks: Iterable[tuple[Sequence[Question], Shards]]) -> Iterator[_Ratings]:
        """The ratings of blocks by a judge's server."""
        assert self.labelling.openai is not None
        unrated = (self._unrated(*block) for block in blocks)
        asked = ((one.feedback, one.questions) for one in unrated)
        return rate_with_server(asked, self.labelling.openai, self.rating_cache)

    def tell(self, judged: _Report) -> None:
        """Log what a file or the steps leave unrated, from the sums of all reports."""
        if self.file is not None:
            self.file.tell(judged)
        elif self.labelling.judge == "steps" and judged["unrated"]:
            logger.warning(
                "%(unrated)d responses are not rated: their task family cannot check steps. Variants with ranking "
                "feedback need another judge (labelling.judge).",
                judged,
            )

    def _unrated(self, questions: Sequence[Question], block: Shards) -> _Unrated:
        """The feedback on a block before it is rated, and what it is made from."""
        candidates, asked = check_candidates(block.table()), {one.question_id: one for one in questions}
        labelled = label_responses(candidates, asked)
        labelled, given = with_given_labels(labelled, use=self.labelling.given_labels == "use")
        stopped = candidates[candidates["finish_reason"] == "stop"]
        ended = set(zip(stopped["question_id"], stopped["sample_index"], strict=True))
        feedback = mark_distinct_equations(rank_binary(labelled, self.labelling.deduplicate), asked, ended)
        return _Unrated(feedback, candidates, asked, given)

    def _ratings(self, unrated: _Unrated) -> _Ratings:
        """The rating of every row by a judge that is no server, NaN where there is none, and the judge's report."""
        feedback, candidates, questions, _ = unrated
        if self.file is not None:
            return self.file.of(feedback, candidates)
        match self.labelling.judge:
            case "steps":
                ratings = rate_steps(feedback, questions)
            case "given":
                ratings = given_ratings(candidates, feedback)
            case _:
                ratings = pd.Series(float("nan"), index=feedback.index)
        return ratings, {"unrated": int(ratings.isna().sum())}


def _summary(counts: _Report, given: _Report, questions: int, labelling: Labelling) -> dict[str, Any]:
    """What the feedback holds, from the sums over its shards, also in the log."""
    summary = summarise(counts, questions)
    logger.info(
        "Feedback: %(positives)d right and %(negatives)d wrong distinct responses, %(questions_with_both)d of "
        "%(questions)d questions have both kinds; %(duplicates)d duplicates, %(parse_failures)d without an answer.",
        summary,
    )
    if not summary["questions_with_both"]:
        logger.warning(
            "No question has both right and wrong responses: nothing can be aligned; sample more, or a better model."
        )
    told = {"given_labels": told_of_labels(given, use=labelling.given_labels == "use")} if given else {}
    return summary | told


def _added(reports: Iterable[_Report]) -> _Report:
    """The sums of reports, by name; None, unknown, in one of them makes the sum unknown."""
    totals: _Report = {}
    for report in reports:
        for name, value in report.items():
            total = totals.setdefault(name, type(value)()) if value is not None else None
            totals[name] = None if total is None else total + value
    return totals
