"""One copy of the training template per variant, each in its namespace `align.<variant>`."""

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from aft.alignment.variants import BASELINE
from aft.pipelines.align_train.nodes import train_variant
from aft.pipelines.comparisons import namespace


def create_pipeline(variants: Sequence[str]) -> Pipeline:
    """The wiring of `align_train` for these variants; the baseline, which is trained before, is left out."""
    return Pipeline([_variant(name) for name in variants if name != BASELINE])


def _variant(name: str) -> Pipeline:
    template = Pipeline(
        [
            Node(
                train_variant,
                inputs={
                    "base_model": "base_model",
                    "vft_model": "vft_model",
                    "train_questions": "train_questions",
                    "validation_questions": "validation_questions",
                    "feedback": "feedback",
                    "held_out": "held_out_hashes",
                    "training": "params:training",
                    "objective": "params:objective",
                    "seed": "params:seed",
                    "model_cache": "params:model_cache",
                    "score_cache": "params:score_cache",
                    "launch": "params:launch",
                    "recipe": "params:recipe",
                    "evaluation": "params:evaluation",
                },
                outputs=["model", "training_curve"],
                name=f"train_{name}",
                tags=f"run.train.{name}",
            )
        ]
    )
    return Pipeline(
        template,
        namespace=namespace(name),
        inputs={
            *("base_model", "vft_model", "train_questions", "validation_questions", "feedback", "held_out_hashes"),
        },
        parameters={"training", "seed", "model_cache", "score_cache", "launch", "recipe", "evaluation"},
        tags="align_train",
    )
