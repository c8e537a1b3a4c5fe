"""The benchmarks run, check what they time, and tell what they measured; the figures themselves are nobody's here."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest

from aft.pipelines.label_and_rank import nodes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run_script(name: str, *options: object) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *map(str, options)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A benchmark as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def end_to_end(loaded: Callable[[str], ModuleType]) -> ModuleType:
    return loaded("end_to_end")


def test_align_step_measures_every_path(tmp_path):
    paths = ["naive", "two_pass", *(["trl_all_pairs"] if importlib.util.find_spec("trl") else [])]
    rows = tmp_path / "rows.json"
    tiny = ("--P", 9, "--C", 7, "--k", 4, "--repeats", 1, "--token-budget", 40, "--variants", "aft_dc")
    shown = run_script("align_step.py", *tiny, "--paths", *paths, "--json", rows)
    measured = {row["path"]: row for row in json.loads(rows.read_text(encoding="utf-8"))}
    assert list(measured) == paths
    assert measured["naive"]["times_naive"] == 1
    for path, row in measured.items():
        assert path in shown
        assert (row["variant"], row["P"], row["C"], row["k"]) == ("dpo" if "trl" in path else "aft_dc", 9, 7, 4)
        assert min(row["cpu_s_per_question"], row["wall_s_per_question"], row["peak_mib"], row["tokens_per_s"]) > 0


def test_scale_measures_every_stage_at_every_size(tmp_path):
    rows = tmp_path / "rows.json"
    shown = run_script("scale.py", "--questions", 20, 60, "--samples", 2, "--folder", tmp_path, "--json", rows)
    measured = json.loads(rows.read_text(encoding="utf-8"))
    stages = ["make", "label and rank", "examples", "epoch"]
    assert [(row["questions"], row["stage"]) for row in measured] == [(n, stage) for n in (20, 60) for stage in stages]
    assert all(min(row["cpu_s"], row["wall_s"], row["peak_mib"]) > 0 for row in measured)
    assert all(row["disk_mib"] > 0 for row in measured if row["stage"] != "epoch")
    assert shown.count("from 20 to 60 questions") == 3 and list(tmp_path.iterdir()) == [rows]


def test_scale_kills_a_worker_of_ray_and_finds_the_same_bytes(loaded, monkeypatch, tmp_path):
    """And other bytes, if there are, are told."""
    pytest.importorskip("ray")
    scale = loaded("scale")
    monkeypatch.setattr(scale, "BLOCK", 40)
    monkeypatch.setattr(nodes, "_ROWS", 320)
    for stage in (scale.make, scale.label, scale.label_on_ray):
        assert stage(tmp_path, 240, 8) == 1920
    first = Path(json.loads((tmp_path / "feedback.json").read_text(encoding="utf-8"))[0])
    first.write_bytes(first.read_bytes()[:-1])
    monkeypatch.setattr(scale, "killer", lambda: nullcontext([1]))
    with pytest.raises(SystemExit, match="other bytes"):
        scale.label_on_ray(tmp_path, 240, 8)


def test_end_to_end_measures_a_run(end_to_end, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(end_to_end, "RUN", ("run", "--pipelines=ingest"))
    monkeypatch.setattr(end_to_end, "STARTS", 1)
    rows = tmp_path / "rows.json"
    end_to_end.main(["--env", "smoke", "--json", str(rows)])
    (row,) = json.loads(rows.read_text(encoding="utf-8"))
    assert 0 <= row["ingest_s"] < row["wall_s"]
    assert min(row["start_s"], row["cpu_s"], row["peak_mib"]) > 0
    assert "this tree" in capsys.readouterr().out


def test_another_revision_is_compared_figure_by_figure(end_to_end):
    rows = [{"what": "old", "wall_s": 6.0, "audit_s": 1.0}, {"what": "new", "wall_s": 4.0}]
    ratio = {"what": "ratio", **end_to_end.ratios(*rows)}
    assert end_to_end.transposed([*rows, ratio]) == [
        {"figure": "wall_s", "old": 6.0, "new": 4.0, "ratio": 1.5},
        {"figure": "audit_s", "old": 1.0, "new": None, "ratio": None},
    ]


def test_durations_of_stages_are_read_from_the_summary_alone(end_to_end):
    table = "vft  0  4.2\n\ningest    23.1 s\nevaluate  1 min 05 s\naudit  2 h 03 min\n"
    log = f"ingest  9.9 s\nThe run is complete.\n\n{table}"
    assert end_to_end.stage_seconds(log) == {"ingest": 23.1, "evaluate": 65, "audit": 7380}
