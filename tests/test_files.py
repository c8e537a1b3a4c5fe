"""Files are whole or absent: after an exception, a full disk, `kill -9`, damage, and with two processes at once."""

import errno
import hashlib
import json
import logging
import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft import files
from aft.errors import AftError, ModelError, SettingsError, StoreError
from aft.files import (
    MANIFEST,
    PATIENCE,
    announced,
    build_once,
    check_seal,
    digest,
    finish_directory,
    hash_file,
    is_intact,
    locked,
    lost_files,
    patience_s,
    read_manifest,
    remove_leftovers,
    usable_folder,
    with_seal,
    write_atomically,
    write_json,
    write_sealed,
    writing,
)

Start = Callable[..., "subprocess.Popen[str]"]
MADE_FROM = {"kind": "test", "seed": 1}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON value with the keys of every object in another order."""
    if isinstance(value, dict):
        keys = rng.sample(list(value), len(value))
        return {key: shuffled(value[key], rng) for key in keys}
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


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


class TestDigest:
    @given(json_values, st.randoms(use_true_random=False))
    def test_is_independent_of_the_order_of_keys(self, value: Any, rng: random.Random) -> None:
        assert digest(shuffled(value, rng)) == digest(value)

    @given(json_values, json_values)
    def test_tells_values_apart(self, one: Any, other: Any) -> None:
        """Python calls 1 and True equal, JSON does not: the text in JSON decides."""
        same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
        assert (digest(one) == digest(other)) == same

    def test_is_the_same_in_every_release(self) -> None:
        """SHA-256 of `{"a": [1, null], "b": "\\u00e9"}`, first 16 digits: keys sorted, ASCII only."""
        assert digest({"b": "é", "a": (1, None)}) == "a7ecfa31489e9c28"


class TestWriteAtomically:
    def test_writes_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "table.txt"
        write_atomically(path, lambda staged: staged.write_text("one", encoding="utf-8"))
        write_atomically(path, lambda staged: staged.write_text("two", encoding="utf-8"))
        assert path.read_text(encoding="utf-8") == "two"
        assert names(path.parent) == ["table.txt"]

    def test_an_exception_leaves_the_old_content(self, tmp_path: Path) -> None:
        path = tmp_path / "table.txt"
        path.write_text("old", encoding="utf-8")

        def half(staged: Path) -> None:
            staged.write_text("ha", encoding="utf-8")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, half)
        assert path.read_text(encoding="utf-8") == "old"
        assert names(tmp_path) == ["table.txt"]

    def test_the_bytes_are_synced_before_the_name_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []
        sync, replace = os.fsync, Path.replace
        monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("sync"), sync(descriptor))[1])
        monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("rename"), replace(self, to))[1])
        write_json(tmp_path / "a.json", {})
        assert order == ["sync", "rename", "sync"]  # the file, its name, the folder that holds the name

    def test_a_full_disk_is_one_sentence_and_leaves_the_old_content(
        self, tmp_path: Path, limit_file_size: Callable[[int], AbstractContextManager[None]]
    ) -> None:
        path = tmp_path / "table.txt"
        path.write_text("old", encoding="utf-8")
        with limit_file_size(10_000), pytest.raises(StoreError) as caught:
            write_atomically(path, lambda staged: staged.write_text("x" * 20_000, encoding="utf-8"))
        assert "disk is full" in str(caught.value) and str(path) in str(caught.value)
        assert one_sentence(str(caught.value))
        assert path.read_text(encoding="utf-8") == "old"
        assert names(tmp_path) == ["table.txt"]

    @pytest.mark.parametrize(
        ("number", "told"),
        [
            (errno.ENOSPC, "disk is full"),
            (errno.EDQUOT, "disk is full"),
            (errno.EROFS, "choose another"),
            (errno.EACCES, "choose another"),
        ],
    )
    def test_an_error_of_the_sync_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
    ) -> None:
        """Some file systems report a full disk only when the bytes are synced."""

        def fails(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        path = tmp_path / "a.json"
        path.write_text("old", encoding="utf-8")
        monkeypatch.setattr(os, "fsync", fails)
        with pytest.raises(StoreError, match=told) as caught:
            write_json(path, {"a": 1})
        assert one_sentence(str(caught.value))
        assert path.read_text(encoding="utf-8") == "old"
        assert names(tmp_path) == ["a.json"]

    def test_kill_9_leaves_the_old_content(self, tmp_path: Path, start_python: Start) -> None:
        path = tmp_path / "table.txt"
        path.write_text("old", encoding="utf-8")
        code = """
