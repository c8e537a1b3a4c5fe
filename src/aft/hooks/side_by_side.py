"""What takes long is made side by side: variants train, answer and score in several processes at once.

Kedro's nodes run one after the other as ever, in this process, which alone writes to the catalog. But
whatever takes long is kept under a hash of what it follows from, whoever makes it (`aft.directories.build_once`, the
sample store). So as soon as a node has to make something, other processes begin to run the nodes after it whose inputs
are there, before their turn, and throw away what these give: when their turn comes, all is found. A run that finds
all its models where the catalog has them starts no process, and one whose processes are killed makes the same by
itself.
"""

import atexit
import importlib
import logging
import os
import sys
from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from tqdm.contrib.logging import logging_redirect_tqdm

from aft.checked import read
from aft.directories import announce, announced
from aft.hooks.crew import Crew
from aft.machine import THREADS, share_cores, shares_of, usual_jobs, visible_devices
from aft.pipelines.align_train.nodes import train_variant
from aft.pipelines.evaluate import nodes as evaluate
from aft.pipelines.evaluate.nodes import ROOMS
from aft.pipelines.evaluate.report import write_answers
from aft.pipelines.label_and_rank.nodes import label_and_rank
from aft.pipelines.parameters import MACHINE, Labelling
from aft.pipelines.sample_cots.nodes import sample_cots
from aft.pipelines.vft_train.nodes import train_vft
from aft.sampling.settings import SamplerSettings
from aft.training.settings import Launch

logger = logging.getLogger(__name__)

_TRAINING = (train_vft, train_variant)
_BETWEEN = (sample_cots, label_and_rank)  # of no variant
_LONG = (  # what they make is kept
    *(*_TRAINING, *_BETWEEN),
    *(evaluate.generate, evaluate.generate_others, evaluate.assess),
)
_PAGES = (  # and what these make, but nobody reads it
    *(evaluate.compare, write_answers),
    *(evaluate.draw_accuracy, evaluate.draw_scores, evaluate.draw_reliability, evaluate.draw_training),
)
_NEEDED = ("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto")  # takes seconds
_NEEDED_TO_DRAW = ("aft.reporting.figures",)  # a second more
_AS_THEY_ARE = {  # what nodes may hand on beforehand: the catalog has it as they give it
    *("vft_model", "model", "candidates", "feedback", "generations", "other_generations", "identity")
}


