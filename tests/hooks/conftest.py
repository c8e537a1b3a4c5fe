"""What the tests of the hooks share: a run with hooks, in the order in which Kedro's session calls them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner


class Loader(dict[str, Any]):
    """The configuration of a project, by kind, in its usual place."""

    def __init__(self, project: Path, **kinds: Any) -> None:
        super().__init__(kinds)
        self.conf_source = str(project / "conf")


def run_pipeline(
    hook: Any, pipeline: Pipeline, catalog: DataCatalog, project: Path, mlflow: dict[str, Any], **run_params: Any
) -> None:
    manager = _create_hook_manager()
    manager.register(hook)
    context = SimpleNamespace(config_loader=Loader(project, mlflow=mlflow), project_path=project)
    manager.hook.after_context_created(context=context)
    told = {"project_path": str(project), "env": None, "pipeline_names": None, "runner": "None", **run_params}
    manager.hook.before_pipeline_run(run_params=told, pipeline=pipeline, catalog=catalog)
    try:
        result = SequentialRunner().run(pipeline, catalog, manager)
    except Exception as error:
        manager.hook.on_pipeline_error(error=error, run_params=told, pipeline=pipeline, catalog=catalog)
        raise
    manager.hook.after_pipeline_run(run_params=told, run_result=result, pipeline=pipeline, catalog=catalog)


@pytest.fixture(scope="session")
def run_with_hook():
    return run_pipeline
