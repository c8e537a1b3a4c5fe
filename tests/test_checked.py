"""Settings are checked by the class itself: made by hand, from configuration, and again in another process."""

import json
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Annotated, Any

import pytest

from aft.bounds import Count, Must, Share
from aft.checked import checked, read
from aft.errors import SettingsError
from aft.feedback.judge_settings import JudgeSettings
from aft.models.adapters import LoraSettings
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings
from aft.training.settings import Launch, Objective, TrainingSettings

URL = "http://localhost:8000/v1"
TRAINING = TrainingSettings(3, 2e-5, 8, lora=LoraSettings(target_modules=["q_proj"]))
SAMPLER = SamplerSettings("server", ServerSettings(URL, "m"), ClusterSettings(2))


@checked
class Inner:
    """Some settings."""

    share: Share = 0.5
    name: Annotated[str, Must(str.islower, "be in small letters")] = "x"


@checked
class OuterSettings:
    """Settings with settings."""

    count: Count
    inner: Inner | None = None

    def __post_init__(self) -> None:
        if self.count == 7:
            raise SettingsError("seven is taken.")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "outer.count is missing."),
        ({"count": 0}, "outer.count is 0: it must be a whole number from 1 up to 1000000000."),
        ({"count": "3"}, "outer.count is '3': it must be a whole number from 1 up to 1000000000."),
        ({"count": [10**5000]}, "outer.count is a list with a number above 1e+30: it must be a whole number from 1 up"),
        ({"count": 7}, "outer: seven is taken."),
        (
            {"count": 1, "coumt": 2},
            "no parameter 'outer.coumt': did you mean 'count'? There are count, inner.",
        ),
        ({"count": 1, "inner": {"name": "hunter2!A"}}, "outer.inner.name must be in small letters."),
        ({"count": 1, "inner": {"shared": 1}}, "There is no parameter 'outer.inner.shared': did you mean 'share'? "),
        ({"count": 1, "inner": 5}, "outer.inner is 5, but holds share, name: give each by its dotted key, as in --"),
        ({"count": 0, "inner": {"share": 2}}, "outer.inner.share is 2: it must be a number from 0 up to 1."),
    ],
)
def test_each_fault_is_a_sentence_by_hand_and_from_configuration(given: dict[str, Any], told: str) -> None:
    for make in (lambda: OuterSettings(**given), lambda: read(OuterSettings, given, "outer")):
        with pytest.raises(SettingsError) as caught:
            make()
        said = str(caught.value)
        assert told in said and "\n" not in said and "hunter2" not in said


def test_what_is_given_by_position_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^outer\.count is 0: it must be .*\. outer\.inner is 5, but holds "):
        OuterSettings(0, 5)  # type: ignore[arg-type]


def test_what_was_checked_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        OuterSettings(1).count = 0  # type: ignore[misc]
    with pytest.raises(SettingsError, match=r"^outer\.count is 0"):
        replace(OuterSettings(1), count=0)


@pytest.mark.parametrize(
    "settings",
    [TRAINING, Objective(term="aft"), Launch(2), SamplingSettings(4, top_p=0.5), SAMPLER, JudgeSettings(URL, "m")],
    ids=lambda settings: type(settings).__name__,
)
def test_settings_reach_other_processes_as_they_are(settings: Any) -> None:
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert type(settings)(**json.loads(json.dumps(asdict(settings)))) == settings


def test_the_core_is_checked_without_kedro_mlflow_or_torch(start_python: Callable[..., Any]) -> None:
    script = """
import sys
from aft.training.settings import TrainingSettings
from aft.feedback.judge_settings import JudgeSettings
from aft.models.pocket import Architecture
from aft.sampling.settings import SamplerSettings
try:
    TrainingSettings(epochs=0, learning_rate=1, batch_size=1)
except ValueError as error:
    print(error)
print({"kedro", "mlflow", "torch", "transformers"} & set(sys.modules))
"""
    said = start_python(script).stdout.read()
    assert said == "training.epochs is 0: it must be a number from 0.001 up to 1000000.\nset()\n"
