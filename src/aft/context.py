"""Kedro's context of this project: the pipelines follow the configuration of the last one that was made."""

from typing import Any

from kedro.framework.context import KedroContext

from aft.pipeline_registry import follow


class Context(KedroContext):
    """Kedro's; a hook could not do the same, as Kedro-Viz makes contexts without hooks."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        follow(self.config_loader)
