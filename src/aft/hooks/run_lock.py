"""Two runs never write the same result: the second is refused before it starts.

Questions and base model do not depend on the seed and are the same whoever writes them: there a run waits for another.
A run also holds a lock of its own, whatever it writes: `kedro cache clean` sees by it that a run is going on.
"""

import os
import re
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from aft.files import digest
from aft.locks import CLEANING, LOCKS, locked
from aft.pipelines.content import config_of
from aft.pipelines.training import seed_key


class RunLockHook:
    """Holds a lock for every result of the run's seed that it writes, and one more, until it ends, however it ends.

    Runs of other seeds, under other labels or of other variants write other results, and go on side by side.
    """

    def __init__(self) -> None:
        self._data = Path("data")
        self._held = ExitStack()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note where the data folder is."""
        self._data = Path(context.project_path) / context.config_loader["globals"]["data"]

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Take the locks; raises `StoreError` naming the result, its recipe or label and its seed if one is taken."""
        self._held.close()  # of an interrupted run in the same process
        parameters = catalog.load("parameters")
        seed, label = parameters["seed"], parameters.get("label") or parameters.get("recipe")
        own = self._data / LOCKS / f"run_{uuid4().hex}.lock"
        with ExitStack() as held:
            held.callback(own.unlink, missing_ok=True)
            held.enter_context(locked(own))
            with locked(self._data / LOCKS / CLEANING, "room in the caches"):
                pass  # whoever cleans up either sees the lock of this run, or has ended now
            for name, place in _places(pipeline, catalog, seed).items():
                lock = self._data / LOCKS / f"{digest(os.path.relpath(place, self._data.resolve()))}.lock"
                held.enter_context(locked(lock, f"{name} of {label}, seed {seed}", patience=0))
            self._held = held.pop_all()

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Free the locks."""
        self._held.close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Free the locks."""
        self._held.close()


def _places(pipeline: Pipeline, catalog: CatalogProtocol, seed: int) -> dict[str, Path]:
    """Where the pipeline writes what is of this seed alone, by dataset: a file, a folder, its share of partitions."""
    places = {}
    for name in sorted(pipeline.all_outputs()):
        config = config_of(catalog, name)
        place = f"{config['path']}/{seed_key(seed)}" if "path" in config else config.get("filepath", "")
        if re.search(rf"{seed_key(seed)}(?![0-9])", place):
            places[name] = Path(place).resolve()
    return places
