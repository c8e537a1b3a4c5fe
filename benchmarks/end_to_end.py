"""The whole recipe from nothing: wall time of every stage, processor time and peak memory of the run, time to start.

    python benchmarks/end_to_end.py [--env smoke] [--compare GIT_REV] [--json FILE]

`kedro run` works in a temporary copy of the project without `conf/local`, so that its data and its MLflow record are
new, and gone afterwards. The stages' durations are those that the run tells at its end; `start_s` is the median time of
`kedro registry list`. `--compare` does the same with another revision, under the same interpreter and packages.
"""

import argparse
import io
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measure import print_table, write_json

ROOT = Path(__file__).parents[1]
RUN = ("run",)
START, STARTS = ("registry", "list"), 3
_STAGE = re.compile(r"^(\w+) +(?:(\d+) h )?(?:(\d+) min ?)?(?:([\d.]+) s)?$", re.MULTILINE)
_NEEDED = ("conf", "src", "pyproject.toml", ".telemetry")


@dataclass(frozen=True)
class Finished:
    """What a command took, and what it told."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    log: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write the rows if wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="local", help="which recipe; local is pocket")
    parser.add_argument("--compare", metavar="GIT_REV", help="a revision to measure as well")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    if options.compare:
        rows.append({"what": options.compare, **measure(options.env, partial(copy_revision, options.compare))})
    rows.append({"what": "this tree", **measure(options.env, copy_tree)})
    if options.compare:
        rows.append({"what": "ratio", **ratios(*rows)})
    print_table(transposed(rows), {"figure": options.env, **{row["what"]: row["what"] for row in rows}})
    write_json(options.json, rows)


def copy_tree(project: Path) -> None:
    """Copy what a run needs of this tree."""
    for name in _NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
        else:
            shutil.copy(ROOT / name, project / name)


def copy_revision(name: str, project: Path) -> None:
    """Copy another revision."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", name]
    archive = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(project, filter="data")


def measure(env: str, copy: Callable[[Path], None]) -> dict[str, float]:
    """Figures of the project that `copy` puts into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        copy(project)
        (project / "conf/local").mkdir(exist_ok=True)
        kedro(project, *START)  # compiles
        starts = [kedro(project, *START).wall_s for _ in range(STARTS)]
        run = kedro(project, *RUN, f"--env={env}")
    return {
        "start_s": statistics.median(starts),
        **{f"{stage}_s": seconds for stage, seconds in stage_seconds(run.log).items()},
        "wall_s": run.wall_s,
        "cpu_s": run.cpu_s,
        "peak_mib": run.peak_mib,
    }


def kedro(project: Path, *arguments: str) -> Finished:
    """Run a command of Kedro in a project, to its end; raises `RuntimeError` with the end of its log if it fails."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(project / "src"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
    }
    began = time.perf_counter()
    with (project / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kedro", *arguments], cwd=project, env=environment, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)  # unlike `wait` it tells what the process used
    wall = time.perf_counter() - began
    text = (project / "log.txt").read_text(encoding="utf-8")
    if status:
        raise RuntimeError(f"kedro {' '.join(arguments)} failed:\n{text[-4000:]}")
    return Finished(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def stage_seconds(log: str) -> dict[str, float]:
    """The durations of stages in the summary at the end of a run's log; none if it has no summary."""
    summary = log.partition("The run is complete.")[2]
    found = {}
    for stage, *parts in _STAGE.findall(summary):
        hours, minutes, seconds = (float(part or 0) for part in parts)
        found[stage] = 3600 * hours + 60 * minutes + seconds
    return found


def ratios(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """How many times as much the first one takes, for every figure that both have."""
    return {key: before[key] / after[key] for key in before if key != "what" and after.get(key)}


def transposed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each figure."""
    figures = dict.fromkeys(key for row in rows for key in row if key != "what")
    return [{"figure": key, **{row["what"]: row.get(key) for row in rows}} for key in figures]


if __name__ == "__main__":
    main()
