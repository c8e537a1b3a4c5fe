"""A misspelt parameter is refused before anything runs."""

from collections import UserDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.framework.project import pipelines
from kedro.io import DataCatalog, MemoryDataset
from omegaconf import OmegaConf

from aft.config_loader import RecipeConfigLoader
from aft.errors import SettingsError
from aft.hooks.check_parameters import CheckParametersHook
from aft.pipeline_registry import register_pipelines
from aft.settings import CONFIG_LOADER_ARGS


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(pipelines, "_content", register_pipelines(), raising=False)
    monkeypatch.setattr(pipelines, "_is_data_loaded", True, raising=False)


@pytest.fixture(scope="module")
def configured() -> dict:
    """The parameters that ship."""
    conf = Path(__file__).parents[2] / "conf"
    return RecipeConfigLoader(str(conf), env="smoke", **CONFIG_LOADER_ARGS)["parameters"]


@pytest.fixture
def check(configured):
    """Let the hook see a run with some parameters other than those that ship, and with runtime parameters."""

    def checked(parameters: dict, *, only_missing_outputs: bool = False, **runtime_params: object) -> None:
        changed: Any = OmegaConf.to_container(OmegaConf.merge(configured, parameters))
        loader = UserDict({"globals": {"data": "data", "recipe": "pocket"}, "parameters": changed})
        loader.runtime_params = runtime_params  # type: ignore[attr-defined]
        catalog = DataCatalog({"parameters": MemoryDataset(changed)})
        manager = _create_hook_manager()
        manager.register(CheckParametersHook())
        manager.hook.after_context_created(context=SimpleNamespace(config_loader=loader))
        told = {"runtime_params": runtime_params, "only_missing_outputs": only_missing_outputs}
        manager.hook.before_pipeline_run(run_params=told, pipeline=None, catalog=catalog)

    return checked


def test_known_parameters_pass(check):
    check({"seed": 0, "training": {"epochs": 3}, "align": {"aft_dc": {"objective": {"beta": 0.1}}}})


@pytest.mark.parametrize(
    ("parameters", "named", "hint"),
    [
        ({"traning": {"epochs": 3}}, "'traning.epochs'", "did you mean 'training'"),
        (
            {"align": {"aft_cd": {"objective": {"beta": 0.1}}}},
            "'align.aft_cd.objective.beta'",
            "align.aft_dc.objective",
        ),
        ({"xyz": 1}, "'xyz'", "the parameters are align"),
        ({"traning": {}}, "'traning'", "did you mean 'training'"),
        ({"training": {"lroa": {}}}, "'training.lroa'", "did you mean 'lora'"),
        ({"align": {"aft_cd": {"objective": {}}}}, "'align.aft_cd.objective'", "align.aft_dc.objective"),
    ],
)
def test_an_unknown_one_is_named_with_the_nearest_known(parameters, named, hint, check):
    with pytest.raises(SettingsError, match=r"There is no parameter") as caught:
        check(parameters)
    assert named in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("seed", ["abc", -1, 1.5, True, None, 2**32, pytest.param(16**5000, id="huge")])
def test_a_seed_is_a_whole_number_that_numpy_takes(seed, check):
    with pytest.raises(SettingsError, match="must be a whole number"):
        check({"seed": seed}, seed=seed)


def test_a_seed_in_the_configuration_would_end_in_the_wrong_folder(check):
    """Folders are named by the seed of the command line, 0 if there is none."""
    check({"seed": 7}, seed=7)
    with pytest.raises(SettingsError, match="--params=seed=7"):
        check({"seed": 7})


@pytest.mark.parametrize("name", ["seed", "label"])
@pytest.mark.parametrize("value", [16**5000, "x" * 5000, [16**5000]], ids=["number", "text", "list"])
def test_what_cannot_be_shown_in_a_line_is_cut(name, value, check):
    with pytest.raises(SettingsError) as caught:
        check({name: value})
    assert name in str(caught.value) and len(str(caught.value)) < 160


def test_kedros_own_way_to_leave_out_what_is_there_is_refused(check):
    """A table of another seed is there, and the seed's own rows are missing: it would be left out."""
    with pytest.raises(SettingsError, match="Leave out --only-missing-outputs"):
        check({}, only_missing_outputs=True)


def test_torchrun_would_run_everything_several_times(monkeypatch, check):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match=r"set launch\.processes"):
        check({})
