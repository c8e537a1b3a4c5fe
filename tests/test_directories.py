"""Directories that are built once: whole or absent after `kill -9` and damage, and with two processes at once."""

import errno
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aft import directories
from aft.directories import (
    MANIFEST,
    announced,
    build_once,
    finish_directory,
    is_intact,
    read_manifest,
    remembered,
)
from aft.errors import StoreError
from aft.files import digest, hash_file, write_json
from aft.locks import PATIENCE, locked
from aft.sealed import with_seal

Start = Callable[..., "subprocess.Popen[str]"]
MADE_FROM = {"kind": "test", "seed": 1}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def fill(directory: Path, content: str = "weights") -> None:
    (directory / "part").mkdir(exist_ok=True)
    (directory / "part" / "a.bin").write_text(content, encoding="utf-8")
    (directory / "b.txt").write_text("text", encoding="utf-8")


def never(directory: Path) -> None:
    raise AssertionError(f"{directory} is built although it is finished")


def one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and ". " not in text


class TestFinishDirectory:
    def staged(self, tmp_path: Path, content: str = "weights") -> Path:
        staged = tmp_path / ".model.partial"
        staged.mkdir()
        fill(staged, content)
        return staged

    def test_the_manifest_names_every_file(self, tmp_path: Path) -> None:
        final = tmp_path / "model"
        finish_directory(self.staged(tmp_path), final, MADE_FROM)
        manifest = read_manifest(final)
        assert manifest == {
            "made_from": MADE_FROM,
            "files": {name: hash_file(final / name) for name in ("b.txt", "part/a.bin")},
        }
        assert is_intact(final)
        assert names(tmp_path) == ["model"]

    def test_an_earlier_directory_is_replaced_as_a_whole(self, tmp_path: Path) -> None:
        final = tmp_path / "model"
        final.mkdir()
        (final / "stale.txt").write_text("of an earlier run", encoding="utf-8")
        finish_directory(self.staged(tmp_path), final, MADE_FROM)
        assert names(final) == ["b.txt", MANIFEST, "part"]
        assert names(tmp_path) == ["model"]

    @pytest.mark.parametrize("renames", [1, 2])
    def test_killed_at_either_rename_there_is_never_a_part(
        self, tmp_path: Path, start_python: Start, renames: int
    ) -> None:
        """Killed before the first rename the old directory is there; before the second, none is; never half of one."""
        final = tmp_path / "model"
        finish_directory(self.staged(tmp_path, "old"), final, MADE_FROM)
        self.staged(tmp_path, "new")
        code = """
import os, sys
from pathlib import Path
from aft import directories
rename, calls = Path.rename, []
def killed(self, target):
    calls.append(target)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    return rename(self, target)
Path.rename = killed
directories.finish_directory(Path(sys.argv[1]), Path(sys.argv[2]), {})
"""
        process = start_python(code, tmp_path / ".model.partial", final, renames)
        assert process.wait() == -signal.SIGKILL
        assert is_intact(final) == (renames == 1)
        assert final.exists() == (renames == 1)
        finish_directory(tmp_path / ".model.partial", final, MADE_FROM)  # the next run gets through
        assert (final / "part" / "a.bin").read_text(encoding="utf-8") == "new"
        assert names(tmp_path) == ["model"]

    def test_leftovers_of_killed_writes_are_not_kept(self, tmp_path: Path) -> None:
        staged = self.staged(tmp_path)
        (staged / ".curve.json.4242.partial").write_text("ha", encoding="utf-8")
        finish_directory(staged, tmp_path / "model", MADE_FROM)
        assert names(tmp_path / "model") == ["b.txt", MANIFEST, "part"]

    def test_a_file_system_that_cannot_sync_is_no_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Linked files may lie on a read-only image, where syncing is an invalid argument."""

        def cannot(descriptor: int) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(os, "fsync", cannot)
        finish_directory(self.staged(tmp_path), tmp_path / "model", MADE_FROM)
        assert is_intact(tmp_path / "model")


class TestManifest:
    @pytest.mark.parametrize(
        "text",
        [
            *("", "nonsense", "[]", "null", "3", "{}", '{"made_from": {}}'),
            *('{"made_from": {}, "files": ["a.bin"]}', '{"files": {"a.bin": "0"}}', '{"name": "app", "files": []}'),
            *('{"made_from": {}, "files": {"missing.bin": "0"}}', "\ud800"),
        ],
    )
    def test_what_is_not_a_whole_manifest_of_ours_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.bin").write_text("a", encoding="utf-8")
        (tmp_path / MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass"))
        assert read_manifest(tmp_path) is None
        assert not is_intact(tmp_path)

    def test_a_changed_byte_makes_it_none_or_says_the_same(self, tmp_path: Path) -> None:
        """Each byte of it in turn: what is not told apart by its seal is spelt otherwise and means the same."""
        fill(tmp_path)
        write_json(tmp_path / MANIFEST, with_seal({"made_from": MADE_FROM, "files": {"b.txt": "0"}}))
        whole, expected = (tmp_path / MANIFEST).read_bytes(), read_manifest(tmp_path)
        assert expected is not None and expected["made_from"] == MADE_FROM
        for place in range(len(whole)):
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            (tmp_path / MANIFEST).write_bytes(changed)
            assert read_manifest(tmp_path) in (None, expected), place

    def test_one_without_a_seal_is_none(self, tmp_path: Path) -> None:
        (tmp_path / MANIFEST).write_text(json.dumps({"made_from": MADE_FROM, "files": {}}), encoding="utf-8")
        assert read_manifest(tmp_path) is None

    def test_no_directory_has_none(self, tmp_path: Path) -> None:
        assert read_manifest(tmp_path / "nowhere") is None
        assert not is_intact(tmp_path / "nowhere")


class TestBuildOnce:
    def test_a_finished_directory_is_reused(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        made = build_once(tmp_path, MADE_FROM, fill)
        with caplog.at_level(logging.INFO):
            assert build_once(tmp_path, dict(reversed(MADE_FROM.items())), never) == made
        assert "Reusing" in caplog.text and "test" in caplog.text

    def test_what_takes_a_moment_is_not_announced(self, tmp_path: Path) -> None:
        with announced(lambda: pytest.fail("announced")):
            assert (build_once(tmp_path, {"seed": 3}, fill, brief=True) / MANIFEST).is_file()

    def test_what_is_to_be_made_is_announced_before_it_is_locked(self, tmp_path: Path) -> None:
        """So that whoever hears it can have it made by another process, and wait; what is there is not announced."""
        heard: list[int] = []

        def listen() -> None:
            heard.append(len(heard))
            if heard == [0]:
                build_once(tmp_path, MADE_FROM, fill)  # as the other process, which needs the lock

        with announced(listen):
            build_once(tmp_path, MADE_FROM, never)
            assert heard == [0, 1]
            build_once(tmp_path, MADE_FROM, never)
        build_once(tmp_path, {**MADE_FROM, "kind": "another"}, fill)
        assert heard == [0, 1]

    def test_a_finished_directory_is_read_without_the_lock(self, tmp_path: Path) -> None:
        made = build_once(tmp_path, MADE_FROM, fill)
        with locked(tmp_path / f".{made.name}.lock"):
            assert build_once(tmp_path, MADE_FROM, never) == made

    def test_a_directory_that_another_run_finished_just_now_is_reused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look at the directory and the lock another process may have built it."""

        @contextmanager
        def late(path: Path, what: str) -> Iterator[None]:
            monkeypatch.undo()
            build_once(tmp_path, MADE_FROM, fill)
            with locked(path, what):
                yield

        monkeypatch.setattr(directories, "locked", late)
        assert is_intact(build_once(tmp_path, MADE_FROM, never))

    def test_another_description_is_another_directory(self, tmp_path: Path) -> None:
        one = build_once(tmp_path, {"seed": 1}, lambda directory: fill(directory, "one"))
        two = build_once(tmp_path, {"seed": 2}, lambda directory: fill(directory, "two"))
        assert ((one / "part/a.bin").read_text("utf-8"), (two / "part/a.bin").read_text(encoding="utf-8")) == (
            "one",
            "two",
        )

    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
    @pytest.mark.parametrize("name", ["part/a.bin", MANIFEST])
    def test_a_damaged_directory_is_rebuilt(self, tmp_path: Path, name: str, damage: str) -> None:
        made = build_once(tmp_path, MADE_FROM, fill)
        target = made / name
        content = bytearray(target.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 1
            target.write_bytes(content)
        elif damage == "remove":
            target.unlink()
        else:
            target.write_bytes(content[: len(content) // 2])
        (made / "stale").write_text("not of the build", encoding="utf-8")
        assert build_once(tmp_path, MADE_FROM, fill) == made
        assert is_intact(made)
        assert names(made) == ["b.txt", MANIFEST, "part"]
        assert (made / "part" / "a.bin").read_text(encoding="utf-8") == "weights"

    def test_a_failed_build_is_nothing_finished(self, tmp_path: Path) -> None:
        def fails(directory: Path) -> None:
            fill(directory)
            raise ValueError("diverged")

        with pytest.raises(ValueError, match="diverged"):
            build_once(tmp_path, MADE_FROM, fails)
        assert not (tmp_path / digest(MADE_FROM)).exists()
        build_once(tmp_path, MADE_FROM, fill)  # the lock is free again

    def test_a_full_disk_while_building_is_one_sentence(
        self, tmp_path: Path, limit_file_size: Callable[[int], AbstractContextManager[None]]
    ) -> None:
        with limit_file_size(10_000), pytest.raises(StoreError, match="disk is full") as caught:
            build_once(tmp_path, MADE_FROM, lambda directory: fill(directory, "x" * 20_000))
        assert one_sentence(str(caught.value))

    def test_a_killed_build_continues_where_it_was(self, tmp_path: Path, start_python: Start) -> None:
        code = """
import json, os, sys
from pathlib import Path
from aft.directories import build_once
def build(directory):
    (directory / "step_1").write_text("done by the killed process")
    os.kill(os.getpid(), 9)
build_once(Path(sys.argv[1]), json.loads(sys.argv[2]), build)
"""
        process = start_python(code, tmp_path, json.dumps(MADE_FROM))
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / digest(MADE_FROM)).exists()

        def build(directory: Path) -> None:
            assert names(directory) == [MANIFEST, "step_1"]
            assert json.loads((directory / MANIFEST).read_text(encoding="utf-8")) == {"made_from": MADE_FROM}, (
                "what it is going to be"
            )
            (directory / "step_2").write_text("done by the second process", encoding="utf-8")

        made = build_once(tmp_path, MADE_FROM, build)  # refused if the killed process still held the lock
        assert names(made) == [MANIFEST, "step_1", "step_2"]
        assert is_intact(made)

    @pytest.mark.usefixtures("impatient")
    def test_without_patience_a_second_process_is_refused_until_the_first_ends(
        self, tmp_path: Path, start_python: Start
    ) -> None:
        code = """
import json, sys, time
from pathlib import Path
from aft.directories import build_once
def build(directory):
    print("building", flush=True)
    time.sleep(600)
build_once(Path(sys.argv[1]), json.loads(sys.argv[2]), build)
"""
        first = start_python(code, tmp_path, json.dumps(MADE_FROM))
        assert first.stdout is not None and first.stdout.readline() == "building\n"
        with pytest.raises(StoreError, match="Another run") as caught:
            build_once(tmp_path, MADE_FROM, never)
        assert "the test;" in str(caught.value), "it names what is being made"
        build_once(tmp_path, {"seed": 2}, fill)  # other things may be built meanwhile
        first.kill()
        first.wait()
        assert is_intact(build_once(tmp_path, MADE_FROM, fill))

    def test_a_second_process_waits_says_so_and_reuses_what_the_first_made(
        self, tmp_path: Path, start_python: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first one builds until this process lets it; the second builds nothing."""
        monkeypatch.setenv(PATIENCE, "100")
        code = """
import json, logging, sys, time
from pathlib import Path
from aft import directories, locks
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
locks._MOMENT_S = 0.2
def build(directory):
    print("building", flush=True)
    while not Path(sys.argv[3]).exists():
        time.sleep(0.01)
directories.build_once(Path(sys.argv[1]), json.loads(sys.argv[2]), build)
"""
        go = tmp_path / "go"
        arguments = (tmp_path / "cache", json.dumps({"kind": "pocket base model"}), go)
        first = start_python(code, *arguments)
        assert first.stdout is not None and first.stdout.readline() == "building\n"
        second = start_python(code, *arguments)
        assert second.stdout is not None
        assert second.stdout.readline().startswith("Waiting for another run that makes the pocket base model (")
        go.touch()
        told = second.stdout.read()
        assert (first.wait(), second.wait()) == (0, 0)
        assert "Reusing" in told and "building" not in told


FIGURES = {"kind": "figures", "of": "tables"}


class TestRemembered:
    @pytest.fixture
    def ask(self, tmp_path: Path) -> Callable[..., tuple[Any, int]]:
        """What is remembered for a description, and how many times anything was made until then."""
        made: list[int] = []

        def asked(description: dict[str, str] = FIGURES, **options: Any) -> tuple[Any, int]:
            def make() -> Any:
                made.append(len(made))
                return {"z": 0.1, "a": [float("inf"), None, "\u00e9"], "turn": len(made)}

            return remembered(tmp_path, description, make, "evaluation", **options), len(made)

        return asked

    def test_what_was_made_is_read_again_in_its_order(self, ask: Callable[..., tuple[Any, int]]) -> None:
        value, made = ask()
        again, still = ask()
        assert (made, still) == (1, 1)
        assert json.dumps(again) == json.dumps(value) == '{"z": 0.1, "a": [Infinity, null, "\\u00e9"], "turn": 1}'

    def test_another_description_or_edited_code_is_another_thing(
        self, ask: Callable[..., tuple[Any, int]], edit_code: Callable[[str], None]
    ) -> None:
        ask()
        assert ask({**FIGURES, "of": "others"})[1] == 2
        edit_code("reporting")
        assert ask()[1] == 2
        edit_code("evaluation")
        assert ask()[1] == 3 and ask()[1] == 3

    def test_what_holds_no_longer_is_made_again(self, ask: Callable[..., tuple[Any, int]]) -> None:
        ask()
        assert ask(holds=lambda value: value["turn"] == 2)[1] == 2
        assert ask(holds=lambda value: value["turn"] == 2)[1] == 2

    @pytest.mark.parametrize("content", [b"", b"{}", b'{"turn": 1', None])
    def test_a_damaged_one_is_named_and_made_again(
        self,
        content: bytes | None,
        ask: Callable[..., tuple[Any, int]],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Cut, emptied, or with one figure changed."""
        ask()
        (file,) = tmp_path.glob(f"*/{MANIFEST}")
        file.write_bytes(file.read_bytes().replace(b"0.1", b"0.9") if content is None else content)
        assert ask()[0]["z"] == 0.1
        assert f"{file.parent} (figures) is damaged; it is made anew." in caplog.text
        assert ask()[1] == 2

    def test_nobody_is_called_to_help(self, ask: Callable[..., tuple[Any, int]]) -> None:
        with announced(lambda: pytest.fail("announced")):
            ask()
