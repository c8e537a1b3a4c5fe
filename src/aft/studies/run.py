"""Run the cells of studies, several at once, in processes of their own; what is finished is not run again."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any, cast

from kedro.framework.context import KedroContext
from kedro.framework.session import KedroSession

from aft.alignment.variants import Variant
from aft.code import source_hash
from aft.errors import AftError
from aft.files import write_json
from aft.hooks.check_parameters import check_known
from aft.hooks.mlflow_plan import PARENT
from aft.hooks.mlflow_tracking import MlflowSettings, read_settings
from aft.machine import THREADS, shares_of, usual_jobs, visible_devices
from aft.pipelines.comparisons import dataset, variants_of
from aft.pipelines.content import content_hash
from aft.pipelines.evaluate.nodes import ROOMS
from aft.studies.cell import ENDED, UNTRACKED
from aft.studies.definition import Study
from aft.studies.marks import CODE_OF, Content, Mark, changed, mark_of
from aft.studies.plan import Cell, Point, nested

logger = logging.getLogger(__name__)

_LOG = "study_log.txt"  # of a cell, in its folder
_RECORD = "its record in MLflow"  # in the marks of a cell of whose record something is missing


class CellError(AftError, RuntimeError):
    """A cell that failed; the message names its log."""


@dataclass(frozen=True)
class Workplace:
    """Where cells run: a project, one of its recipes, and where its configuration is."""

    project: Path
    env: str | None
    conf_source: str | None

    def context(self, label: str | None = None, seed: int = 0, params: dict[str, Any] | None = None) -> KedroContext:
        """Kedro's context of a run under this seed and label, which names these settings; made once."""
        if (label, seed) not in self._contexts:
            given = {**nested(params or {}), "seed": seed} | ({} if label is None else {"label": label})
            with KedroSession.create(
                self.project, env=self.env, conf_source=self.conf_source, runtime_params=given
            ) as session:
                self._contexts[label, seed] = cast(KedroSession, session).load_context()
        return self._contexts[label, seed]

    @cached_property
    def _contexts(self) -> dict[tuple[str | None, int], KedroContext]:
        return {}  # each is half a second of work, and a study asks for most of them three times

    @cached_property
    def globals(self) -> dict[str, Any]:
        """The recipe's `globals.yml`."""
        return dict(self.context().config_loader["globals"])

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """The recipe's variants."""
        return variants_of(self.context().config_loader["parameters"]["align"])

    @cached_property
    def mlflow(self) -> MlflowSettings:
        """Where runs are recorded."""
        return read_settings(self.context())

    @property
    def usual_jobs(self) -> int:
        """How many cells run at once without -j."""
        return usual_jobs(self.context().params["launch"].processes)

    @property
    def studies(self) -> Path:
        """Where the studies' tables and figures lie."""
        return self.project / self.globals["data"] / "08_reporting" / self.globals["recipe"] / "studies"

    def check(self, study: Study, points: Sequence[Point]) -> None:
        """Raise `SettingsError` before anything runs if the study or one of its settings cannot be."""
        for point in points:
            context = self.context(point.label, study.seeds[0], point.params)
            check_known(context.params)
            params = _decisive(context)
            asked, task = params["evaluation"], params["task"]
            # The answers to each dataset of a multitask are a set.
            own = task["settings"] if task["family"] == "multitask" else ()
            study.check_reported(asked.ks, asked.sampling.samples, ["validation", *own, *params["test_sets"]])

    def shown(self, path: Path) -> Path:
        """A path as a person may see it: relative to the project where it lies in it."""
        return path.relative_to(self.project) if path.is_relative_to(self.project) else path

    def reports(self, label: str) -> Path:
        """Where the results under a label are told."""
        return self.project / self.globals["data"] / "08_reporting" / label

    def folder(self, cell: Cell) -> Path:
        """Where a cell's figures and log lie."""
        return self.reports(cell.label) / f"seed_{cell.seed}"


def run_cells(place: Workplace, cells: Sequence[Cell], jobs: int, parent: str | None) -> int:
    """Run the cells that are not finished, in so many processes: each has its GPUs, and one thread if there are others.

    Returns how many were run whose results are complete, but not their record in MLflow. Those are run once more when
    their results are asked for again, which then are found in the caches: another run in MLflow has all of them.

    Every cell's work is kept as it is made, so that a study that was stopped goes on where it was. A cell ends when
    this process ends, however it does. Raises `CellError` for the first cell that fails, after the running ones.
    """
    folders = {cell: place.folder(cell) for cell in cells}
    content = cache(lambda path, is_model: content_hash(place.project / path, is_model))  # cells share what they name
    orders = [(cell, missing) for cell in cells if (missing := _missing(place, cell, folders[cell], content, parent))]
    logger.info("%d of %d runs are finished already.", len(cells) - len(orders), len(cells))
    gaps, failed, failure = 0, Event(), None
    common = ({THREADS: "1"} if jobs > 1 else {}) | ({} if parent is None else {PARENT: parent})
    workers = [_Worker(place.project, share | common) for share in shares_of(visible_devices(), jobs)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(cell: Cell, missing: dict[str, Mark]) -> bool | None:
        worker = idle.get()
        try:
            return None if failed.is_set() else _run(place, cell, missing, folders[cell], worker)
        except CellError:
            failed.set()  # here, as this thread takes the next cell at once
            raise
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, cell, missing): cell for cell, missing in orders}
        try:
            for number, finished in enumerate(as_completed(running), start=1):
                try:
                    untracked, cell = finished.result(), running[finished]
                except CellError as error:
                    failure = failure or error
                    continue
                if untracked is None:
                    continue
                made = dict(orders)[cell]
                _mark(folders[cell], {name: mark | ({_RECORD: ""} if untracked else {}) for name, mark in made.items()})
                logger.info("%d of %d: %s, seed %d.", number, len(orders), cell.label, cell.seed)
                if untracked:
                    gaps += 1
                    log = place.shown(folders[cell] / _LOG)
                    logger.warning("%s, seed %d, is not completely in MLflow; see %s.", cell.label, cell.seed, log)
        except BaseException:  # Ctrl-C and SIGTERM, too: what waits must not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            for worker in workers:
                worker.end()
    if failure is not None:
        raise failure
    return gaps


