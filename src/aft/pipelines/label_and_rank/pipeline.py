"""Candidates become feedback: labels, ratings, ranks, and counts of what there is."""

from kedro.pipeline import Node, Pipeline

from aft.pipelines.label_and_rank.nodes import label_and_rank


def create_pipeline() -> Pipeline:
    """The wiring of `label_and_rank`."""
    return Pipeline(
        [
            Node(
                label_and_rank,
                inputs=[
                    *("candidates", "train_questions", "params:labelling", "params:seed"),
                    *("params:rating_cache", "params:sample_cache", "params:sampler"),
                ],
                outputs=["feedback", "feedback_summary"],
                name="label_and_rank",
            )
        ],
        namespace="label_and_rank",
        prefix_datasets_with_namespace=False,
        tags="label_and_rank",
    )
