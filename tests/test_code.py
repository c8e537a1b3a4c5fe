from collections.abc import Iterator
from pathlib import Path

import pytest

from aft import code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of two rooms in place of our own."""
    for room in ("alignment", "tasks"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "rule.py").write_text("x = 1\n", encoding="utf-8")
    monkeypatch.setattr(code, "_PACKAGE", tmp_path)
    code.source_hash.cache_clear()
    yield tmp_path
    code.source_hash.cache_clear()


def test_an_edited_rule_has_another_hash_and_other_rooms_do_not(package: Path):
    before = code.source_hash("alignment"), code.source_hash("tasks")
    (package / "alignment" / "rule.py").write_text("x = 2\n", encoding="utf-8")
    code.source_hash.cache_clear()

    assert code.source_hash("alignment") != before[0]
    assert code.source_hash("tasks") == before[1]


def test_a_moved_rule_has_another_hash(package: Path):
    before = code.source_hash("alignment", "tasks")
    (package / "alignment" / "rule.py").rename(package / "alignment" / "other.py")
    code.source_hash.cache_clear()

    assert code.source_hash("alignment", "tasks") != before


def test_the_order_in_which_rooms_are_named_does_not_count(package: Path):
    assert code.source_hash("alignment", "tasks") == code.source_hash("tasks", "alignment")


def test_our_own_rooms_are_found():
    empty = code.source_hash("no_such_room")

    for room in ("alignment", "feedback", "models", "sampling", "scoring", "tasks", "training"):
        assert code.source_hash(room) != empty
