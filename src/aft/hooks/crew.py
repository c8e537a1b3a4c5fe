"""A crew of processes that run nodes before their turn, while the run goes on; see `aft.hooks.side_by_side`."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from kedro.pipeline.node import Node
from tqdm import tqdm

from aft.code import source_hash
from aft.hooks import pipe
from aft.hooks.worker import KEDROS

logger = logging.getLogger(__name__)


class Crew:
    """Nodes that can be run before their turn, the processes that run them, and what is known of their inputs.

    All but what the threads do, one for each process, is called by the thread that runs the nodes in their turn.
    """

    def __init__(self, shares: Sequence[Mapping[str, str]], rooms: Sequence[str], needed: Sequence[str] = ()) -> None:
        """A process for each of the `shares`, which are environment variables.

        It is there when it has imported the modules `needed` and the `rooms`, whose code must be that of this process.
        """
        self.told: set[str] = set()  # warnings
        self._telling = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: list[Node] = []  # in the order of the run
        self._under_way: set[str] = set()
        self._made: set[str] = set()
        self._values: dict[str, Any] = {}  # inputs, by dataset
        self._outputs: dict[str, Any] = {}  # of such nodes, by dataset: handles on what is kept
        self._closed = False
        words = [str(len(shares) + 1), ",".join(needed), ",".join(rooms)]
        self._workers = [_Worker(share, words) for share in shares]
        for number, worker in enumerate(self._workers, start=1):
            threading.Thread(target=self._employ, args=(worker, number, source_hash(*rooms)), daemon=True).start()

    def add(self, nodes: Sequence[Node], values: Mapping[str, Any]) -> None:
        """Have these nodes run, each as soon as all its inputs are among the `values` or the outputs of such a node."""
        with self._changed:
            self._waiting += nodes
            needed = {name for node in self._waiting for name in node.inputs}
            self._values = {name: one for name, one in {**self._values, **values}.items() if name in needed}
            self._changed.notify_all()

    def learn(self, outputs: Mapping[str, Any]) -> None:
        """What such a node gives may be the input of others."""
        with self._changed:
            self._outputs |= outputs
            self._changed.notify_all()

    def turn_of(self, node: Node) -> bool:
        """The turn of `node` has come: whether it was made beforehand. While a process is at it, help with others."""
        while True:
            with self._changed:
                self._waiting = [one for one in self._waiting if one.name != node.name]
                if node.name not in self._under_way:
                    return node.name in self._made
                order = self._next()
                if order is None:
                    self._changed.wait()
            if order is not None:
                KEDROS.disabled = True
                try:
                    self._run(*order, order[0].run)
                finally:
                    KEDROS.disabled = False

    def close(self) -> None:
        """End all processes at once; what they have begun is kept."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.end()

    def _next(self) -> tuple[Node, dict[str, Any]] | None:
        """The first node that can be run, which is under way from here on, and its inputs."""
        known = {**self._outputs, **self._values}  # as the catalog has it, where it was there
        for node in self._waiting:
            if known.keys() >= set(node.inputs):
                self._waiting.remove(node)
                self._under_way.add(node.name)
                return node, {name: known[name] for name in node.inputs}
        return None

    def _run(self, node: Node, inputs: dict[str, Any], run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Run a node that `_next` has given; if that fails, it fails again in its turn, and tells why."""
        began, outputs, name = perf_counter(), None, node.name.rpartition(".")[-1]
        try:
            outputs = run(inputs)
            seconds = perf_counter() - began
            if seconds > 1:
                left = len(self._waiting) + len(self._under_way) - 1
                logger.info("Done beforehand: %s, in %.1f s; %d to go.", name, seconds, left)
        except Exception as error:
            if not self._closed:
                logger.warning("%s did not succeed beforehand and is run again in its turn.", name)
            if isinstance(error, _Gone):
                raise
        finally:
            with self._changed:
                self._under_way.remove(node.name)
                self._made |= set() if outputs is None else {node.name}
            self.learn(outputs or {})

    def _employ(self, worker: "_Worker", number: int, code: str) -> None:
        """Give a process one node after the other until the end; the body of its thread."""
        with tqdm(total=0, position=number, bar_format="{desc}", leave=False, disable=None) as line:

            def hear(what: str, content: Any) -> None:
                if what == "shown":
                    line.set_description_str(content)
                    return
                with self._telling:  # each process warns of the same
                    if (message := content.getMessage()) not in self.told:
                        pipe.show(content)
                        self.told.add(message)  # afterwards: what was told is kept back

            try:
                if worker.answer(hear) != code:
                    logger.warning("The code has changed since this run began; nothing is made beforehand.")
                    return
                while True:
                    with self._changed:
                        while (order := self._next()) is None and not self._closed:
                            self._changed.wait()
                    if order is None:
                        return
                    self._run(*order, partial(worker.run, order[0], hear))
            except _Gone:
                if not self._closed:
                    logger.warning("A process that worked for this run has ended; the run goes on without it.")


class _Gone(Exception):
    """A process has ended, or was killed."""


class _Worker:
    """One process, `aft.hooks.worker`, and the pipe to it."""

    def __init__(self, share: Mapping[str, str], words: Sequence[str]) -> None:
        self._process, self._pipe = pipe.start("aft.hooks.worker", words, share)

    def run(self, node: Node, hear: Callable[[str, Any], object], inputs: dict[str, Any]) -> dict[str, Any]:
        """What the node gives in that process, see `answer`."""
        try:
            self._pipe.send((node, inputs))
        except OSError as error:
            raise _Gone from error
        return self.answer(hear)

    def answer(self, hear: Callable[[str, Any], object]) -> Any:
        """The next answer; other messages, what they are and what they hold, go to `hear`.

        Raises `RuntimeError` if the answer is that it failed, `_Gone` if the process is gone.
        """
        while True:
            try:
                what, content = self._pipe.recv()
            except (EOFError, OSError) as error:
                raise _Gone from error
            if what == "failed":
                raise RuntimeError(content)
            if what in ("code", "made"):
                return content
            hear(what, content)

    def end(self) -> None:
        """Kill the process and wait until it is gone."""
        self._process.kill()
        self._process.wait()
