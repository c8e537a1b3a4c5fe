import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aft.hooks.provenance import shown_uri, source_tags
from aft.pipelines.recorded import RECORDED, recorded_parameters, without_credentials

WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)


@dataclass(frozen=True)
class Training:
    epochs: float
    max_steps: int | None


def test_only_the_allow_list_and_the_variants_own_objective_are_recorded():
    """`api_key` and `model_cache` are not on the list; of two variants only the one asked for is there."""
    parameters = {
        "seed": 3,
        "training": Training(2.0, None),
        "evaluation": {"ks": [1, 4]},
        "api_key": "hunter2",
        "model_cache": "data/cache",
        "align": {"aft": {"objective": {"term": "aft"}}, "rft": {"objective": {"term": "none"}}},
    }
    common = {"seed": "3", "training.epochs": "2.0", "training.max_steps": "None", "evaluation.ks": "1, 4"}
    assert recorded_parameters(parameters) == common
    assert recorded_parameters(parameters, "aft") == common | {"objective.term": "aft"}
    assert recorded_parameters(parameters, "vft") == common


@given(st.dictionaries(WORD.filter(lambda key: key not in RECORDED), WORD))
def test_no_other_key_is_recorded(others):
    assert recorded_parameters(others) == {}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("pocket", "pocket"),
        ("owner/model-7b", "owner/model-7b"),
        ("/home/someone/models/llama", "llama"),
        ("~/models/llama", "llama"),
        ("../models/llama", "llama"),
        ("file:///home/someone/llama", "llama"),
        ("https://someone:pw@host/llama?token=t", "https://host/llama"),
    ],
)
def test_paths_are_told_by_their_last_component_and_hub_names_whole(source, shown):
    assert recorded_parameters({"base_model": {"source": source}}) == {"base_model.source": shown}


def test_a_relative_folder_with_the_form_of_a_hub_name_is_a_path_when_it_exists(tmp_path, monkeypatch):
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert recorded_parameters({"base_model": {"source": "owner/model"}}) == {"base_model.source": "model"}


def test_a_list_of_paths_is_shortened_too():
    recorded = recorded_parameters({"task": {"files": ["/a/b/c.jsonl", Path("/a/d.jsonl")]}})
    assert recorded == {"task.files": "c.jsonl, d.jsonl"}


def test_a_text_longer_than_a_files_name_may_be_is_no_path():
    """200 letters of two bytes each."""
    assert recorded_parameters({"task": {"prompt": "ж" * 200}}) == {"task.prompt": "ж" * 200}


def test_a_value_is_cut_to_what_mlflow_takes():
    assert len(recorded_parameters({"task": {"text": "x" * 7000}})["task.text"]) == 6000


@given(WORD, WORD.map(lambda word: f"pw-{word}-pw"), WORD, WORD)
def test_a_url_loses_user_password_and_query(user, password, host, path):
    """In a sentence with two URLs, both keep scheme, host and path; a password may hold `/` and `@`."""
    text = f"{host} at https://{user}:{password}/@x@{host}.org:80/{path}?token={password} and sqlite:///{path}.db"
    assert without_credentials(text) == f"{host} at https://{host}.org:80/{path} and sqlite:///{path}.db"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:////home/someone/project/mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db"),
        ("sqlite:////home/arthur@dent.org/runs.db", "sqlite:////home/arthur@dent.org/runs.db"),
        ("https://arthur:dent42@host/mlflow", "https://host/mlflow"),
    ],
)
def test_a_file_in_the_project_is_shown_relative_to_it(uri, shown):
    assert shown_uri(uri, Path("/home/someone/project")) == shown


def test_the_commit_is_told_and_whether_the_code_differs_from_it(tmp_path, monkeypatch):
    """Without a repository nothing; after a commit its 40 digits, clean; after one more file, dirty."""

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert source_tags(tmp_path) == {}
    git("init")
    (tmp_path / "one").touch()
    git("add", ".")
    git("commit", "-m", "first")
    clean = source_tags(tmp_path)
    assert len(clean["git_commit"]) == 40
    assert clean["git_dirty"] == "false"
    (tmp_path / "two").touch()
    assert source_tags(tmp_path) == clean | {"git_dirty": "true"}
