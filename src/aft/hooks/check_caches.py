"""Refuse, before anything runs, a cache folder that cannot be used."""

from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from aft.cache import CACHES
from aft.files import usable_folder
from aft.locks import patience_s


class CheckCachesHook:
    """Tries the folders in which the run keeps what it makes; the first training may be an hour away."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Raise `StoreError` or `SettingsError` naming the parameter whose folder cannot be used."""
        patience_s()
        parameters: dict[str, Any] = catalog.load("parameters")
        for name in CACHES:
            if f"params:{name}" in pipeline.inputs():
                usable_folder(parameters.get(name), name)
