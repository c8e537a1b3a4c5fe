"""The VFT model answers every training question k times, or its answers come from a file."""

from kedro.pipeline import Node, Pipeline

from aft.pipelines.sample_cots.nodes import sample_cots


def create_pipeline() -> Pipeline:
    """The wiring of `sample_cots`."""
    return Pipeline(
        [
            Node(
                sample_cots,
                inputs=[
                    *("vft_model", "train_questions", "params:sample_from", "params:sampling", "params:sampler"),
                    *("params:seed", "params:sample_cache", "params:candidates_from", "held_out_hashes"),
                ],
                outputs="candidates",
                name="sample_cots",
            )
        ],
        namespace="sample_cots",
        prefix_datasets_with_namespace=False,
        tags="sample_cots",
    )
