"""Stage 1: questions and the base model."""

from aft.pipelines.ingest.pipeline import create_pipeline

__all__ = ["create_pipeline"]
