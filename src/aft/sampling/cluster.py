"""Blocks of questions sampled or labelled by the workers of a Ray cluster, for the same store as without one.

A block's bytes are made by the code that makes them without a cluster, from seeds of each response's own: where they
are made does not change them, as long as the arithmetic is the same (kind of processor or GPU, threads, torch).

Workers hand the bytes back and the process that called writes them. So one process writes and holds the store's lock,
a worker that is killed leaves nothing behind, and only what is read, the model's folder and the shards that are
labelled, must be on a file system that all can read.

Workers are actors, and who makes what is decided here, in place of Ray Data's `map_batches`. That one does get over a
worker that is killed; but a block that kills every worker (its memory does not suffice) is tried for ever unless
options are given that Ray 2.64 will not know, the failure of one block throws away what the others are doing, and
neither failure says which questions it was. Here a lost worker's block goes to whichever worker is free first, three
times at most; after a failure, what is under way is still finished and kept.
"""

import logging
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aft.code import load_rooms, source_hash
from aft.errors import AftError, SettingsError, StoreError
from aft.sampling.settings import ClusterSettings
from aft.shards import encode
from aft.tasks import Question

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_PATIENCE_S, _PLACES = 60, ("CPU", "GPU")
Block = tuple[Sequence[Question], *tuple[Any, ...]]  # the questions of a block, and what else it is made from
_LIVES = 3  # workers that may be lost over one block, or in a row before they have begun


def make_on_cluster(
    rows: Callable[..., "pd.DataFrame"],
    numbers: Sequence[int],
    block_of: Callable[[int], Block],
    cluster: ClusterSettings,
    rooms: Sequence[str],
) -> Generator[tuple[int, bytes], None, None]:
    """The number and the shard's bytes of every block, in the order in which workers finish them.

    `rows` makes a block's table from what `block_of` gives for its number, when a worker is free for it. It is sent to
    each worker once and keeps there what it loads; the code of the `rooms`, which decides the rows, must be the same
    everywhere. A Ray that runs in this process already is used and left; otherwise one is joined or started, and left
    or stopped at the end. Raises `SettingsError` if Ray is not installed, or one of this machine's own has no GPU for a
    worker, `StoreError` if it cannot be reached or three workers are lost over one block, and what `rows` raises;
    blocks that are under way are finished before.
    """
    waiting, lost = deque(numbers), Counter[int | None]()
    failure: Exception | None = None
    with _joined(cluster), _WorkerPool(rows, cluster, rooms) as pool:
        for _ in range(min(cluster.workers, len(numbers))):
            pool.start()
        while pool.busy or (waiting and failure is None):
            while waiting and pool.free and failure is None:
                number = waiting.popleft()
                pool.submit(number, block_of(number))
            number, outcome = pool.wait()
            if isinstance(outcome, _LostWorker):
                lost[number] += 1
                name = "before it had begun" if number is None else f"over the questions {_name(block_of(number))}"
                logger.warning("A worker was lost %s; another one takes its place.", name)
                if lost[number] >= _LIVES:
                    failure = failure or StoreError(
                        f"{_LIVES} workers were lost {name} ({outcome.how}); finished shards are kept: see Ray's logs, "
                        "give each worker more memory, and run the same command again."
                    )
                else:
                    waiting.extendleft([] if number is None else [number])
                    pool.start()
            elif isinstance(outcome, Exception):
                failure = failure or outcome
            else:
                lost[None] = 0
                if number is not None:
                    yield number, outcome
    if failure is not None:
        raise failure


@dataclass(frozen=True, slots=True)
class _LostWorker:
    """A worker is gone, with what it was doing."""

    how: str


class _Worker:
    """Lives in a process of its own, on some machine of the cluster."""

    def __init__(self, rows: Callable[..., "pd.DataFrame"]) -> None:
        self.rows = rows

    def code(self, rooms: Sequence[str]) -> str:
        """Hash of the code that it runs."""
        return load_rooms(*rooms)

    def make(self, block: Block) -> bytes:
        """The bytes of a block's shard."""
        return encode(self.rows(*block))


