"""Files with a seal: what was damaged, cut or lost since it was written is reported."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aft.errors import StoreError
from aft.sealed import check_seal, lost_files, write_sealed

Start = Callable[..., "subprocess.Popen[str]"]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


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

    def test_the_same_content_again_leaves_the_seal_as_it_is(self, tmp_path: Path) -> None:
        """Unless the file was damaged in between, too: what is written is what the seal names."""
        path, seal = tmp_path / "table.csv", tmp_path / ".table.csv.sha256"
        self.write(path, "one")
        first = seal.stat().st_mtime_ns
        path.write_text("damaged", encoding="utf-8")
        self.write(path, "one")
        check_seal(path, self.WAY_OUT)
        assert seal.stat().st_mtime_ns == first
        self.write(path, "two")
        assert seal.stat().st_mtime_ns > first

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
from aft import sealed
replace, calls = Path.replace, []
def killed(self, target):
    for place in ("before", "after"):
        if place == "after":
            replace(self, target)
        calls.append(place)
        if len(calls) == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
Path.replace = killed
sealed.write_sealed(Path(sys.argv[1]), lambda staged: staged.write_text("new"))
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
from aft.sealed import write_sealed
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
