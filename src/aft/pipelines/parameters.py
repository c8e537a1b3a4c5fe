"""The typed parameters of the pipelines: settings of the core, and those that only pipelines have."""

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field

from aft.alignment import variants
from aft.bounds import Bounds, Count, counted
from aft.checked import checked
from aft.errors import SettingsError
from aft.feedback.judge_settings import JudgeSettings
from aft.models.chat import ChatSettings, PromptStyle
from aft.models.pocket import Architecture
from aft.sampling.settings import SamplerSettings, SamplingSettings
from aft.tasks.pocket import Corpus
from aft.training.settings import Launch, Objective, TrainingSettings


@checked
class TaskChoice:
    """Which task family asks the questions, and the family's own settings."""

    family: str
    settings: dict[str, Any] = field(default_factory=dict)


SHIPPED, PRETRAINED = "pocket", "pretrain"  # as the source of the base model: neither a folder nor a name on the hub


@checked
class PocketBase:
    """How the pocket base model is made."""

    corpus: Corpus
    architecture: Architecture
    training: TrainingSettings


@checked
class BaseModel:
    """Where the base model comes from."""

    source: str  # "pocket" = the one that ships, "pretrain" = one made here, a folder, or a model's name on the hub
    revision: str | None = None  # the commit to fetch from the hub
    fingerprint: str | None = None  # refuse any other weights, configuration or tokenizer
    prompt_style: PromptStyle = "plain"  # "chat": a prompt is a user's message in the model's chat template
    chat: ChatSettings = field(default_factory=ChatSettings)  # of the style chat
    pocket: PocketBase | None = None

    def __post_init__(self) -> None:
        if self.prompt_style != "chat" and self.chat.told:
            raise SettingsError(f"base_model.chat.{min(self.chat.told)} needs base_model.prompt_style: chat.")


@checked
class Labelling:
    """How sampled responses become feedback."""

    deduplicate: bool = True
    given_labels: Literal["check", "use"] = "check"  # of responses that were drawn elsewhere
    judge: Literal["none", "steps", "openai", "file", "given"] = "none"
    ratings_file: str | None = None
    openai: JudgeSettings | None = None

    def __post_init__(self) -> None:
        if self.judge == "file" and self.ratings_file is None:
            raise SettingsError("labelling.judge is 'file': set labelling.ratings_file to the ratings' file.")
        if self.judge == "openai" and self.openai is None:
            raise SettingsError("labelling.judge is 'openai': set labelling.openai.base_url and model.")


@checked
class Evaluation:
    """How models answer the test questions, and what is measured."""

    sampling: SamplingSettings
    ks: list[Count]
    level: Annotated[float, Bounds(0, 1, above=True, below=True)] = 0.95
    resamples: Annotated[int, counted(most=1_000_000)] = 10_000

    def __post_init__(self) -> None:
        if not self.sampling.greedy:
            raise SettingsError("evaluation.sampling.greedy must be true: accuracy is that of the greedy answer.")
        if not self.ks or not 1 <= min(self.ks) <= max(self.ks) <= self.sampling.samples:
            raise SettingsError(
                f"evaluation.ks are {self.ks}, but must lie in 1 ... samples ({self.sampling.samples})."
            )


@checked
class AlignedVariant(variants.Variant):
    """`Variant` of the core, checked."""

    objective: Objective


_Folder = Annotated[str, Field(min_length=1)]
_Auto = Literal["auto"] | Annotated[int, counted(most=1024)]
MACHINE = ("parallel", "threads")
"""The parameters that say what of this machine is used; no node reads them."""

KINDS: dict[str, Any] = {
    "recipe": str,
    "task": TaskChoice,
    "test_sets": dict[str, TaskChoice],
    "base_model": BaseModel,
    "training": TrainingSettings,
    "launch": Launch,
    **dict.fromkeys(("sample_from", "candidates_from"), Annotated[str | None, Field(min_length=1)]),
    "sampling": SamplingSettings,
    "sampler": SamplerSettings,
    "labelling": Labelling,
    "align": dict[str, AlignedVariant],
    "comparisons": dict[str, list[str]],
    "compare": str,
    "evaluation": Evaluation,
    **dict.fromkeys(MACHINE, _Auto),
    **dict.fromkeys(("model_cache", "sample_cache", "score_cache", "rating_cache"), _Folder),
}
"""What each parameter must be, by its first key, but for `seed` and `label`. Kedro checks those with a class only."""
