"""One copy of the training template per variant, each in its namespace `align.<variant>`."""

from collections.abc import Sequence
from functools import cache

from kedro.pipeline import Node, Pipeline

from aft.alignment.variants import BASELINE
from aft.pipelines.align_train.nodes import train_variant
from aft.pipelines.comparisons import namespace

_READ = ("base_model", "vft_model", "train_questions", "validation_questions", "feedback", "held_out_hashes")
_SHARED = ("seed", "model_cache", "score_cache", "launch", "recipe", "evaluation")  # parameters of all variants


def create_pipeline(variants: Sequence[str]) -> Pipeline:
    """The wiring of `align_train` for these variants; the baseline, which is trained before, is left out."""
    return Pipeline([_variant(name) for name in variants if name != BASELINE])


@cache  # a variant may be in every comparison
def _variant(name: str) -> Pipeline:
    template = Pipeline(
        [
            Node(
                train_variant,
                inputs=[*_READ, *(f"params:{name}" for name in ("training", "objective", *_SHARED))],
                outputs=["model", "training_curve"],
                name=f"train_{name}",
                tags=f"run.train.{name}",
            )
        ]
    )
    return Pipeline(
        template,
        namespace=namespace(name),
        inputs=set(_READ),
        parameters={"training", *_SHARED},
        tags="align_train",
    )