class _WorkerPool:
    """The workers: those that are about to begin, those that are free, and who makes which block.

    A block is given to a worker that has begun only: others may wait for a place in the cluster for ever.
    """

    def __init__(self, rows: Callable[..., "pd.DataFrame"], cluster: ClusterSettings, rooms: Sequence[str]) -> None:
        self.kind = _ray().remote(
            num_cpus=cluster.cpus_per_worker, num_gpus=cluster.gpus_per_worker, max_restarts=0, max_task_retries=0
        )(_Worker)
        self.rows, self.rooms = _ray().put(rows), rooms
        self.free: list[Any] = []
        self.tasks: dict[Any, tuple[Any, int | None]] = {}  # what will come, from which worker, for which block

    def __enter__(self) -> "_WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self.free, *(worker for worker, _ in self.tasks.values())]:
            _dismiss(worker)

    @property
    def busy(self) -> bool:
        """Whether a block is under way."""
        return any(number is not None for _, number in self.tasks.values())

    def start(self) -> None:
        """Have one more worker, as soon as there is a place for it."""
        worker = self.kind.remote(self.rows)
        self.tasks[worker.code.remote(self.rooms)] = worker, None

    def submit(self, number: int, block: Block) -> None:
        """Let a free worker make a block."""
        worker = self.free.pop()
        self.tasks[worker.make.remote(block)] = worker, number

    def wait(self) -> tuple[int | None, Any]:
        """What comes next: of a block, its number with its bytes or what went wrong; else None: a worker has begun."""
        ray = _ray()
        while not (come := ray.wait(list(self.tasks), num_returns=1, timeout=_PATIENCE_S)[0]):
            if not self.busy and not self.free:
                there = ", ".join(f"{name}: {n:g}" for name, n in ray.cluster_resources().items() if name in _PLACES)
                logger.warning("No worker has begun in %d s; the cluster has %s.", _PATIENCE_S, there or "no places")
        task = come[0]
        worker, number = self.tasks.pop(task)
        try:
            outcome = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            # Anything but our own errors with its traceback in the worker, which is the text of Ray's.
            outcome = error.cause if isinstance(error.cause, AftError) else error
        except ray.exceptions.RayError as error:  # killed, its machine gone, or its answer lost on the way
            _dismiss(worker)
            return number, _LostWorker(_last_line(error))
        if number is None and outcome != source_hash(*self.rooms):
            outcome = SettingsError(
                "A worker has other code of AFT than this run; install the same one on every machine, and run the same "
                "command again if the code has changed while the run was going."
            )
        self.free.append(worker)
        return number, outcome


@contextmanager
def _joined(cluster: ClusterSettings) -> Iterator[None]:
    """Have Ray in this process: the one that it has, one that runs elsewhere, or one for this time only."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    places = {"num_cpus": cluster.workers * cluster.cpus_per_worker, "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        # "local", for an address in Ray's environment variable would count otherwise.
        ray.init(
            address=cluster.address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
            **({} if cluster.address else places),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        place = f"The Ray cluster at {cluster.address} cannot be joined" if cluster.address else "Ray cannot be started"
        raise StoreError(
            f"{place} ({_last_line(error)}); start one with ray start --head, or correct sampler.cluster.address."
        ) from error
    try:
        if cluster.address is None and ray.cluster_resources().get("GPU", 0) < cluster.gpus_per_worker:
            raise SettingsError(
                f"sampler.cluster.gpus_per_worker is {cluster.gpus_per_worker:g}, but this machine has no GPU for a "
                "worker; set it to 0."
            )
        yield
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():  # where Ray has put its own handler
            signal.signal(signal.SIGTERM, before)


def _ray() -> Any:
    """The package, without its usage reports; `SettingsError` if it is missing."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        return import_module("ray")
    except ImportError as error:
        raise SettingsError("sampler.cluster needs the package ray; run pip install 'aft[ray]'.") from error


def _dismiss(worker: Any) -> None:
    """End a worker's process; whether it still lives is not asked."""
    _ray().kill(worker, no_restart=True)


def _name(block: Block) -> str:
    questions = block[0]
    return f"{questions[0].question_id} ... {questions[-1].question_id}"


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip().rstrip(".")[:200] if lines else type(error).__name__
