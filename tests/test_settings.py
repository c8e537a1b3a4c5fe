"""What Kedro is told of the project."""

from pathlib import Path
from typing import cast

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["kedro-mlflow", "kedro_mlflow"])
def test_a_plugin_that_reads_the_same_file_is_left_out(name, tmp_path, monkeypatch):
    """The distribution in question has either spelling, by release; this one refuses to share the file."""
    (tmp_path / "its_hooks.py").write_text(
        "from kedro.framework.hooks import hook_impl\n"
        "class Hooks:\n"
        "    @hook_impl\n"
        "    def after_context_created(self, context):\n"
        "        raise AssertionError('the plugin was asked')\n"
        "hooks = Hooks()\n"
    )
    about = tmp_path / f"{name.replace('-', '_')}-2.0.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0.3\n")
    (about / "entry_points.txt").write_text("[kedro.hooks]\nmlflow_hook = its_hooks:hooks\n")
    monkeypatch.syspath_prepend(tmp_path)
    bootstrap_project(ROOT)
    with KedroSession.create(ROOT) as session:
        cast(KedroSession, session).load_context()
