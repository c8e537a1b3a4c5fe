"""Stage 4: feedback on the samples."""

from aft.pipelines.label_and_rank.pipeline import create_pipeline

__all__ = ["create_pipeline"]
