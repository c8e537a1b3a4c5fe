"""The typed parameters of the pipelines: the core's settings, checked when a run starts; an unknown key is an error."""

from dataclasses import field
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from aft.models.pocket import Architecture
from aft.sampling.settings import SamplingSettings
from aft.tasks.pocket import Corpus
from aft.training.settings import Objective, TrainingSettings

_STRICT = ConfigDict(extra="forbid")


@dataclass(config=_STRICT, frozen=True)
class Training(TrainingSettings):
    """`TrainingSettings`, checked."""


@dataclass(config=_STRICT, frozen=True)
class Variant(Objective):
    """`Objective`, checked."""


@dataclass(config=_STRICT, frozen=True)
class Sampling(SamplingSettings):
    """`SamplingSettings`, checked."""


@dataclass(config=_STRICT, frozen=True)
class TaskChoice:
    """Which task family asks the questions, and the family's own settings."""

    family: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(config=_STRICT, frozen=True)
class PocketBase:
    """How the pocket base model is made."""

    corpus: Corpus
    architecture: Architecture
    training: Training


@dataclass(config=_STRICT, frozen=True)
class BaseModel:
    """Where the base model comes from."""

    source: str  # "pocket", a folder, or a model's name on the Hugging Face hub
    revision: str | None = None  # the commit to fetch from the hub
    fingerprint: str | None = None  # refuse any other weights, configuration or tokenizer
    pocket: PocketBase | None = None


@dataclass(config=_STRICT, frozen=True)
class Labelling:
    """How sampled responses become feedback."""

    deduplicate: bool = True


@dataclass(config=_STRICT, frozen=True)
class Evaluation:
    """What is measured on the test questions."""

    ks: list[int]
    level: float = 0.95
    resamples: int = 10_000
