"""Feedback is made shard by shard: as from one table, resumed after a kill, and anew where a reason changed."""

import dataclasses
import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft import tasks
from aft.errors import DataError
from aft.feedback import judge
from aft.feedback.judge_settings import JudgeSettings
from aft.locks import lock_of
from aft.pipelines.label_and_rank import nodes
from aft.pipelines.label_and_rank.nodes import label_and_rank
from aft.pipelines.parameters import Labelling
from aft.pipelines.tables import to_table
from aft.sampling import cluster
from aft.sampling.settings import ClusterSettings, SamplerSettings
from aft.shards import Shards, encode
from aft.tasks import Question, latex

NONE = Labelling(judge="none")
STEPS, HERE = Labelling(judge="steps"), SamplerSettings()
ON_TWO_WORKERS = SamplerSettings(cluster=ClusterSettings(workers=2, gpus_per_worker=1))
Label = Callable[..., tuple[list[Path], dict[str, Any]]]


@pytest.fixture
def candidates(tmp_path: Path, pocket_questions: list[Question]) -> Shards:
    """Four shards of two questions each: a right, a wrong, the wrong one again, and one without an answer."""
    shards = []
    for number in range(4):
        rows = [
            {"question_id": one.question_id, "sample_index": index, "response": text, "token_ids": ids}
            for one in pocket_questions[2 * number : 2 * number + 2]
            for index, (text, ids) in enumerate(
                ((one.reference, [1, 2]), ("#### 999", [3]), ("#### 999", [3]), ("Hm.", [4, 5, 6]))
            )
        ]
        table = pd.DataFrame(rows).assign(seed=0, finish_reason="stop", sum_logprob=-1.0)
        table["n_tokens"] = table["token_ids"].map(len)
        shards.append(tmp_path / f"candidates_{number}.parquet")
        shards[-1].write_bytes(encode(table.assign(model_fingerprint="m", settings_hash="s")))
    return Shards(shards)


