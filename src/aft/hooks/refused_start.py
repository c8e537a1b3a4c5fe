"""A run that is refused before its first node leaves no lock and no process behind.

Kedro tells hooks of the failure of a node only. So in a notebook, whose process lives on, the hooks that were called
before the one that refused would keep what they hold.
"""

from collections.abc import Generator
from typing import Any, Protocol

from kedro.framework.hooks import hook_impl


class Holder(Protocol):
    """A hook that holds something from before the first node on."""

    def on_pipeline_error(self) -> None:
        """Let go of it."""


class RefusedStartHook:
    """Has other hooks let go of what they hold if one of them refuses the run."""

    def __init__(self, *holders: Holder) -> None:
        self._holders = holders

    @hook_impl(wrapper=True)
    def before_pipeline_run(self) -> Generator[None, Any, Any]:
        """Call all other hooks, and tell the holders if one raises."""
        try:
            return (yield)
        except BaseException:
            for holder in self._holders:
                holder.on_pipeline_error()
            raise
