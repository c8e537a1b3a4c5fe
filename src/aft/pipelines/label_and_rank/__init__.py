from aft.pipelines.label_and_rank.pipeline import create_pipeline

__all__ = ["create_pipeline"]
