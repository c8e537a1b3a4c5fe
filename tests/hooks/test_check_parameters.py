"""A misspelt parameter is refused before anything runs."""

import pytest
from kedro.framework.project import pipelines
from kedro.io import DataCatalog, MemoryDataset

from aft.errors import SettingsError
from aft.hooks.check_parameters import CheckParametersHook
from aft.pipeline_registry import register_pipelines


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(pipelines, "_content", register_pipelines(), raising=False)
    monkeypatch.setattr(pipelines, "_is_data_loaded", True, raising=False)


def check(parameters: dict, **runtime_params: object) -> None:
    catalog = DataCatalog({"parameters": MemoryDataset(parameters)})
    CheckParametersHook().before_pipeline_run({"runtime_params": runtime_params}, catalog)


def test_known_parameters_pass():
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
    ],
)
def test_an_unknown_one_is_named_with_the_nearest_known(parameters, named, hint):
    with pytest.raises(SettingsError, match=r"There is no parameter") as caught:
        check(parameters)
    assert named in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("seed", ["abc", -1, 1.5, True, None, 2**32])
def test_a_seed_is_a_whole_number_that_numpy_takes(seed):
    with pytest.raises(SettingsError, match="must be a whole number"):
        check({"seed": seed}, seed=seed)


def test_a_seed_in_the_configuration_would_end_in_the_wrong_folder():
    """Folders are named by the seed of the command line, 0 if there is none."""
    check({"seed": 7}, seed=7)
    with pytest.raises(SettingsError, match="--params=seed=7"):
        check({"seed": 7})


def test_torchrun_would_run_everything_several_times(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match=r"set launch\.processes"):
        check({})
