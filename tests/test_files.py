"""Files are whole or absent: after an exception, a full disk, `kill -9` and damage."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft import files
from aft.directories import (
    remove_leftovers,
)
from aft.errors import AftError, ModelError, StoreError
from aft.files import digest, hash_file, usable_folder, write_atomically, write_json, writing

Start = Callable[..., "subprocess.Popen[str]"]
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
