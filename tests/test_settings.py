"""What Kedro is told of the project."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner

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
        "hooks = Hooks()\n",
        encoding="utf-8",
    )
    about = tmp_path / f"{name.replace('-', '_')}-2.0.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0.3\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[kedro.hooks]\nmlflow_hook = its_hooks:hooks\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    bootstrap_project(ROOT)
    cast(KedroSession, KedroSession.create(ROOT)).load_context()


def test_nobody_is_advised_to_repeat_what_cannot_work(caplog):
    """Kedro does so when the first node fails; the advice on where to go on, when a later one fails, stays."""
    bootstrap_project(ROOT)

    def fail(*_: object) -> None:
        raise ValueError

    def first() -> int:
        return 1

    for nodes in ([Node(fail, None, "y")], [Node(first, None, "x"), Node(fail, "x", "y")]):
        with pytest.raises(ValueError), caplog.at_level(logging.WARNING, logger="kedro"):
            SequentialRunner().run(Pipeline(nodes), DataCatalog())
    assert "No nodes ran" not in caplog.text
    assert "You can resume the pipeline run" in caplog.text


def test_child_processes_inherit_what_is_not_to_be_told():
    """PEFT asks for an old name in the processes that train; another warning is told."""
    warn = "import warnings; warnings.warn({!r}, FutureWarning)"
    for text, told in (("`is_gradient_checkpointing` is deprecated and will be removed", False), ("other", True)):
        code = f"import aft.settings, subprocess, sys; subprocess.run([sys.executable, '-c', {warn.format(text)!r}])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT, encoding="utf-8")
        assert (text in done.stderr) == told