class SideBySideHook:
    """Has a crew run nodes before their turn, from the first node on that has to make something."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._crew: Crew | None = None

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Listen to what this process is about to make."""
        self._close()  # of an interrupted run in the same process
        parameters: dict[str, Any] = catalog.load("parameters")
        self._catalog, self._rest = catalog, list(pipeline.nodes)
        self._asked: set[str] = set()  # nodes that are to be run beforehand
        self._limit, self._threads = (_number(parameters.get(name, "auto")) for name in MACHINE)
        share_cores(1, self._threads)
        launch = read(Launch, parameters.get("launch", {}), "launch")  # a mapping yet if no node reads it
        sampler = read(SamplerSettings, parameters.get("sampler", {}), "sampler")
        if self._limit == 1 or not launch.alone or sampler.cluster:
            return
        labelling = read(Labelling, parameters.get("labelling", {}), "labelling")
        at_servers = {sample_cots: sampler.engine == "server", label_and_rank: labelling.judge == "openai"}
        self._long = [one for one in _LONG if not at_servers.get(one)]
        self._open.enter_context(announced(self._share))
        atexit.register(self._close)  # Kedro tells hooks of no Ctrl-C
        self._open.callback(atexit.unregister, self._close)
        training = [node for node in pipeline.nodes if node.func in _TRAINING]
        if training and not all(map(catalog.exists, training[0].outputs)):
            self._start(training)

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Wait for whoever is at the node; what was told then is not told again."""
        self._rest = self._rest[self._rest.index(node) + 1 :]
        self._here, self._inputs = node, inputs
        if self._crew is not None:
            if self._asked:
                self._share()  # what the nodes before it gave may be all that others need
            elif node.func in self._long:
                self._hand_over(self._crew)
            self._silence.on = self._crew.turn_of(node)

    @hook_impl
    def after_node_run(self, node: Node, outputs: dict[str, Any]) -> None:
        """Others may wait for what the node gives."""
        if self._crew is not None:
            self._silence.on = False
            self._crew.learn({name: outputs[name] for name in _handed_on(outputs)})

    @hook_impl
    def after_pipeline_run(self) -> None:
        """End the crew."""
        self._close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """End the crew."""
        self._close()

    def _close(self) -> None:
        self._open.close()
        self._crew = None

    def _hand_over(self, crew: Crew) -> None:
        """Let others begin with this node and those that follow, while this process imports what it needs, too."""
        self._asked.add(self._here.name)
        crew.add([self._here], self._inputs)
        self._share()
        for name in (*_NEEDED, *_NEEDED_TO_DRAW):
            importlib.import_module(name)
        announce()

    def _share(self) -> None:
        """This process is about to make something: have others run the nodes that need not wait for their turn."""
        found = self._beforehand()
        long = [node for node in (self._here, *found) if node.func in self._long]
        read = {name for node in long for name in node.inputs}
        if self._crew is None and sum(read.isdisjoint(node.outputs) for node in long) > 1:  # not one after the other
            self._start(long)
        new = [node for node in found if node.name not in self._asked]
        if self._crew is not None and new:
            self._asked |= {node.name for node in new}
            self._crew.add(*self._with_inputs(new))

    def _beforehand(self) -> list[Node]:
        """The nodes after this one whose inputs are there, or come from this one or from such a node."""
        to_come = {name for node in (self._here, *self._rest) for name in node.outputs}
        beforehand = (*self._long, *_PAGES, evaluate.identify)
        handed = _handed_on(self._here.outputs if self._here.func in beforehand else ())
        found = []
        for node in self._rest:
            if node.func in beforehand and handed.issuperset(to_come.intersection(node.inputs)):
                found.append(node)
                handed |= _handed_on(node.outputs)
        return found

    def _with_inputs(self, nodes: list[Node]) -> tuple[list[Node], dict[str, Any]]:
        """The nodes, and what is there of their inputs; one whose inputs cannot be loaded is left out: it will tell."""
        to_come = {name for node in (self._here, *self._rest) for name in node.outputs}
        values, fine = dict(self._inputs), []
        for node in nodes:
            missing = [name for name in node.inputs if name not in values and name not in to_come]
            with suppress(Exception):
                values |= {name: self._catalog.load(name) for name in missing}
                fine.append(node)
        return fine, values

    def _start(self, nodes: Collection[Node]) -> None:
        """Start as many processes as there are to be, but no more than these nodes' variants."""
        variants = {node.namespace for node in nodes if node.func not in _BETWEEN}
        number = min(len(variants), self._limit or usual_jobs())
        if number < 2:
            return
        threads = {THREADS: str(self._threads)} if self._threads and THREADS not in os.environ else {}
        shares = [share | threads for share in shares_of(visible_devices(), number)[1:]]  # the first one is ours
        logger.info("%d processes work side by side.", number)
        share_cores(number, self._threads)
        self._open.callback(share_cores, 1)
        self._crew = Crew(shares, ROOMS, _NEEDED)
        self._open.callback(self._crew.close)
        if sys.stderr.isatty():
            self._open.enter_context(logging_redirect_tqdm())
        self._silence = _Silence(self._crew.told)
        for handler in logging.getLogger().handlers:
            handler.addFilter(self._silence)
            self._open.callback(handler.removeFilter, self._silence)


def _handed_on(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.rpartition(".")[-1] in _AS_THEY_ARE}


def _number(setting: str | int) -> int | None:
    return None if isinstance(setting, str) else setting


class _Silence(logging.Filter):
    """While it is on: keeps back what was told already, and that something is reused."""

    def __init__(self, told: set[str]) -> None:
        super().__init__()
        self.told, self.on = told, False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be seen."""
        try:
            message = record.getMessage()
        except Exception:  # of whoever logged it: logging itself tells that, where a filter would end the run
            return True
        if not self.on:
            self.told.add(message)  # of a node that this process runs before its turn, too
            return True
        reused = record.name == "aft.directories" and record.levelno == logging.INFO
        return not (reused or message in self.told)
