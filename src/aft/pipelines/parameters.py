"""The typed parameters of the pipelines: the core's settings, checked when a run starts; an unknown key is an error."""

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from aft.errors import SettingsError
from aft.feedback.judge_settings import JudgeSettings
from aft.models.pocket import Architecture
from aft.models.tokens import PromptStyle
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings
from aft.tasks.pocket import Corpus
from aft.training.settings import Launch, Objective, TrainingSettings

_STRICT = ConfigDict(extra="forbid")


@dataclass(config=_STRICT, frozen=True)
class Training(TrainingSettings):
    """`TrainingSettings`, checked."""


@dataclass(config=_STRICT, frozen=True)
class Launching(Launch):
    """`Launch`, checked."""


@dataclass(config=_STRICT, frozen=True)
class Variant(Objective):
    """`Objective`, checked."""


@dataclass(config=_STRICT, frozen=True)
class Sampling(SamplingSettings):
    """`SamplingSettings`, checked."""


@dataclass(config=_STRICT, frozen=True)
class Server(ServerSettings):
    """`ServerSettings`, checked."""


@dataclass(config=_STRICT, frozen=True)
class Cluster(ClusterSettings):
    """`ClusterSettings`, checked."""


@dataclass(config=_STRICT, frozen=True)
class Sampler(SamplerSettings):
    """`SamplerSettings`, checked."""

    server: Server | None = None
    cluster: Cluster | None = None


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
    prompt_style: PromptStyle = "plain"  # "chat": a prompt is a user's message in the model's chat template
    pocket: PocketBase | None = None


@dataclass(config=_STRICT, frozen=True)
class Judge(JudgeSettings):
    """`JudgeSettings`, checked."""


@dataclass(config=_STRICT, frozen=True)
class Labelling:
    """How sampled responses become feedback."""

    deduplicate: bool = True
    judge: Literal["none", "steps", "openai", "file"] = "none"
    ratings_file: str | None = None
    openai: Judge | None = None

    def __post_init__(self) -> None:
        if self.judge == "file" and self.ratings_file is None:
            raise SettingsError("labelling.judge is 'file': set labelling.ratings_file to the ratings' file.")
        if self.judge == "openai" and self.openai is None:
            raise SettingsError("labelling.judge is 'openai': set labelling.openai.base_url and model.")


@dataclass(config=_STRICT, frozen=True)
class Evaluation:
    """How models answer the test questions, and what is measured."""

    sampling: Sampling
    ks: list[int]
    level: float = 0.95
    resamples: int = 10_000

    def __post_init__(self) -> None:
        if not self.sampling.greedy:
            raise SettingsError("evaluation.sampling.greedy must be true: accuracy is that of the greedy answer.")
        if not self.ks or not 1 <= min(self.ks) <= max(self.ks) <= self.sampling.samples:
            raise SettingsError(
                f"evaluation.ks are {self.ks}, but must lie in 1 ... samples ({self.sampling.samples})."
            )
        if not 0 < self.level < 1 or self.resamples < 1:
            raise SettingsError("evaluation.level must lie between 0 and 1, and resamples be at least 1.")


@dataclass(config=_STRICT, frozen=True)
class AlignedVariant:
    """What is set about one variant."""

    objective: Variant


_Folder = Annotated[str, Field(min_length=1)]
KINDS: dict[str, Any] = {
    "recipe": str,
    "task": TaskChoice,
    "test_sets": dict[str, TaskChoice],
    "base_model": BaseModel,
    "training": Training,
    "launch": Launching,
    "sample_from": Annotated[str | None, Field(min_length=1)],
    "sampling": Sampling,
    "sampler": Sampler,
    "labelling": Labelling,
    "align": dict[str, AlignedVariant],
    "evaluation": Evaluation,
    **dict.fromkeys(("model_cache", "sample_cache", "score_cache", "rating_cache"), _Folder),
}
"""What each parameter must be, by its first key, but for `seed` and `label`. Kedro checks those with a class only."""
