"""What the stage hands on: the hashes that training must not see, and the base model in the style that is set."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from aft.errors import ModelError, SettingsError
from aft.models.chat import prompt_style
from aft.models.directory import ModelDirectory, open_model
from aft.pipelines.ingest import nodes
from aft.pipelines.ingest.nodes import load_questions, prepare_base_model
from aft.pipelines.parameters import BaseModel, TaskChoice
from aft.pipelines.tables import to_questions
from aft.tasks.base import Question, content_hash
from aft.training.examples import refuse_held_out


def test_training_must_see_no_question_of_any_other_set() -> None:
    """3 validation, 4 test and 5 of another set: 12 hashes, with and without spaces, none a training question's."""
    task = TaskChoice("pocket", {"train": 6, "validation": 3, "test": 4})
    named = {"name": "named", "phrasing": "named", "train": 1, "validation": 1, "test": 5}
    train, _, test, others, held_out = load_questions(task, {"named": {"family": "pocket", "settings": named}})
    assert {*test["content_hash"], *others["content_hash"]} < set(held_out)
    assert len(set(held_out)) == len(held_out) == 24 and set(train["content_hash"]).isdisjoint(held_out)


def test_a_training_question_with_other_blanks_than_a_held_out_one_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ "5 km" and "5km" have two content hashes; test stays whole, validation gives way to test, train to both."""

    def asked(split: str, *texts: str) -> list[Question]:
        return [
            Question(f"gsm8k/{split}/{text}", "gsm8k", split, text, None, "#### 1", "1", content_hash(text))
            for text in texts
        ]

    splits = {
        "train": asked("train", "Who?", "5km more?", "3 km more?"),
        "validation": asked("validation", "3km more?", "7 kg less?"),
        "test": asked("test", "5 km more?", "7kg less?"),
    }
    monkeypatch.setattr(nodes, "_splits", lambda task: splits)
    train, validation, test, _, held_out = load_questions(SMALL, {})
    assert [table["question"].tolist() for table in (train, validation, test)] == [
        ["Who?"],
        ["3km more?"],
        ["5 km more?", "7kg less?"],
    ]
    assert "Dropped 2 train questions that are held out, but for white space." in caplog.text
    refuse_held_out(to_questions(train), held_out)


def _asking(folder: Path, *questions: str) -> dict[str, Any]:
    """A test set of GSM-hard with these questions."""
    folder.mkdir()
    rows = [json.dumps({"question": question, "answer": 2}) for question in questions]
    (folder / "test.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return {"family": "gsm_hard", "settings": {"path": str(folder)}}


SMALL = TaskChoice("pocket", {"train": 2, "validation": 1, "test": 1})


def test_a_family_may_ask_several_test_sets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their ids begin with their names, and a question of both is asked in the first alone; other ids are as ever."""
    caplog.set_level(logging.INFO)
    sets = {
        "one": _asking(tmp_path / "a", "How many?", "How much?"),
        "two": _asking(tmp_path / "b", "Who?", "how many"),
    }
    train, validation, test, others, held_out = load_questions(SMALL, sets)
    assert others["question_id"].tolist() == [
        "pocket/validation/00000",
        *("one/gsm_hard/test/00000", "one/gsm_hard/test/00001", "two/gsm_hard/test/00000"),
    ]
    assert others["split"].tolist() == ["validation", "one", "one", "two"]
    assert set(others["dataset"]) == {"pocket", "gsm_hard"}
    assert len(held_out) == 9  # of five questions, "Who?" is the same without spaces
    ids = [*train["question_id"], *validation["question_id"], *test["question_id"]]
    assert ids == ["pocket/train/00000", "pocket/train/00001", "pocket/validation/00000", "pocket/test/00000"]
    assert "Test set two: 1 questions; 1 are in other splits, too, and left out." in caplog.text


def test_two_test_sets_with_the_same_questions_are_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    same = _asking(tmp_path / "a", "How many?", "How much?")
    _, _, _, others, _ = load_questions(SMALL, {"one": same, "two": same})
    assert others["split"].tolist() == ["validation", "one", "one"]
    assert "Test set two: 0 questions; 2 are in other splits, too, and left out." in caplog.text


@pytest.mark.parametrize("limit", ["train_limit", "test_limit", "split_seed"])
def test_a_truth_value_is_no_number_of_a_test_set(tmp_path: Path, limit: str) -> None:
    choice = {"family": "gsm8k", "settings": {"path": str(tmp_path), limit: True}}
    with pytest.raises(SettingsError, match=f"{limit} is True: it must be a whole number from 0"):
        load_questions(SMALL, {"x": choice})


@pytest.mark.parametrize("name", ["", " ", "a/b", "train"])
def test_names_that_no_test_set_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=f"A test set cannot be called '{name}'"):
        load_questions(SMALL, {name: _asking(tmp_path / "a", "How many?")})


@pytest.fixture
def chatting(pocket_directory: ModelDirectory, tmp_path: Path) -> ModelDirectory:
    """A given model with a chat template, which ends an answer as its tokenizer says."""
    folder = Path(shutil.copytree(pocket_directory.path, tmp_path / "given"))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}</s>{% endfor %}", "utf-8")
    return open_model(folder)


def test_a_given_model_gets_the_style(chatting: ModelDirectory, tmp_path: Path) -> None:
    """The pinned fingerprint is that of what was given, not of what is handed on."""
    settings = BaseModel(str(chatting.path), fingerprint=chatting.fingerprint, prompt_style="chat")
    made = prepare_base_model(settings, str(tmp_path / "cache"))
    assert prompt_style(made.tokenizer()) == "chat" and made.fingerprint != chatting.fingerprint
    assert prompt_style(chatting.tokenizer()) == "plain"
    assert prepare_base_model(BaseModel(str(chatting.path)), str(tmp_path / "cache")) == chatting


def test_what_cannot_be_asked_in_chat(pocket_directory: ModelDirectory, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no chat template"):
        prepare_base_model(BaseModel(str(pocket_directory.path), prompt_style="chat"), str(tmp_path))
    with pytest.raises(SettingsError, match="pocket model has no chat template"):
        prepare_base_model(BaseModel("pocket", prompt_style="chat"), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_of_the_shipped_model_can_be_pinned_as_any(tmp_path: Path) -> None:
    found = prepare_base_model(BaseModel("pocket"), str(tmp_path))
    assert prepare_base_model(BaseModel("pocket", fingerprint=found.fingerprint), str(tmp_path)) == found
    with pytest.raises(
        ModelError, match=f"The model pocket has the fingerprint {found.fingerprint}, but 0123 is pinned"
    ):
        prepare_base_model(BaseModel("pocket", fingerprint="0123"), str(tmp_path))


def test_a_style_that_there_is_not(pocket_directory: ModelDirectory, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="prompt_style is 'chatty'"):
        BaseModel("pocket", prompt_style="chatty")  # type: ignore[arg-type]
    folder = Path(shutil.copytree(pocket_directory.path, tmp_path / "given"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "aft_prompt_style": "chatty"}), "utf-8")
    with pytest.raises(ModelError, match="chatty"):
        prepare_base_model(BaseModel(str(folder)), str(tmp_path))
