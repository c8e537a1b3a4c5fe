"""A real server beside the local engine. Skipped unless one is named (tests/servers/vllm_cpu.sh starts vLLM):

AFT_TEST_SERVER=http://localhost:8000/v1 AFT_TEST_SERVED=FOLDER pytest -s tests/servers

FOLDER is the model's: one that answers pocket's questions, such as data/06_models/pocket/seed_0/vft. What was measured
is printed.
"""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.errors import StoreError
from aft.models.directory import ModelDirectory, open_model
from aft.sampling.run import sample_responses
from aft.sampling.settings import SamplerSettings, SamplingSettings, ServerSettings
from aft.tasks import Question, get_task, pocket

URL, FOLDER = os.environ.get("AFT_TEST_SERVER", ""), os.environ.get("AFT_TEST_SERVED", "")
pytestmark = pytest.mark.skipif(not (URL and FOLDER), reason="AFT_TEST_SERVER and AFT_TEST_SERVED name no real server")

SETTINGS = SamplingSettings(samples=3, greedy=True, max_new_tokens=80, block_size=25, batch_rows=400)
SEED = 5
SERVED = SamplerSettings(engine="server", server=ServerSettings(URL or "http://localhost:1", "served", retries=1))


@pytest.fixture(scope="module")
def source() -> ModelDirectory:
    return open_model(Path(FOLDER))


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return pocket.load_questions(pocket.Settings(train=1, validation=100, test=1))["validation"]


def table(shards: list[Path]) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(shard) for shard in shards], ignore_index=True)


@pytest.fixture(scope="module")
def local(source: ModelDirectory, questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return table(sample_responses(source, questions, SETTINGS, SEED, tmp_path_factory.mktemp("local"), "here"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(source: ModelDirectory, questions: list[Question], root: Path) -> pd.DataFrame:
    return table(sample_responses(source, questions, SETTINGS, SEED, root, "there", SERVED))


def right(rows: pd.DataFrame, questions: list[Question]) -> float:
    """The share of responses with the right answer."""
    asked = {one.question_id: one for one in questions}
    marks = []
    for question_id, response in zip(rows["question_id"], rows["response"], strict=True):
        question = asked[question_id]
        task = get_task(question.dataset)
        answer = task.extract_answer(response)
        marks.append(answer is not None and task.answers_equal(answer, question.answer))
    return sum(marks) / len(marks)


def test_greedy_answers_and_their_sums_are_those_of_the_local_engine(local: pd.DataFrame, served: pd.DataFrame) -> None:
    """All but where two tokens are as good as equally probable; the sums of equal responses to 1e-3."""
    greedy = local[local["sample_index"] == -1]
    joined = greedy.merge(served, on=["question_id", "sample_index"], suffixes=("", "_served"))
    same = joined[joined["response"] == joined["response_served"]]
    off = (same["sum_logprob"] - same["sum_logprob_served"]).abs().max()
    print(f"\ngreedy answers equal: {len(same)} of {len(joined)}; their sums differ by {off:.1e} at most")
    assert len(joined) == 100 and len(same) >= 98 and off < 1e-3


def test_samples_are_as_often_right_as_those_of_the_local_engine(
    local: pd.DataFrame, served: pd.DataFrame, questions: list[Question]
) -> None:
    """Other random numbers, so other samples: 300 each, within three standard errors of their difference (0.12)."""
    shares = [right(rows[rows["sample_index"] >= 0], questions) for rows in (local, served)]
    print(f"\nsamples right: local {shares[0]:.1%}, served {shares[1]:.1%}")
    assert abs(shares[0] - shares[1]) < 0.12
    assert len(served) == 400, "none was left out"


def test_the_servers_precision_is_that_of_the_model(
    source: ModelDirectory, questions: list[Question], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sample_responses(source, questions[:2], SETTINGS, SEED, tmp_path, "there", SERVED)
    assert "nats per token away" not in caplog.text, "start it with --dtype float32"


def test_a_killed_run_keeps_its_shards_and_asks_for_the_others_alone(
    source: ModelDirectory, questions: list[Question], tmp_path: Path
) -> None:
    """kill -9 after the first shard; of what it had made nothing is asked for again."""
    code = f"import test_server; test_server.sample({str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent)
    while not (made := list(tmp_path.rglob("*.parquet"))) and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = {path: path.read_bytes() for path in made}
    shards = sample_responses(source, questions, SETTINGS, SEED, tmp_path, "there", SERVED)
    assert before and len(shards) == 4 and all(path.read_bytes() == content for path, content in before.items())


def sample(root: str) -> None:
    """What the process that is killed does."""
    questions = pocket.load_questions(pocket.Settings(train=1, validation=100, test=1))["validation"]
    sample_responses(open_model(Path(FOLDER)), questions, SETTINGS, SEED, Path(root), "there", SERVED)


def test_a_wrong_port_is_told_apart(source: ModelDirectory, questions: list[Question], tmp_path: Path) -> None:
    nowhere: Any = ServerSettings("http://localhost:9/v1", "served", retries=0)
    with pytest.raises(StoreError, match="nothing answers there"):
        sample_responses(
            source, questions[:1], SETTINGS, SEED, tmp_path, "there", SamplerSettings(engine="server", server=nowhere)
        )
