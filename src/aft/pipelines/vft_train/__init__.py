"""Stage 2: the VFT model."""

from aft.pipelines.vft_train.pipeline import create_pipeline

__all__ = ["create_pipeline"]
