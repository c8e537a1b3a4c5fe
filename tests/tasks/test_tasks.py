"""Task families by name: those that are shipped, modules of one's own, and names that are no family."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aft.errors import SettingsError
from aft.tasks import get_source, get_task, gsm8k, task_names

both = pytest.mark.parametrize("get", [get_source, get_task])


@both
def test_a_family_has_its_own_name_and_its_dotted_one(get: Callable[[str], object]) -> None:
    assert get("gsm8k") is get("aft.tasks.gsm8k") is gsm8k


@both
@pytest.mark.parametrize(
    "name",
    [
        *(".x", "..", ".", "..gsm8k", "a..b", "json.", "/x", "../x", "x/y.z", "gsm8k.py", "1.5", "a b.c", "\ud800.x"),
        *("", " ", "GSM8K", " gsm8k", "a.b", "__init__", "base", "rows", "answers", "no_family", "os.path"),
        *("aft.tasks.base", "aft.tasks.no_family", "aft.tasks.gsm8k.Settings"),
    ],
)
def test_a_name_that_is_no_family_ends_in_a_sentence_with_those_that_are(
    get: Callable[[str], object], name: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        get(name)
    told = str(caught.value)
    assert repr(name) in told and ", ".join(task_names()) in told and "dotted name of a module" in told
    assert "\n" not in told and told.endswith(".") and told.isprintable()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, reason: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "task.py").write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(
        SettingsError, match=rf"'mine\.task' cannot be imported \({reason}.*\); choose one of aqua_rat,"
    ):
        get_task("mine.task")
