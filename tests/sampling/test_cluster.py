"""Workers of a local Ray fill the store with the bytes that one process writes, whatever becomes of the workers."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.errors import NumericalError, SettingsError, StoreError
from aft.models.directory import ModelDirectory
from aft.sampling import cluster
from aft.sampling.run import sample_responses
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings
from aft.tasks import Question

Start = Callable[..., "subprocess.Popen[str]"]
Rows = Callable[[Sequence[Question]], pd.DataFrame]
SETTINGS = SamplingSettings(samples=3, greedy=True, max_new_tokens=24, block_size=3, batch_rows=8)
TWO_WORKERS = SamplerSettings(cluster=ClusterSettings(workers=2))


def sample(
    source: ModelDirectory, questions: list[Question], root: Path, sampler: SamplerSettings = TWO_WORKERS
) -> list[Path]:
    return sample_responses(source, questions, SETTINGS, 7, root, "sample", sampler)


def bytes_of(shards: list[Path]) -> dict[str, bytes]:
    """Of shards and seals, by folder and name."""
    files = [file for shard in shards for file in (shard, shard.with_suffix(".json"))]
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, pocket_directory: ModelDirectory, pocket_questions: list[Question]
) -> dict[str, bytes]:
    """The four shards of a run without a cluster."""
    root = tmp_path_factory.mktemp("local")
    return bytes_of(sample(pocket_directory, pocket_questions, root, SamplerSettings()))


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    """A Ray with room for two workers that runs in this process already."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = signal.getsignal(signal.SIGTERM)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the blocks that the cluster is asked for."""
    numbers: list[int] = []
    make = cluster.make_on_cluster

    def counted(rows: Rows, asked: Sequence[int], *others: Any) -> Any:
        numbers.extend(asked)
        return make(rows, asked, *others)

    monkeypatch.setattr(cluster, "make_on_cluster", counted)
    return numbers


def in_workers(monkeypatch: pytest.MonkeyPatch, change: Callable[[Rows, Sequence[Question]], pd.DataFrame]) -> None:
    """Let the workers make their rows by `change`, which is sent to them with all that it encloses."""
    make = cluster.make_on_cluster

    def changed(rows: Rows, *others: Any) -> Any:
        return make(lambda block: change(rows, block), *others)

    monkeypatch.setattr(cluster, "make_on_cluster", changed)


def marked(mark: str) -> list[str]:
    """What runs with `mark` in its environment, by command line; ended processes that nobody waits for are not."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment:
            found.append(command.replace(b"\0", b" ").decode()[:80])
    return found


def left_of(mark: str, patience_s: float = 180) -> list[str]:
    """What is still marked when Ray has had time to end its processes, which a busy machine makes long."""
    deadline = time.monotonic() + patience_s
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.5)
    return marked(mark)


def test_without_ray_installed_it_is_named(
    tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a store that is finished needs none."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'aft\[ray\]'"):
        sample(pocket_directory, pocket_questions, tmp_path)
    local = sample(pocket_directory, pocket_questions, tmp_path, SamplerSettings())
    assert sample(pocket_directory, pocket_questions, tmp_path) == local


class TestRayOfItsOwn:
    def test_the_same_bytes_and_no_process_is_left(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        expected: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        ray = pytest.importorskip("ray")
        mark = uuid.uuid4().hex
        monkeypatch.setenv("MARK", mark)
        monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")  # of another one, which was not asked for
        assert bytes_of(sample(pocket_directory, pocket_questions, tmp_path)) == expected
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert not ray.is_initialized()
        assert left_of(mark) == []
        with pytest.raises(SettingsError, match=r"no GPU for a worker; set it to 0\.$"):
            many = SamplerSettings(cluster=ClusterSettings(workers=1, gpus_per_worker=64))
            sample(pocket_directory, pocket_questions, tmp_path / "gpu", many)
        assert not ray.is_initialized()

    def test_kill_9_of_the_whole_run_leaves_finished_shards_and_no_worker(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        expected: dict[str, bytes],
        told: list[int],
        start_python: Start,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Killed when the first shard is there; what it lost is made without a cluster, to the same bytes.

        Ray ends its processes itself; agents that hide their environment may stay for some two minutes.
        """
        pytest.importorskip("ray")
        code = """
import json, os, sys
from pathlib import Path
from aft.models.directory import open_model
from aft import shards as store
from aft.sampling.run import sample_responses
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings
from aft.tasks import pocket
write = store._write
def killed(shard, content):
    write(shard, content)
    os.kill(os.getpid(), 9)
store._write = killed
questions = pocket.load_questions(pocket.Settings(train=12, validation=1, test=1))["train"]
settings, sampler = SamplingSettings(**json.loads(sys.argv[3])), SamplerSettings(cluster=ClusterSettings(2))
sample_responses(open_model(Path(sys.argv[1])), questions, settings, 7, Path(sys.argv[2]), "sample", sampler)
"""
        mark = uuid.uuid4().hex
        monkeypatch.setenv("MARK", mark)
        settings = json.dumps(dataclasses.asdict(SETTINGS))
        assert start_python(code, pocket_directory.path, tmp_path, settings).wait() == -signal.SIGKILL
        (kept,) = tmp_path.glob("*/*.parquet")
        begun = kept.stat()
        assert bytes_of(sample(pocket_directory, pocket_questions, tmp_path, SamplerSettings())) == expected
        assert kept.stat().st_mtime_ns == begun.st_mtime_ns and told == []
        assert left_of(mark) == []