@pytest.fixture
def label(
    tmp_path: Path, candidates: Shards, pocket_questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> Label:
    def of(
        labelling: Labelling = STEPS,
        rows: int = 16,
        asked: list[Question] = pocket_questions[:9],
        cache: str = "store",
        sampler: SamplerSettings = HERE,
    ) -> tuple[list[Path], dict[str, Any]]:
        monkeypatch.setattr(nodes, "_ROWS", rows)
        places = str(tmp_path), str(tmp_path / cache)
        made, summary = label_and_rank(candidates, to_table(asked), labelling, 0, *places, sampler)
        return list(made.paths), summary

    return of


def test_many_shards_say_what_one_says(label: Label) -> None:
    many, told = label()
    one, same = label(rows=1000, cache="whole")
    assert (len(many), len(one)) == (2, 1) and told == same
    pd.testing.assert_frame_equal(Shards(many).table(), Shards(one).table())
    assert (told["questions"], told["positives"], told["negatives"], told["duplicates"]) == (9, 8, 16, 8)
    assert (told["questions_without_response"], told["sample_accuracy"], told["judge"]) == (1, 0.25, "steps")


def test_what_is_finished_is_not_labelled_again_and_what_is_torn_is(
    label: Label, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shards, told = label()
    content, made = shards[1].read_bytes(), []
    shards[1].write_bytes(content[:-7])
    monkeypatch.setattr(nodes, "count", lambda feedback, count=nodes.count: (made.append(1), count(feedback))[1])
    assert label() == (shards, told)
    assert len(made) == 1 and shards[1].read_bytes() == content and "is damaged and is made anew" in caplog.text


def test_other_answers_tasks_and_settings_are_labelled_anew(
    label: Label, pocket_questions: list[Question], tmp_path: Path
) -> None:
    shards, told = label()
    asked = [dataclasses.replace(pocket_questions[0], answer="999"), *pocket_questions[1:9]]
    others, corrected = label(asked=asked)
    assert not set(others) & set(shards) and corrected["positives"] == told["positives"]
    assert corrected["sample_accuracy"] > told["sample_accuracy"], "it is the answer of two samples"
    plain, _ = label(Labelling(deduplicate=False))
    assert not set(plain) & set(shards) and Shards(plain).table()["n_duplicates"].max() == 1
    path = tmp_path / "ratings.jsonl"
    for rating in (3.0, 4.0):
        row = {"question_id": pocket_questions[0].question_id, "sample_index": 0, "rating": rating}
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        rated, _ = label(Labelling(judge="file", ratings_file=str(path)))
        assert Shards(rated).table()["rating"].dropna().tolist() == [rating]


def test_a_rating_of_a_duplicate_is_one_of_the_row_that_stands_for_it(
    label: Label, pocket_questions: list[Question], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples 1 and 2 are equal: rated 3 and 4, their row has 3.5; without de-duplication both rows have it."""
    path, asked = tmp_path / "ratings.csv", pocket_questions[0].question_id
    path.write_text(f"question_id,sample_index,rating\n{asked},1,3\n{asked},2,4\n", encoding="utf-8")
    for deduplicate in (True, False):
        rated, _ = label(Labelling(judge="file", ratings_file=str(path), deduplicate=deduplicate))
        assert Shards(rated).table()["rating"].dropna().tolist() == [3.5] * (1 if deduplicate else 2)
    assert "unknown" not in caplog.text.replace("0 of its rows are of unknown", "")


def test_what_a_file_does_not_rate_is_told_once_for_all_shards(
    label: Label, pocket_questions: list[Question], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ratings.csv"
    known, other = pocket_questions[7].question_id, pocket_questions[8].question_id
    path.write_text(f"question_id,sample_index,rating\n{known},0,3\n{other},0,3\n", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        label(Labelling(judge="file", ratings_file=str(path)))
    assert caplog.text.count("rates 1 of 24 candidates; 23 have no rating, and 1 of its rows are of unknown") == 1


def test_what_could_not_be_compared_in_time_is_told_in_every_run(
    label: Label,
    candidates: Shards,
    pocket_questions: list[Question],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both of the same answer; with another math-verify all are compared anew."""
    asked = [dataclasses.replace(one, dataset="math", answer="x") for one in pocket_questions[:9]]
    path = candidates.paths[0]
    path.write_bytes(encode(pd.read_parquet(path).replace({"response": {"#### 999": r"It is \boxed{x+1}."}})))
    monkeypatch.setattr(latex, "_compared", lambda truth, answer: None)
    monkeypatch.setattr(tasks, "verifier_versions", lambda: {"math-verify": "1"})
    shards, _ = label(NONE, asked=asked)
    monkeypatch.setattr(latex, "_compared", lambda truth, answer: answer == "x+1")
    again, told = label(NONE, asked=asked)
    assert again == shards and told["positives"] == 0
    assert caplog.text.count("4 responses could not be compared in time, and count as wrong unless") == 2
    monkeypatch.setattr(tasks, "verifier_versions", lambda: {"math-verify": "2"})
    caplog.clear()
    assert label(NONE, asked=asked)[1]["positives"] == 2 and "in time" not in caplog.text


def test_a_judge_is_asked_about_all_shards_over_one_reading_of_its_ratings(
    label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many shards as it may have, what it said before is read and locked once."""
    opened, given = [], []

    class Judge:
        def __init__(self, settings: Any, path: Path) -> None:
            opened.append(path)

        def rate(self, feedback: pd.DataFrame, questions: Any) -> tuple[pd.Series, dict[str, Any]]:
            given.append(set(feedback["question_id"]))
            return feedback["is_correct"].map({True: 9.0, False: 2.0}), {"requests": len(feedback)}

    monkeypatch.setattr(judge, "_Judge", Judge)
    asked = Labelling(judge="openai", openai=JudgeSettings("http://localhost:1", "served"))
    shards, told = label(asked, rows=8)
    assert len(opened) == 1 and len(given) == len(shards) == 4 and not set.intersection(*given)
    assert told["requests"] == 24 and Shards(shards).table()["rating"].tolist().count(9.0) == told["positives"] == 8


def test_no_response_and_one_of_an_unknown_question_are_refused(label: Label, pocket_questions: list[Question]) -> None:
    with pytest.raises(DataError, match="There is no sampled response to label"):
        label_and_rank(Shards(), to_table(pocket_questions), STEPS, 0, "", "")
    with pytest.raises(DataError, match="Candidates of 1 unknown questions"):
        label(asked=pocket_questions[:7])


def test_workers_of_a_cluster_write_the_same_bytes_also_when_one_is_killed(
    label: Label, pocket_questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Killed over the third of four shards; the first is finished before. They need no GPU, and have the ratings file.

    A single shard that is missing is made here: no cluster is asked.
    """
    pytest.importorskip("ray")
    ratings, begun, make = tmp_path / "ratings.jsonl", tmp_path / "begun", cluster.make_on_cluster
    asked, victim = pocket_questions[:9], pocket_questions[4].question_id
    rated = [
        {"question_id": one.question_id, "sample_index": 0, "rating": 3, "response": one.reference} for one in asked
    ]
    ratings.write_text("".join(json.dumps(row) + "\n" for row in rated), encoding="utf-8")
    labelling = Labelling(judge="file", ratings_file=str(ratings))
    whole, told = label(labelling, rows=8, cache="here")
    expected = [shard.read_bytes() for shard in whole]

    def change(rows: Callable[..., pd.DataFrame], *others: Any) -> Any:
        def killed(questions: list[Question], *block: Any) -> pd.DataFrame:
            import os

            with begun.open("a", encoding="utf-8") as file:
                file.write(f"{questions[0].question_id}\n")
            if begun.read_text(encoding="utf-8").split().count(victim) == 1 and questions[0].question_id == victim:
                os.kill(os.getpid(), 9)
            return rows(questions, *block)

        return make(killed, *others)

    monkeypatch.setattr(cluster, "make_on_cluster", change)
    for shard in whole[1:]:
        shard.unlink()
    before = signal.getsignal(signal.SIGTERM)
    assert label(labelling, rows=8, cache="here", sampler=ON_TWO_WORKERS) == (whole, told)
    assert signal.getsignal(signal.SIGTERM) is before, "and Ray's handler is gone"
    assert [shard.read_bytes() for shard in whole] == expected
    made = [pocket_questions[number].question_id for number in (2, 4, 4, 6)]
    assert sorted(begun.read_text(encoding="utf-8").split()) == sorted(made)
    assert f"A worker was lost over the questions {victim}" in caplog.text
    whole[1].unlink()
    monkeypatch.setattr(cluster, "make_on_cluster", None)
    assert label(labelling, rows=8, cache="here", sampler=ON_TWO_WORKERS) == (whole, told)


def test_kill_9_while_labelling_changes_nothing(
    label: Label, candidates: Shards, pocket_questions: list[Question], tmp_path: Path, start_python: Callable[..., Any]
) -> None:
    """The first shard is finished, and the process is killed over the second."""
    to_table(pocket_questions[:9]).to_parquet(tmp_path / "questions.parquet")
    code = """
import os, sys
from pathlib import Path
import pandas as pd
from aft.pipelines.label_and_rank import nodes
from aft.pipelines.parameters import Labelling
from aft.shards import Shards
folder, *shards = map(Path, sys.argv[1:])
counted, nodes._ROWS, count = [], 16, nodes.count
def killed(feedback):
    counted.append(len(feedback))
    if len(counted) == 2:
        os.kill(os.getpid(), 9)
    return count(feedback)
nodes.count = killed
questions = pd.read_parquet(folder / "questions.parquet")
nodes.label_and_rank(Shards(shards), questions, Labelling(judge="steps"), 0, str(folder), str(folder / "store"))
"""
    assert start_python(code, tmp_path, *candidates.paths).wait() == -signal.SIGKILL
    assert len(list((tmp_path / "store").glob("*/*.parquet"))) == 1
    shards, told = label()
    whole, same = label(cache="uninterrupted")
    assert [shard.read_bytes() for shard in shards] == [shard.read_bytes() for shard in whole] and told == same
    assert lock_of(shards[0].parent).exists() and len({shard.parent for shard in shards}) == 1
