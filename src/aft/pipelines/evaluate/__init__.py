"""Stage 6: every variant, measured and compared."""

from aft.pipelines.evaluate.pipeline import create_pipeline

__all__ = ["create_pipeline"]
