"""One copy of the training template per variant, each in its namespace `align.<variant>`."""

from kedro.pipeline import Node, Pipeline

from aft.pipelines.align_train.nodes import train_variant
from aft.pipelines.variants import VARIANTS, namespace


def create_pipeline() -> Pipeline:
    """The wiring of `align_train`: all variants."""
    return sum((_variant(name) for name in VARIANTS), start=Pipeline([]))


def _variant(name: str) -> Pipeline:
    template = Pipeline(
        [
            Node(
                train_variant,
                inputs={
                    "base_model": "base_model",
                    "vft_model": "vft_model",
                    "train_questions": "train_questions",
                    "feedback": "feedback",
                    "held_out": "held_out_hashes",
                    "training": "params:training",
                    "objective": "params:objective",
                    "start": "params:align_from",
                    "seed": "params:seed",
                    "model_cache": "params:model_cache",
                    "score_cache": "params:score_cache",
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
        inputs={"base_model", "vft_model", "train_questions", "feedback", "held_out_hashes"},
        parameters={"training", "align_from", "seed", "model_cache", "score_cache"},
        tags="align_train",
    )
