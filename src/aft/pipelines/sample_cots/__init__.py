"""Stage 3: chains of thought from the VFT model."""

from aft.pipelines.sample_cots.pipeline import create_pipeline

__all__ = ["create_pipeline"]
