"""Two hundred responses that were drawn elsewhere: imported, checked, trained on, and exported for TRL."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.catalog.sample_store import SampleStoreDataset
from aft.tasks import Question, pocket

pytestmark = pytest.mark.e2e
SPLITS = pocket.load_questions(pocket.Settings(train=50, validation=16, test=24))


def dumped(number: int, question: Question) -> dict[str, Any]:
    """A line as an inference engine dumps it; every tenth has a score that is not ours."""
    answer, wrong = question.answer, str(int(question.answer) + 1)
    responses = [question.reference, question.reference.replace(f"#### {answer}", f"#### {wrong}")]
    scores = [1.0, float(number % 10 == 0), 1.0, 0.0]
    responses += [f"#### {answer}", f"#### {wrong}"]
    return {"prompt": pocket.prompt(question), "responses": responses, "scores": scores, "model": "org/name"}


def test_own_rollouts_are_imported_trained_on_and_exported(fresh, tmp_path: Path) -> None:
    asked = [*SPLITS["train"], *SPLITS["test"][:3]]
    path = tmp_path / "rollouts.jsonl"
    path.write_text("".join(json.dumps(dumped(*one)) + "\n" for one in enumerate(asked)), encoding="utf-8")
    given = f"--params=label=rollouts,task.settings.train=50,candidates_from={path}"
    done = fresh.run("--pipelines=variants", "--to-outputs=align.aft_dc.metrics", given)
    assert done.returncode == 0, done.stderr[-2000:]
    said = " ".join(done.stderr.split())
    assert "200 responses to 50 of 50 training questions; left out are 12 to validation or test questions" in said
    feedback = (
        SampleStoreDataset(filepath=str(fresh.data / "05_model_input/rollouts/seed_0/feedback.json")).load().table()
    )
    assert len(feedback) == 200 and set(feedback["question_id"]) == {one.question_id for one in SPLITS["train"]}
    assert feedback["sum_logprob"].isna().all() and feedback["is_correct"].sum() == 100
    summary = json.loads((fresh.data / "08_reporting/rollouts/seed_0/feedback_summary.json").read_text("utf-8"))
    told = summary["given_labels"]
    assert (told["given"], told["differ_from_check"], told["share_that_differs"]) == (200, 5, 0.025)
    curve = pd.read_parquet(fresh.data / "08_reporting/rollouts/training_curves/aft_dc/seed_0.parquet")
    assert curve["alignment_term"].notna().any()

    refused = fresh.run("--pipelines=variants", "--to-outputs=align.topr.model", given)
    assert refused.returncode != 0 and "which the term topr needs" in " ".join(refused.stderr.split())

    where = ("--env=smoke", "--conf-source", str(fresh.folder / "conf"))
    command = [sys.executable, "-m", "kedro", "feedback", "export", "--as=trl_pairs", "--label=rollouts"]
    exported = fresh.call([*command, f"--output={tmp_path / 'pairs.jsonl'}", *where])
    assert exported.returncode == 0, exported.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 200, "two right by two wrong responses of 50 questions"
    assert rows[0] == {name: rows[0][name] for name in ("prompt", "chosen", "rejected")}

    listed = fresh.call([sys.executable, "-m", "kedro", "cache", "list", *where])
    assert listed.returncode == 0 and "used" in listed.stdout and "own rollouts" in listed.stdout
