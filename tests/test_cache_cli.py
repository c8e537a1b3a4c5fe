"""`kedro cache`: it shows what it would remove, asks, and removes no more than that."""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from aft.cli import cli
from aft.files import write_json
from aft.locks import LOCKS, locked
from aft.sealed import write_sealed

ROOT = Path(__file__).parents[1]


@pytest.fixture
def caches(tmp_path: Path) -> dict[str, Path]:
    """One abandoned training and one unused store, under a copy of the project's configuration."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    (tmp_path / "conf/local").mkdir()
    (tmp_path / "conf/local/globals.yml").write_text(f"data: {tmp_path}/data\n", encoding="utf-8")
    folders = {
        "unfinished": tmp_path / "data/06_models/cache/.0123456789abcdef.partial",
        "unused": tmp_path / "data/04_feature/cache/fedcba9876543210",
    }
    write_json(folders["unfinished"] / "manifest.json", {"made_from": {"kind": "model train aft"}})
    write_json(folders["unused"] / "description.json", {"kind": "samples"})
    return folders


def call(tmp_path: Path, *arguments: str, answer: str = "") -> str:
    where = ("--env=smoke", "--conf-source", str(tmp_path / "conf"))
    done = CliRunner().invoke(cli, ["cache", *arguments, *where], input=answer)
    return f"{done.exit_code} {done.output}"


def test_all_that_is_kept_is_listed_with_size_age_and_kind(tmp_path: Path, caches: dict[str, Path]) -> None:
    told = call(tmp_path, "list")
    lines = [line for line in told.splitlines() if "/cache/" in line]
    assert any("unfinished  model train aft" in line and line.endswith(".partial") for line in lines)
    assert any("unused      samples" in line and " B " in line and "0.0 d" in line for line in lines)
    assert "2 folders" in told


@pytest.mark.parametrize(
    ("options", "answer", "removed"),
    [
        (("clean",), "n\n", set()),
        (("clean",), "y\n", {"unfinished"}),
        (("clean", "--yes"), "", {"unfinished"}),
        (("clean", "--yes", "--unused"), "", {"unfinished", "unused"}),
        (("clean", "--yes", "--unused", "--older-than=1"), "", set()),
    ],
)
def test_what_was_abandoned_goes_and_what_is_finished_only_when_asked(
    options: tuple[str, ...], answer: str, removed: set[str], tmp_path: Path, caches: dict[str, Path]
) -> None:
    told = call(tmp_path, *options, answer=answer)
    assert {name for name, folder in caches.items() if not folder.exists()} == removed
    assert all(str(caches[name]) in told for name in removed)


@pytest.fixture
def before_the_answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something happen after the entries were shown and before the person says yes."""

    def have(happen: Callable[[], object]) -> None:
        monkeypatch.setattr("click.confirm", lambda *_, **__: happen())

    return have


def test_what_a_run_has_named_while_a_person_thought_stays(
    tmp_path: Path, caches: dict[str, Path], before_the_answer: Callable[[Callable[[], object]], None]
) -> None:
    shard, listed = caches["unused"] / "0.parquet", tmp_path / "data/04_feature/smoke/seed_0/candidates.json"
    shard.write_bytes(b"rows")

    def finish_a_run() -> None:
        text = json.dumps({"shards": [{"path": str(shard), "sha256": "0"}]})
        write_sealed(listed, lambda staged: staged.write_text(text, encoding="utf-8"))

    before_the_answer(finish_a_run)
    assert str(caches["unused"]) in call(tmp_path, "clean", "--unused")
    assert shard.is_file() and not caches["unfinished"].exists()


def test_a_run_that_has_begun_while_a_person_thought_is_seen(
    tmp_path: Path, caches: dict[str, Path], before_the_answer: Callable[[Callable[[], object]], None]
) -> None:
    with ExitStack() as run:
        before_the_answer(lambda: run.enter_context(locked(tmp_path / "data" / LOCKS / "run_0.lock")))
        assert "Another run is making results" in call(tmp_path, "clean", "--unused")
    assert all(folder.is_dir() for folder in caches.values())


def test_what_is_unused_in_a_cache_elsewhere_is_not_removed(tmp_path: Path, caches: dict[str, Path]) -> None:
    cache = tmp_path / "data/04_feature/cache"
    shutil.move(cache, tmp_path / "elsewhere")
    cache.symlink_to(tmp_path / "elsewhere")
    told = call(tmp_path, "clean", "--unused", "--yes")
    assert told.startswith("1 ") and "lies outside the data folder" in told
    assert caches["unused"].is_dir() and caches["unfinished"].is_dir()
