"""`kedro viz build` makes a site with layers, one namespace per variant and previews of tables."""

import json
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


def test_the_site_shows_layers_variants_and_previews(finished, tmp_path, request):
    root = request.config.rootpath
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(root / name, tmp_path)
    shutil.copytree(root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "conf").symlink_to(finished.folder / "conf")
    done = subprocess.run(
        [sys.executable, "-m", "kedro", "viz", "build", "--include-previews"],
        cwd=tmp_path,
        env={**finished.environment(), "KEDRO_ENV": "smoke"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    site = tmp_path / "build"
    assert (site / "index.html").is_file()
    graph = json.loads((site / "api/main").read_text(encoding="utf-8"))
    assert graph["layers"] == ["raw", "prepared", "vft", "sampled", "labelled", "aligned", "evaluated", "reported"]
    boxes = {"vft", "align.rft", "align.aft", "align.aft_dc", "align.aft_bc", "align.compare.binary"}
    assert boxes <= set(graph["modular_pipelines"])
    comparison = next(node["id"] for node in graph["nodes"] if node["name"] == "align.compare.binary.comparison")
    preview = json.loads((site / "api/nodes" / comparison).read_text(encoding="utf-8"))["preview"]
    assert "aft_dc" in json.dumps(preview)
