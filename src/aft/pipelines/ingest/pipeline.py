"""Raw data and settings become questions and a base model."""

from kedro.pipeline import Node, Pipeline

from aft.pipelines.ingest.nodes import find_near_duplicates, load_questions, prepare_base_model


def create_pipeline() -> Pipeline:
    """The wiring of `ingest`."""
    return Pipeline(
        [
            Node(
                load_questions,
                inputs=["raw_questions", "raw_test_sets"],
                outputs=[
                    *("train_questions", "validation_questions", "test_questions", "other_questions"),
                    "held_out_hashes",
                ],
                name="load_questions",
            ),
            Node(
                find_near_duplicates,
                inputs=["train_questions", "test_questions", "other_questions"],
                outputs="near_duplicates",
                name="find_near_duplicates",
            ),
            Node(
                prepare_base_model,
                inputs=["params:base_model", "held_out_hashes", "params:model_cache"],
                outputs="base_model",
                name="prepare_base_model",
            ),
        ],
        namespace="ingest",
        prefix_datasets_with_namespace=False,
        tags="ingest",
    )
