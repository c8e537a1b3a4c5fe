"""Whole runs of the smoke recipe, in a data folder of their own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Project:
    """The project with a copy of its configuration, whose data folder is `data`."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def command(self, *options: str, env: str = "smoke") -> list[str]:
        return [
            *(sys.executable, "-m", "kedro", "run", f"--env={env}"),
            *("--conf-source", str(self.folder / "conf"), *options),
        ]

    def environment(self) -> dict[str, str]:
        settings = {"MLFLOW_TRACKING_URI": self.tracking_uri, "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}
        return {**os.environ, **settings, "HF_HUB_OFFLINE": "1"}

    def run(self, *options: str, env: str = "smoke") -> subprocess.CompletedProcess[str]:
        """`kedro run` to its end."""
        return self.call(self.command(*options, env=env))

    def studies(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`kedro studies` of the smoke recipe to its end."""
        where = ("--env=smoke", "--conf-source", str(self.folder / "conf"))
        return self.call([sys.executable, "-m", "kedro", "studies", *arguments, *where])

    def call(self, command: list[str]) -> subprocess.CompletedProcess[str]:
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


def make_project(folder: Path) -> Project:
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf/local").mkdir()
    (folder / "conf/local/globals.yml").write_text(f"data: {folder / 'data'}\n", encoding="utf-8")
    return Project(folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A whole smoke run, from nothing to the comparison; it is only read: `copied` is to go on from."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    done = project.run()
    assert done.returncode == 0, done.stderr[-4000:]
    (project.folder / "log.txt").write_text(done.stderr, encoding="utf-8")
    return project


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project for studies."""
    return make_project(tmp_path_factory.mktemp("studied"))


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """A project in which nothing was run yet."""
    return make_project(tmp_path)


@pytest.fixture
def copied(finished: Project, fresh: Project) -> Project:
    """The finished run in a project of its own, to go on from: what a test adds to it, no other test sees."""
    shutil.copytree(finished.data, fresh.data)
    shutil.copy(finished.folder / "mlflow.db", fresh.folder)
    return fresh
