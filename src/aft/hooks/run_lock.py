"""Two runs never write the same result: the second is refused before it starts.

Questions and base model do not depend on the seed and are the same whoever writes them: a run that would write others
in their place is refused as well. Of a comparison, which is over all seeds, one run at a time writes tables and pages;
the others wait. A run also holds a lock of its own, whatever it writes: `kedro cache clean` sees by it that a run is
going on, and other runs on which questions and base model.
"""

import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from aft.errors import StoreError
from aft.files import digest
from aft.locks import CLEANING, LOCKS, locked
from aft.pipelines.comparisons import comparison_of
from aft.pipelines.content import asked_of, config_of
from aft.pipelines.training import seed_key


class RunLockHook:
    """Holds a lock for every result of the run's seed that it writes, and one more, until it ends, however it ends.

    Runs of other seeds, under other labels or of other variants write other results, and go on side by side.
    """

    def __init__(self) -> None:
        self._data = Path("data")
        self._base_model: Any = None  # its settings
        self._held = ExitStack()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note where the data folder is, and which base model is asked for."""
        self._data = Path(context.project_path) / context.config_loader["globals"]["data"]
        self._base_model = context.config_loader["parameters"].get("base_model")

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Take the locks; raises `StoreError` naming the result, its recipe or label and its seed if one is taken."""
        self._held.close()  # of an interrupted run in the same process
        parameters = catalog.load("parameters")
        seed, label = parameters["seed"], parameters.get("label") or parameters.get("recipe")
        self._label, self._compared = label, set[Path]()
        shared = digest([asked_of(catalog), self._base_model])
        own = self._data / LOCKS / f"run_{uuid4().hex}_{digest(label)}_{shared}.lock"
        with ExitStack() as held:
            held.callback(own.unlink, missing_ok=True)
            held.enter_context(locked(own))
            self._refuse_others(own)
            with locked(self._data / LOCKS / CLEANING, "room in the caches"):
                pass  # whoever cleans up either sees the lock of this run, or has ended now
            for name, place in _places(pipeline, catalog, seed).items():
                held.enter_context(locked(self._lock_of(place), f"{name} of {label}, seed {seed}", patience=0))
            self._held = held.pop_all()

    @hook_impl
    def before_node_run(self, node: Node, catalog: CatalogProtocol) -> None:
        """Wait for another run that writes the comparison to which the node belongs."""
        comparison = comparison_of(node.namespace or "")
        for name in node.outputs if comparison else ():
            folder = Path(config_of(catalog, name).get("filepath", "")).resolve().parent
            if folder not in self._compared:
                self._compared.add(folder)
                what = f"the comparison {comparison} of {self._label}"
                self._held.enter_context(locked(self._lock_of(folder), what))

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Free the locks."""
        self._held.close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Free the locks."""
        self._held.close()

    def _lock_of(self, place: Path) -> Path:
        return self._data / LOCKS / f"{digest(os.path.relpath(place, self._data.resolve()))}.lock"

    def _refuse_others(self, own: Path) -> None:
        """Raise `StoreError` if a run of this label goes on that has other questions or another base model."""
        label, shared = own.stem.split("_")[2:]
        for other in own.parent.glob(f"run_*_{label}_*.lock"):
            if other.stem.split("_")[3] != shared:
                try:
                    with locked(other, patience=0):  # nobody's: its run was killed
                        pass
                except StoreError as error:
                    raise StoreError(
                        f"Another run of {self._label} is going on with other questions or another base model, which "
                        "this one would replace; give this one a label of its own (--params=label=NAME), or wait."
                    ) from error


def _places(pipeline: Pipeline, catalog: CatalogProtocol, seed: int) -> dict[str, Path]:
    """Where the pipeline writes what is of this seed alone, by dataset: a file, a folder, its share of partitions."""
    places = {}
    for name in sorted(pipeline.all_outputs()):
        config = config_of(catalog, name)
        place = f"{config['path']}/{seed_key(seed)}" if "path" in config else config.get("filepath", "")
        if re.search(rf"{seed_key(seed)}(?![0-9])", place):
            places[name] = Path(place).resolve()
    return places