import os, sys
from pathlib import Path
from aft.files import write_atomically
def half(staged):
    staged.write_text("ha")
    os.kill(os.getpid(), 9)
write_atomically(Path(sys.argv[1]), half)
"""
        assert start_python(code, path).wait() == -signal.SIGKILL
        assert path.read_text(encoding="utf-8") == "old"
        assert len(names(tmp_path)) == 2  # the unfinished file is there under another name
        remove_leftovers(tmp_path)
        assert names(tmp_path) == ["table.txt"]


class TestWriting:
    def test_libraries_that_hide_the_number_in_their_text_are_understood(self) -> None:
        """safetensors and tokenizers raise errors of their own kinds for a full disk."""
        with pytest.raises(StoreError, match="disk is full"), writing(Path("model")):
            raise Exception(f"No space left on device (os error {errno.ENOSPC})")

    def test_other_errors_pass_unchanged(self) -> None:
        with pytest.raises(FileNotFoundError), writing(Path("model")):
            raise FileNotFoundError(errno.ENOENT, "no such file")
        with pytest.raises(ModelError), writing(Path("model")):
            raise ModelError("Cannot be read: Permission denied (os error 13).")

    @pytest.mark.parametrize(
        "place", ["file/below", "file/below/that", "loop/a", "n" * 300, "folder", "null\0byte", "half\ud800"]
    )
    def test_a_place_where_nothing_can_be_written_is_one_sentence(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").write_text("no folder", encoding="utf-8")
        (tmp_path / "folder").mkdir()
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(StoreError, match="Cannot write") as caught:
            write_json(tmp_path / place, {})
        assert one_sentence(str(caught.value))

    def test_a_missing_file_that_was_only_to_be_read_is_no_such_place(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            write_atomically(
                tmp_path / "new", lambda staged: (tmp_path / "elsewhere" / "input").read_text(encoding="utf-8")
            )


class TestUsableFolder:
    def test_a_folder_is_made_and_left_as_it_is(self, tmp_path: Path) -> None:
        assert usable_folder(str(tmp_path / "a" / "b"), "model_cache") == tmp_path / "a" / "b"
        assert names(tmp_path / "a" / "b") == []

    @pytest.mark.parametrize(
        "value",
        [
            *("/dev/null", "/dev/null/x", "/proc/x", "/etc/passwd", "", " ", 5, None, True, ["a"]),
            *("n" * 300, "null\0byte", "half\ud800"),
        ],
    )
    def test_what_is_none_is_one_sentence_that_names_the_setting(self, value: Any) -> None:
        with pytest.raises(AftError) as caught:
            usable_folder(value, "model_cache")
        told = str(caught.value)
        assert told.startswith("model_cache ") and told.endswith(".") and "\n" not in told


class TestSeal:
    """A file and what its seal says of it, at every moment."""

    WAY_OUT = "run ingest"

    def write(self, path: Path, content: str) -> None:
        write_sealed(path, lambda staged: staged.write_text(content, encoding="utf-8"))

    def test_a_file_is_what_was_written_until_it_is_changed(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "table.csv"
        for content in ("one", "two"):
            self.write(path, content)
            check_seal(path, self.WAY_OUT)
        path.write_text("one", encoding="utf-8")
        with pytest.raises(StoreError, match=r"table\.csv has changed since it was written; run ingest\.$"):
            check_seal(path, self.WAY_OUT)

    def test_other_tools_can_check_it(self, tmp_path: Path) -> None:
        self.write(tmp_path / "table.csv", "one")
        done = subprocess.run(["sha256sum", "-c", ".table.csv.sha256"], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0

    def test_looking_for_a_missing_file_makes_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="is missing"):
            check_seal(tmp_path / "new" / "table.csv", self.WAY_OUT)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("before", ["old", None])
    @pytest.mark.parametrize("call", range(1, 7))
    def test_killed_at_any_rename_it_is_whole_or_absent(
        self, tmp_path: Path, start_python: Start, before: str | None, call: int
    ) -> None:
        """Of seal, file and seal, just before and just after: what is there is accepted, and nothing counts as lost."""
        path = tmp_path / "table.csv"
        if before is not None:
            self.write(path, before)
        code = """
