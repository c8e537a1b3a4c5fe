"""Stage 5: every variant, trained."""

from aft.pipelines.align_train.pipeline import create_pipeline

__all__ = ["create_pipeline"]
