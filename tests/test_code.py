"""Keys: an edited rule and a setting that decides change them; how a thing is computed does not."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from aft import code
from aft.feedback.judge_settings import JudgeSettings
from aft.models.adapters import LoraSettings
from aft.pipelines.parameters import Judge, Labelling, Sampler, Server, Training
from aft.sampling.settings import SamplingSettings
from aft.training.settings import TrainingSettings


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


USUAL = {"epochs": 3, "learning_rate": 2e-5, "batch_size": 8}
URL = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (TrainingSettings(**USUAL), {"token_budget": 512, "scoring": "naive"}),
        (TrainingSettings(**USUAL), {"checkpoint_every": 7, "monitor_every": None, "gradient_checkpointing": True}),
        (Training(**USUAL), {"token_budget": 512}),  # as the pipelines have them
        (SamplingSettings(samples=4), {"block_size": 3, "batch_rows": 7}),
        (JudgeSettings(URL, "judge"), {"base_url": "http://elsewhere/v1", "concurrency": 1, "timeout_s": 9.0}),
        (Labelling(openai=Judge(URL, "judge")), {"openai": Judge("http://elsewhere/v1", "judge")}),
        (Sampler("server", Server(URL, "model")), {"server": Server("http://elsewhere/v1", "model")}),
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
        (Labelling(openai=Judge(URL, "judge")), {"openai": Judge(URL, "other")}),
        (Sampler("server", Server(URL, "model")), {"server": Server(URL, "other")}),
    ],
    ids=str,
)
def test_every_other_setting_decides(settings, changes):
    assert code.deciding(replace(settings, **changes)) != code.deciding(settings)


@pytest.mark.parametrize("kind", [TrainingSettings, SamplingSettings, JudgeSettings, Server, Sampler])
def test_what_says_how_is_a_setting(kind):
    assert set(kind.HOW) < {field.name for field in fields(kind)}