import os, sys
from pathlib import Path
from aft import files
replace, calls = Path.replace, []
def killed(self, target):
    for place in ("before", "after"):
        if place == "after":
            replace(self, target)
        calls.append(place)
        if len(calls) == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
Path.replace = killed
files.write_sealed(Path(sys.argv[1]), lambda staged: staged.write_text("new"))
"""
        assert start_python(code, path, call).wait() == -signal.SIGKILL
        expected = before if call < 4 else "new"
        assert (path.read_text(encoding="utf-8") if path.exists() else None) == expected
        assert lost_files(tmp_path) == []
        if expected is not None:
            check_seal(path, self.WAY_OUT)
        self.write(path, "newer")
        check_seal(path, self.WAY_OUT)
        assert names(tmp_path) == [".lock", ".table.csv.sha256", "table.csv"]

    def test_processes_that_write_one_file_end_with_a_whole_one(self, tmp_path: Path, start_python: Start) -> None:
        """Two of them write it over and over, and this one finds no moment at which it is not what somebody wrote."""
        path = tmp_path / "comparison.csv"
        self.write(path, "mine")
        code = """
import sys
from pathlib import Path
from aft.files import write_sealed
for number in range(12):
    write_sealed(Path(sys.argv[1]), lambda staged: staged.write_text(f"{sys.argv[2]} {number}" * 1000))