@pytest.mark.usefixtures("running")
class TestWorkers:
    def test_one_that_is_killed_loses_nothing(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        expected: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Killed in the third token of the second block; that block is made again, and twice at most it was begun."""
        begun = tmp_path / "begun"

        def change(rows: Rows, block: Sequence[Question]) -> pd.DataFrame:
            import os

            from aft.sampling.draws import Draws

            draw = Draws.draw

            def killed(self: Any, logits: Any, row: Any, steps: Any) -> Any:
                if int(steps[0]) == 2:
                    os.kill(os.getpid(), 9)
                return draw(self, logits, row, steps)

            if block[0].question_id == victim:
                with begun.open("a", encoding="utf-8") as file:
                    file.write("x")
                if begun.stat().st_size == 1:
                    Draws.draw = killed  # type: ignore[method-assign, assignment]
            return rows(block)

        victim = pocket_questions[3].question_id
        in_workers(monkeypatch, change)
        assert bytes_of(sample(pocket_directory, pocket_questions, tmp_path / "store")) == expected
        assert begun.read_text(encoding="utf-8") == "xx"
        assert f"A worker was lost over the questions {victim}" in caplog.text

    def test_a_block_that_kills_every_worker_is_named_and_the_others_are_finished(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        expected: dict[str, bytes],
        told: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The victim is the last of the blocks, so that the other three are begun before it is given up."""
        victim = pocket_questions[9].question_id

        def change(rows: Rows, block: Sequence[Question]) -> pd.DataFrame:
            import os

            return rows(block) if block[0].question_id != victim else os.kill(os.getpid(), 9)  # type: ignore[return-value]

        with monkeypatch.context() as patched:
            in_workers(patched, change)
            with pytest.raises(StoreError, match=f"3 workers were lost over the questions {victim}") as caught:
                sample(pocket_directory, pocket_questions, tmp_path)
        assert "\n" not in str(caught.value)
        told.clear()
        assert bytes_of(sample(pocket_directory, pocket_questions, tmp_path)) == expected
        assert told == [3]

    def test_a_half_filled_store_is_continued(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        expected: dict[str, bytes],
        told: list[int],
    ) -> None:
        """A run without a cluster has made two blocks, and one of them is damaged since."""
        first = sample(pocket_directory, pocket_questions[:6], tmp_path, SamplerSettings())
        first[1].write_bytes(b"damaged")
        before = first[0].stat()
        assert bytes_of(sample(pocket_directory, pocket_questions, tmp_path)) == expected
        assert told == [1, 2, 3]
        assert first[0].stat().st_mtime_ns == before.st_mtime_ns

    def test_an_error_comes_as_it_is_and_what_is_under_way_is_kept(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The first block waits for the second to be under way and fails; the second is finished, no third begun."""
        first, second = pocket_questions[0].question_id, pocket_questions[3].question_id
        begun, failed = tmp_path / "begun", tmp_path / "failed"

        def change(rows: Rows, block: Sequence[Question]) -> pd.DataFrame:
            import time

            from aft.errors import NumericalError

            with begun.open("a", encoding="utf-8") as file:
                file.write(f"{block[0].question_id}\n")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and block[0].question_id == first:
                if second in begun.read_text(encoding="utf-8"):
                    failed.touch()
                    raise NumericalError(f"The model gives logits that are not finite for {first}.")
            while time.monotonic() < deadline and not failed.exists():
                time.sleep(0.01)
            time.sleep(0.5)  # until the caller has heard of the failure
            return rows(block)

        in_workers(monkeypatch, change)
        with pytest.raises(NumericalError, match=first):
            sample(pocket_directory, pocket_questions, tmp_path / "store")
        assert sorted(begun.read_text(encoding="utf-8").split()) == sorted([first, second])
        assert [path.name[:5] for path in (tmp_path / "store").glob("*/*.parquet")] == ["00001"]

    def test_more_workers_than_there_is_room_for(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        expected: dict[str, bytes],
    ) -> None:
        """Two have room, two wait in vain and are given nothing to do."""
        four = SamplerSettings(cluster=ClusterSettings(workers=4))
        assert bytes_of(sample(pocket_directory, pocket_questions, tmp_path, four)) == expected

    def test_they_ask_a_server(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        start_server: Callable[[], Any],
    ) -> None:
        """The rows are those of one process that asks it, and a rate limit is waited for."""
        server = start_server()
        sampler = SamplerSettings("server", ServerSettings(server.url, "pocket", retries=1), TWO_WORKERS.cluster)
        server.plan = lambda number, body: "429 0.01" if number == 1 else None
        shards = sample(pocket_directory, pocket_questions, tmp_path / "cluster", sampler)
        alone = dataclasses.replace(sampler, cluster=None)
        assert server.requests == 12 * 4 + 1
        assert bytes_of(shards) == bytes_of(sample(pocket_directory, pocket_questions, tmp_path / "alone", alone))
