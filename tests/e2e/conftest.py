"""Whole runs of the smoke recipe, in a data folder of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
USUAL = {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
Kedro = Callable[[list[str], dict[str, str]], subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Project:
    """The project with a copy of its configuration, whose data folder is `data`; a run is one process, if not asked."""

    folder: Path
    kedro: Kedro

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def arguments(self, *options: str, env: str = "smoke") -> list[str]:
        return ["run", f"--env={env}", "--conf-source", str(self.folder / "conf"), *options]

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "kedro", *self.arguments(*options)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, **USUAL, "MLFLOW_TRACKING_URI": self.tracking_uri}

    def run(self, *options: str, env: str = "smoke") -> subprocess.CompletedProcess[str]:
        """`kedro run` to its end."""
        return self.kedro(self.arguments(*options, env=env), self.environment())

    def studies(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`kedro studies` of the smoke recipe to its end."""
        where = ("--env=smoke", "--conf-source", str(self.folder / "conf"))
        return self.kedro(["studies", *arguments, *where], self.environment())

    def call(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """A command in a process of its own, to its end."""
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    def run_until(self, reached: Callable[[], bool], *options: str) -> None:
        """`kedro run`, killed with SIGKILL as soon as `reached`; fails if the run ends before that."""
        process = subprocess.Popen(
            self.command(*options),
            cwd=ROOT,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not reached():
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()


def make_project(folder: Path, kedro: Kedro) -> Project:
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf/local").mkdir()
    (folder / "conf/local/globals.yml").write_text(f"data: {folder / 'data'}\n", encoding="utf-8")
    (folder / "conf/local/parameters_tests.yml").write_text("parallel: 1\n", encoding="utf-8")
    return Project(folder, kedro)


@pytest.fixture(scope="session")
def kedro(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kedro]:
    """`kedro` with some arguments in an environment, to its end: in a process of its own that need not import torch."""
    says = [tmp_path_factory.mktemp("kedro") / name for name in ("stdout", "stderr")]
    forks = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("kedro_forks.py"))],
        cwd=ROOT,
        env={**os.environ, **USUAL},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert forks.stdin is not None and forks.stdout is not None
    asked, ended = forks.stdin, forks.stdout

    def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        for file in says:
            file.unlink(missing_ok=True)
        command = {"arguments": arguments, "environment": environment, "says": list(map(str, says))}
        asked.write(f"{json.dumps(command)}\n")
        asked.flush()
        status = int(ended.readline())
        return subprocess.CompletedProcess(arguments, status, *(file.read_text(encoding="utf-8") for file in says))

    with forks:
        yield run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, kedro: Kedro) -> Project:
    """A whole smoke run in two processes, from nothing to the comparison, which all workers of pytest-xdist share.

    It is only read: `copied` is to go on from.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "finished"
    log = folder / "log.txt"
    with FileLock(f"{folder}.lock"):
        if log.is_file():
            return Project(folder, kedro)
        shutil.rmtree(folder, ignore_errors=True)  # of a worker whose run failed
        project = make_project(folder, kedro)
        done = project.call(project.command("--params=parallel=2"))
        assert done.returncode == 0, done.stderr[-4000:]
        log.write_text(done.stderr, encoding="utf-8")
    return project


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory, kedro: Kedro) -> Project:
    """A project for studies."""
    return make_project(tmp_path_factory.mktemp("studied"), kedro)


@pytest.fixture
def fresh(tmp_path: Path, kedro: Kedro, database: Path) -> Project:
    """A project in which nothing was run yet."""
    shutil.copy(database, tmp_path)
    return make_project(tmp_path, kedro)


@pytest.fixture
def copied(finished: Project, fresh: Project) -> Project:
    """The finished run in a project of its own, to go on from: what a test adds to it, no other test sees."""
    shutil.copytree(finished.data, fresh.data)
    shutil.copy(finished.folder / "mlflow.db", fresh.folder)
    return fresh