"""
        processes = [start_python(code, path, name) for name in ("one", "other")]
        while any(process.poll() is None for process in processes):
            check_seal(path, self.WAY_OUT)
        assert [process.returncode for process in processes] == [0, 0]
        check_seal(path, self.WAY_OUT)
        assert names(tmp_path) == [".comparison.csv.sha256", ".lock", "comparison.csv"]

    def test_a_file_that_is_gone_is_lost(self, tmp_path: Path) -> None:
        for name in ("seed_0.parquet", "seed_1.parquet"):
            self.write(tmp_path / name, "rows")
        (tmp_path / "seed_1.parquet").unlink()
        assert lost_files(tmp_path) == [tmp_path / "seed_1.parquet"]
        assert lost_files(tmp_path / "nowhere") == []


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
from aft import files
rename, calls = Path.rename, []
def killed(self, target):
    calls.append(target)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    return rename(self, target)
Path.rename = killed
files.finish_directory(Path(sys.argv[1]), Path(sys.argv[2]), {})
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


class TestHashes:
    """A file is read again when it may have changed; the clock of these tests is far ahead of the files."""

    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names of the files that are read."""
        seen: list[str] = []
        digest_of = hashlib.file_digest
        monkeypatch.setattr(files, "_hashes", {})
        monkeypatch.setattr("time.time_ns", lambda: time.monotonic_ns() + 2**62)
        monkeypatch.setattr(
            "hashlib.file_digest", lambda file, kind: (seen.append(Path(file.name).name), digest_of(file, kind))[1]
        )
        return seen

    def test_a_file_is_read_once_by_whatever_name(self, tmp_path: Path, read: list[str]) -> None:
        (tmp_path / "a").write_text("one", encoding="utf-8")
        (tmp_path / "b").hardlink_to(tmp_path / "a")
        assert len({hash_file(tmp_path / name) for name in "abab"}) == 1
        assert read == ["a"]

    @pytest.mark.parametrize("how", ["replaced", "written", "with its old time"])
    def test_one_that_was_changed_or_replaced_is_read_again(self, tmp_path: Path, read: list[str], how: str) -> None:
        """Of the same size, and in the last case with a time that says nothing."""
        path, other = tmp_path / "a", tmp_path / "b"
        path.write_text("one", encoding="utf-8")
        before, times = hash_file(path), path.stat()
        time.sleep(0.02)  # more than a tick
        if how == "replaced":
            other.write_text("two", encoding="utf-8")
            os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
            other.replace(path)
        else:
            path.write_text("two", encoding="utf-8")
        if how == "with its old time":
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert hash_file(path) != before == hashlib.sha256(b"one").hexdigest()

    def test_one_that_was_written_just_now_is_not_remembered(
        self, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a"
        path.write_text("one", encoding="utf-8")
        monkeypatch.setattr("time.time_ns", lambda: path.stat().st_mtime_ns + 10**9)
        assert hash_file(path) == hash_file(path)
        assert read == ["a", "a"]


class TestBuildOnce:
    def test_a_finished_directory_is_reused(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        made = build_once(tmp_path, MADE_FROM, fill)
        with caplog.at_level(logging.INFO):
            assert build_once(tmp_path, dict(reversed(MADE_FROM.items())), never) == made
        assert "Reusing" in caplog.text and "test" in caplog.text

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

        monkeypatch.setattr(files, "locked", late)
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
from aft.files import build_once
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
from aft.files import build_once
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
from aft import files
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
files._MOMENT_S = 0.2
def build(directory):
    print("building", flush=True)
    while not Path(sys.argv[3]).exists():
        time.sleep(0.01)
files.build_once(Path(sys.argv[1]), json.loads(sys.argv[2]), build)
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


class TestLocked:
    def test_waits_as_long_as_it_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        waited, acquired = [], files._acquired

        def counted(lock: Any, seconds: float) -> bool:
            waited.append(seconds)
            return acquired(lock, seconds)

        lock = tmp_path / ".vft.lock"
        with locked(lock):
            monkeypatch.setenv(PATIENCE, "0.2")
            monkeypatch.setattr(files, "_acquired", counted)
            with pytest.raises(StoreError, match="vft; wait") as caught, locked(lock):
                pass
        assert sum(seconds for seconds in waited if seconds > 0) == pytest.approx(0.2)
        assert str(tmp_path / "vft") in str(caught.value), "the lock's name tells what is made"

    @pytest.mark.parametrize("told", ["soon", "nan", "-1", "-inf", "", "1s"])
    def test_a_patience_that_is_none_is_one_sentence(self, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(PATIENCE, told)
        with pytest.raises(SettingsError, match=PATIENCE) as caught:
            patience_s()
        assert one_sentence(str(caught.value))

    def test_without_one_it_has_no_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(PATIENCE, raising=False)
        assert patience_s() == math.inf

    def test_is_free_again_after_an_exception(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="inside"), locked(tmp_path / "new" / ".lock"):
            raise ValueError("inside")
        with locked(tmp_path / "new" / ".lock"):
            pass

    @pytest.mark.usefixtures("impatient")
    def test_refuses_a_second_holder_in_the_same_process(self, tmp_path: Path) -> None:
        with locked(tmp_path / ".lock"), pytest.raises(StoreError, match="Another run"), locked(tmp_path / ".lock"):
            pass

    def test_a_forbidden_folder_is_one_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(*args: Any, **kwargs: Any) -> int:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "open", forbidden)
        with pytest.raises(StoreError, match="Cannot write") as caught, locked(tmp_path / ".lock"):
            pass
        assert one_sentence(str(caught.value))
