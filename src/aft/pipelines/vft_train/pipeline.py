"""The base model learns the references: the VFT model, from which chains of thought are sampled."""

from kedro.pipeline import Node, Pipeline

from aft.alignment.variants import BASELINE
from aft.pipelines.comparisons import dataset, namespace
from aft.pipelines.vft_train.nodes import train_vft


def create_pipeline() -> Pipeline:
    """The wiring of `vft_train`."""
    return Pipeline(
        [
            Node(
                train_vft,
                inputs=[
                    *("base_model", "train_questions", "validation_questions", "held_out_hashes"),
                    *("params:training", "params:seed", "params:model_cache", "params:launch", "params:recipe"),
                    "params:evaluation",
                ],
                outputs=[dataset(BASELINE, "model"), dataset(BASELINE, "training_curve")],
                name="train_vft",
                tags=f"run.train.{BASELINE}",
            )
        ],
        namespace=namespace(BASELINE),
        prefix_datasets_with_namespace=False,
        tags="vft_train",
    )
