"""The typed parameters of the pipelines: the core's settings, checked when a run starts; an unknown key is an error."""

from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from aft.alignment import variants
from aft.bounds import Bounds, check_bounds, counted
from aft.errors import SettingsError
from aft.feedback.judge_settings import JudgeSettings
from aft.models.adapters import LoraSettings
from aft.models.pocket import Architecture
from aft.models.tokens import PromptStyle
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings
from aft.tasks.pocket import Corpus
from aft.training.settings import Launch, Objective, TrainingSettings

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def _checked(cls: type[_T]) -> type[_T]:
    """A pydantic dataclass in which an unknown key is an error, and `true` is no number."""

    def refuse_truth_values(of: type, value: Any, info: ValidationInfo) -> Any:
        given = value if isinstance(value, list) else [value]
        takes_them = of.__dataclass_fields__[info.field_name].type is bool  # type: ignore[attr-defined]
        if not takes_them and any(isinstance(one, bool) for one in given):
            raise ValueError(f"{value} is a truth value, which does not belong here")
        return value

    cls.refuse_truth_values = field_validator("*", mode="before")(classmethod(refuse_truth_values))  # type: ignore
    return dataclass(config=ConfigDict(extra="forbid"), frozen=True)(cls)  # type: ignore[return-value]


@_checked
class Lora(LoraSettings):
    """`LoraSettings`, checked."""


@_checked
class Training(TrainingSettings):
    """`TrainingSettings`, checked."""

    lora: Lora | None = None


@_checked
class Launching(Launch):
    """`Launch`, checked."""


@_checked
class Variant(Objective):
    """`Objective`, checked."""


@_checked
class Sampling(SamplingSettings):
    """`SamplingSettings`, checked."""


@_checked
class Server(ServerSettings):
    """`ServerSettings`, checked."""


@_checked
class Cluster(ClusterSettings):
    """`ClusterSettings`, checked."""


@_checked
class Sampler(SamplerSettings):
    """`SamplerSettings`, checked."""

    server: Server | None = None
    cluster: Cluster | None = None


@_checked
class TaskChoice:
    """Which task family asks the questions, and the family's own settings."""

    family: str
    settings: dict[str, Any] = field(default_factory=dict)


@_checked
class PocketCorpus(Corpus):
    """`Corpus`, checked."""


@_checked
class PocketArchitecture(Architecture):
    """`Architecture`, checked."""


@_checked
class PocketBase:
    """How the pocket base model is made."""

    corpus: PocketCorpus
    architecture: PocketArchitecture
    training: Training


@_checked
class BaseModel:
    """Where the base model comes from."""

    source: str  # "pocket", a folder, or a model's name on the Hugging Face hub
    revision: str | None = None  # the commit to fetch from the hub
    fingerprint: str | None = None  # refuse any other weights, configuration or tokenizer
    prompt_style: PromptStyle = "plain"  # "chat": a prompt is a user's message in the model's chat template
    pocket: PocketBase | None = None


@_checked
class Judge(JudgeSettings):
    """`JudgeSettings`, checked."""


@_checked
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


@_checked
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
        level = Bounds(0, 1, above=True, below=True)
        check_bounds(self, {"level": level, "resamples": counted(most=1_000_000)}, "evaluation.")


@_checked
class AlignedVariant(variants.Variant):
    """`Variant` of the core, checked."""

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
    "comparisons": dict[str, list[str]],
    "compare": str,
    "evaluation": Evaluation,
    **dict.fromkeys(("model_cache", "sample_cache", "score_cache", "rating_cache"), _Folder),
}
"""What each parameter must be, by its first key, but for `seed` and `label`. Kedro checks those with a class only."""