class _Worker:
    """A process that runs cells one after another, with these environment variables; started with the first cell."""

    def __init__(self, project: Path, variables: Mapping[str, str]) -> None:
        self.project, self.variables = project, variables
        self._process: subprocess.Popen[str] | None = None
        self._lock, self._is_over = Lock(), False

    def run(self, order: Mapping[str, Any]) -> int | str:
        """The status of a cell, see `aft.studies.cell`; in words how its process has ended, if it has."""
        with self._lock:
            if self._is_over:
                return "the study was stopped"
            if self._process is None or self._process.poll() is not None:
                self._process = self._start(Path(order["log"]))
            process = self._process
        assert process.stdin is not None and process.stdout is not None
        with suppress(OSError, ValueError):  # it has ended, or was told to
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if line.startswith(ENDED):
                    return int(line.removeprefix(ENDED))
        status = process.wait()
        return f"its process was killed by signal {-status}" if status < 0 else f"its process ended with {status}"

    def end(self) -> None:
        """Have it end, even within a cell, as its standard input does; none is started afterwards."""
        with self._lock:
            self._is_over = True
            if self._process is not None and self._process.stdin is not None:
                with suppress(OSError):
                    self._process.stdin.close()
                self._process.wait()

    def _start(self, log: Path) -> subprocess.Popen[str]:
        with log.open("w", encoding="utf-8") as file:  # of its start; a cell's output is its own affair
            return subprocess.Popen(
                [sys.executable, "-m", "aft.studies.cell"],
                encoding="utf-8",
                cwd=self.project,
                env={**os.environ, **self.variables, "PYTHONIOENCODING": "utf-8"},  # the encoding is that of its logs
                stdin=subprocess.PIPE,  # its end tells the process that this one is gone
                stdout=subprocess.PIPE,
                stderr=file,
                errors="replace",
            )


def _missing(place: Workplace, cell: Cell, folder: Path, content: Content, parent: str | None) -> dict[str, Mark]:
    """The variants of a cell that are still to be made or recorded, each with the mark of what decides its results."""
    params = _decisive(place.context(cell.label, cell.seed, cell.params))
    finished, missing = _marks(folder), {}
    for name in cell.variants:
        mark = mark_of(params, name, cell.seed, content)
        other = changed(mark, finished.get(name))
        other += [_RECORD] if parent is not None and _RECORD in finished.get(name, ()) else []
        if other and name in finished:
            changes = ", ".join(other)
            logger.info("%s, seed %d: %s is made again; not as before: %s.", cell.label, cell.seed, name, changes)
        if other or not _result(folder, cell, name).is_file():
            missing[name] = mark
    return missing


def _decisive(context: KedroContext) -> dict[str, Any]:
    """The parameters of a run, with the questions as the catalog asks for them, which may name others."""
    catalog = context.config_loader["catalog"]
    return {
        **context.params,
        **{"task": catalog["raw_questions"]["asked"], "test_sets": catalog["raw_test_sets"]["asked"]},
    }


def _result(folder: Path, cell: Cell, variant: str) -> Path:
    """The file of what is wanted of a cell's variant."""
    if cell.wanted == "metrics":
        return folder / "metrics" / f"{variant}.json"
    return folder.parent / "training_curves" / variant / f"{folder.name}.parquet"


def _marks(folder: Path) -> dict[str, Any]:
    try:
        marks = json.loads((folder / "finished.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: mark for name, mark in marks.items() if isinstance(mark, dict)} if isinstance(marks, dict) else {}


def _mark(folder: Path, made: dict[str, Mark]) -> None:
    write_json(folder / "finished.json", {**_marks(folder), **made})


def _run(place: Workplace, cell: Cell, missing: Mapping[str, Mark], folder: Path, worker: _Worker) -> bool:
    """Run a cell to its end; whether its record in MLflow has gaps."""
    log = folder / _LOG
    order = {
        "project": str(place.project),
        "env": place.env,
        "conf_source": place.conf_source,
        "runtime_params": {**nested(cell.params), "seed": cell.seed, "label": cell.label, "parallel": 1},
        "to_outputs": [dataset(name, cell.wanted) for name in missing],
        # Which the cell's marks name:
        "code": source_hash(*ROOMS),
        "families": {
            name: code for mark in missing.values() for name, code in mark.items() if name.startswith(CODE_OF)
        },
        "log": str(log.absolute()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # what it says is of this time
    status = worker.run(order)
    if status in (0, UNTRACKED):
        return status == UNTRACKED
    said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()] if log.is_file() else []
    why = f"{status}." if isinstance(status, str) or not said else said[-1].removeprefix("Error: ")
    raise CellError(
        f"The run {cell.label}, seed {cell.seed}, failed: {why} Its log is {place.shown(log)}; run the same command "
        "again to go on: finished work is kept."
    )
