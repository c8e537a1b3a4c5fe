"""What the wheel installs runs in any folder that holds a `conf/`, without the checkout and its pyproject.toml."""

import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
TINY = {  # the smoke recipe, smaller still: what is learned does not matter here
    "task.settings.train": 12,
    "task.settings.validation": 4,
    "task.settings.test": 6,
    "training.max_steps": 2,
    "sampling.max_new_tokens": 16,
    "evaluation.sampling.max_new_tokens": 16,
    "evaluation.resamples": 50,
}


def call(*command: str | Path, cwd: Path) -> str:
    """What a command says; nothing of the checkout is on the path of the Python that it finds."""
    settings = {"MLFLOW_TRACKING_URI": f"sqlite:///{cwd}/mlflow.db", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and besides it the packages of the present one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves its files where it runs
    source.mkdir()
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    call(*pip, "wheel", source, "--no-deps", "--no-build-isolation", "-q", "-w", folder, cwd=folder)
    (wheel,) = folder.glob("aft-*.whl")
    venv.create(folder / "env", symlinks=True)
    (packages,) = (folder / "env").glob("lib/python3*/site-packages")
    # Named in a .pth file, a folder's own .pth files count for nothing: no editable installation is on the path.
    (packages / "present.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    python = folder / "env/bin/python"
    call(*pip, "--python", python, "install", "-q", "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=folder)
    return folder / "env/bin"


@pytest.fixture
def aft(environment: Path, tmp_path: Path) -> Callable[..., str]:
    """`aft` in a folder with a copy of the configuration, and nothing else."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    return lambda *arguments: call(environment / "aft", *arguments, cwd=tmp_path)


def test_the_smoke_recipe_goes_through_all_stages(environment: Path, aft: Callable[..., str], tmp_path: Path) -> None:
    where = call(environment / "python", "-c", "import aft; print(aft.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment.parent)
    aft("run", "--env=smoke", "--params", ",".join(f"{name}={value}" for name, value in TINY.items()))
    assert (tmp_path / "data/08_reporting/smoke/binary/report.html").is_file()
    assert "pocket base model" in aft("cache", "list", "--env=smoke")
    assert {path.name for path in tmp_path.iterdir()} >= {"conf", "data", "mlflow.db"}


def test_the_other_commands_find_the_configuration(aft: Callable[..., str]) -> None:
    assert "binary " in aft("studies", "list")
    assert "push" in aft("models", "--help")
