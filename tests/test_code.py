"""Keys: an edited rule and a setting that decides change them; how a thing is computed does not."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aft import code
from aft.feedback.judge_settings import JudgeSettings
from aft.files import digest
from aft.models.adapters import LoraSettings
from aft.models.pocket import Architecture
from aft.pipelines.parameters import Labelling, PocketBase
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings
from aft.tasks.pocket import Corpus
from aft.training.settings import Objective, TrainingSettings

SOURCE = Path(__file__).parents[1] / "src"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of two rooms and a file beside them."""
    for name in ("alignment/rule.py", "tasks/rule.py", "server.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def imported(package: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the package imported in place of our own, as it is now."""
    return lambda: monkeypatch.setattr(code, "_SOURCES", code.hash_sources(package))


def test_an_edited_rule_has_another_hash_and_other_rooms_do_not(package: Path, imported: Callable[[], None]):
    imported()
    before = code.source_hash("alignment"), code.source_hash("tasks")
    (package / "alignment" / "rule.py").write_text("x = 2\n", encoding="utf-8")
    imported()

    assert code.source_hash("alignment") != before[0]
    assert code.source_hash("tasks") == before[1]


def test_an_edited_template_has_another_hash(package: Path, imported: Callable[[], None]):
    (package / "tasks/page.html.j2").write_text("<p>", encoding="utf-8")
    imported()
    before = code.source_hash("tasks")
    (package / "tasks/page.html.j2").write_text("<b>", encoding="utf-8")
    imported()

    assert code.source_hash("tasks") != before


def test_what_editors_leave_beside_the_source_is_none_of_it(package: Path):
    """A copy in a hidden folder, and a lock that is a link to nowhere."""
    before = code.hash_sources(package)
    (package / "tasks/.ipynb_checkpoints").mkdir()
    (package / "tasks/.ipynb_checkpoints/rule-checkpoint.py").write_text("x = 3\n", encoding="utf-8")
    (package / "tasks/.#rule.py").symlink_to("someone@nowhere.1")
    assert code.hash_sources(package) == before


def test_a_moved_rule_has_another_hash(package: Path, imported: Callable[[], None]):
    imported()
    before = code.source_hash("alignment", "tasks")
    (package / "alignment" / "rule.py").rename(package / "alignment" / "other.py")
    imported()

    assert code.source_hash("alignment", "tasks") != before


def test_a_file_beside_the_rooms_counts_where_it_is_named(package: Path, imported: Callable[[], None]):
    imported()
    before = code.source_hash("tasks", "server.py"), code.source_hash("tasks")
    (package / "server.py").write_text("x = 2\n", encoding="utf-8")
    imported()

    assert code.source_hash("tasks", "server.py") != before[0]
    assert code.source_hash("tasks") == before[1]


def test_the_order_in_which_rooms_are_named_does_not_count():
    assert code.source_hash("alignment", "tasks") == code.source_hash("tasks", "alignment")


@pytest.mark.parametrize("room", ["no_such_room", "task", "server", "code"])
def test_a_room_without_source_is_a_programming_error(room: str):
    with pytest.raises(ValueError, match=room):
        code.source_hash("tasks", room)


@pytest.fixture
def run_copy(tmp_path: Path, start_python: Callable[..., Any]) -> Callable[[str], str]:
    """Run code in a process that imports a copy of AFT, in which `edit` changes a file of a room; what it printed."""
    shutil.copytree(SOURCE / "aft", tmp_path / "aft", ignore=shutil.ignore_patterns("__pycache__"))
    begin = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import aft
from aft.code import load_rooms, source_hash
from aft.errors import StoreError
def edit(name):
    file = Path(aft.__file__).parent / name
    file.write_text(file.read_text(encoding="utf-8") + "# edited", encoding="utf-8")
"""
    return lambda script: start_python(begin + script, tmp_path).stdout.read().strip()


def test_what_is_edited_after_the_import_is_not_the_code_that_is_hashed(run_copy: Callable[[str], str]):
    script = 'edit("alignment/losses.py"); print(source_hash("alignment"))'
    before, after = run_copy(script), run_copy(script)
    assert before == code.source_hash("alignment")
    assert after != before


def test_code_that_was_edited_before_it_was_loaded_makes_nothing_under_the_old_hash(
    run_copy: Callable[[str], str], tmp_path: Path
):
    """A room is imported when it is needed first, which may be long after the process has begun."""
    script = """
from aft.directories import build_once
edit("scoring/groups.py")
try:
    build_once(Path(sys.argv[1]) / "cache", {"kind": "scores"}, lambda directory: print("built"), "scoring")
except StoreError as error:
    print(error)
"""
    told = "The code has changed since this run began (aft/scoring/groups.py); run the same command again: what is "
    assert run_copy(script) == f"{told}finished is kept."
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_what_is_made_while_someone_edits_its_code_is_made_by_the_code_in_memory_and_kept(
    run_copy: Callable[[str], str], tmp_path: Path
):
    """Hours of training are not lost, and stand under the hash of what trained."""
    script = """
from aft.directories import build_once, read_manifest
def build(directory):
    edit("scoring/groups.py")
made = build_once(Path(sys.argv[1]) / "cache", {"kind": "scores"}, build, "scoring")
print(read_manifest(made)["made_from"]["code"])
"""
    assert run_copy(script) == code.source_hash("scoring")


def test_other_rooms_may_be_edited(run_copy: Callable[[str], str]):
    assert run_copy('edit("tasks/gsm8k.py"); print(load_rooms("alignment"))') == code.source_hash("alignment")


def test_every_module_of_a_room_is_loaded(run_copy: Callable[[str], str]):
    loaded = run_copy('load_rooms("feedback", "server.py"); print(*(name for name in sys.modules if "aft." in name))')
    files = {path.stem for path in (SOURCE / "aft" / "feedback").glob("*.py")} - {"__init__"}
    assert {f"aft.feedback.{name}" for name in files} | {"aft.server"} <= set(loaded.split())


USUAL = {"epochs": 3, "learning_rate": 2e-5, "batch_size": 8}
URL = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (TrainingSettings(**USUAL), {"token_budget": 512, "scoring": "naive"}),
        (TrainingSettings(**USUAL), {"checkpoint_every": 7, "monitor_every": None, "gradient_checkpointing": True}),
        (SamplingSettings(samples=4), {"block_size": 3, "batch_rows": 7}),
        (JudgeSettings(URL, "judge"), {"base_url": "http://elsewhere/v1", "concurrency": 1, "timeout_s": 9.0}),
        (Labelling(openai=JudgeSettings(URL, "judge")), {"openai": JudgeSettings("http://elsewhere/v1", "judge")}),
        (
            SamplerSettings("server", ServerSettings(URL, "model")),
            {"server": ServerSettings("http://elsewhere/v1", "model")},
        ),
    ],
    ids=str,
)
def test_how_a_thing_is_computed_does_not_decide_it(settings, changes):
    assert replace(settings, **changes) != settings
    assert code.deciding(replace(settings, **changes)) == code.deciding(settings)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (TrainingSettings(**USUAL), {"learning_rate": 1e-5}),
        (TrainingSettings(**USUAL), {"max_steps": 7}),
        (TrainingSettings(**USUAL), {"precision": "bfloat16"}),
        (TrainingSettings(**USUAL, lora=LoraSettings(rank=2)), {"lora": LoraSettings(rank=3)}),
        (SamplingSettings(samples=4), {"temperature": 0.5}),
        (JudgeSettings(URL, "judge"), {"ratings": 1}),
        (Labelling(openai=JudgeSettings(URL, "judge")), {"openai": JudgeSettings(URL, "other")}),
        (SamplerSettings("server", ServerSettings(URL, "model")), {"server": ServerSettings(URL, "other")}),
    ],
    ids=str,
)
def test_every_other_setting_decides(settings, changes):
    assert code.deciding(replace(settings, **changes)) != code.deciding(settings)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (TrainingSettings(**USUAL), "0045edd2a56e9b12"),
        (TrainingSettings(**USUAL, lora=LoraSettings(rank=4)), "accd7d80ea8ca775"),
        (Objective(), "868487abb47dc5e5"),
        (Objective(term="aft", weight=1), "e1a1ffaa25099f1b"),
        (SamplingSettings(samples=4), "9a94149e9f1cdfee"),
        (SamplingSettings(samples=4, temperature=1, greedy=True), "4d4f4c65a64139e6"),
        (SamplerSettings(), "9029cc0415719602"),
        (SamplerSettings("server", ServerSettings(URL, "m"), ClusterSettings(2)), "0e8ade2783776493"),
        (JudgeSettings(URL, "m"), "c8583dea90c6acc7"),
        (Labelling(openai=JudgeSettings(URL, "m")), "3f1a404976145868"),
        (PocketBase(Corpus(), Architecture(), TrainingSettings(**USUAL)), "c2091c87d232e7ab"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_keys_are_those_of_the_results_that_are_kept(settings, key):
    """A setting that is added, or changes sides, makes all results anew: of models, samples, ratings and studies."""
    assert digest(code.deciding(settings)) == key
