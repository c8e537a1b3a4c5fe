"""A run that one hook refuses leaves nothing of the others behind."""

import pytest
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _create_hook_manager

from aft.errors import SettingsError
from aft.hooks.refused_start import RefusedStartHook


class Holder:
    held = False

    @hook_impl
    def before_pipeline_run(self) -> None:
        self.held = True

    @hook_impl
    def on_pipeline_error(self) -> None:
        self.held = False


class Refuses:
    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        raise SettingsError("MLflow cannot be used.")


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_held_is_let_go_if_another_hook_refuses_the_run(refused: bool) -> None:
    """Kedro calls hooks before a run outside of what it watches over."""
    holder, manager = Holder(), _create_hook_manager()
    for hook in (RefusedStartHook(holder), holder, *([Refuses()] if refused else [])):
        manager.register(hook)
    if refused:
        with pytest.raises(SettingsError, match="cannot be used"):
            manager.hook.before_pipeline_run(run_params={}, pipeline=None, catalog=None)
    else:
        manager.hook.before_pipeline_run(run_params={}, pipeline=None, catalog=None)
    assert holder.held is not refused
