"""A misspelt parameter is refused before anything runs."""

import pytest
from kedro.framework.project import pipelines
from kedro.io import DataCatalog, MemoryDataset

from aft.errors import SettingsError
from aft.hooks.unknown_parameters import UnknownParametersHook
from aft.pipeline_registry import register_pipelines


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(pipelines, "_content", register_pipelines(), raising=False)
    monkeypatch.setattr(pipelines, "_is_data_loaded", True, raising=False)


def check(parameters: dict) -> None:
    UnknownParametersHook().before_pipeline_run(DataCatalog({"parameters": MemoryDataset(parameters)}))


def test_known_parameters_pass():
    check({"seed": 1, "training": {"epochs": 3}, "align": {"aft_dc": {"objective": {"beta": 0.1}}}})


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
