"""The project's pipelines: the six stages, and all of them in a row as the default."""

from kedro.pipeline import Pipeline

from aft.pipelines import align_train, evaluate, ingest, label_and_rank, sample_cots, vft_train

STAGES = {
    "ingest": ingest,
    "vft_train": vft_train,
    "sample_cots": sample_cots,
    "label_and_rank": label_and_rank,
    "align_train": align_train,
    "evaluate": evaluate,
}


def register_pipelines() -> dict[str, Pipeline]:
    """Every stage by its name, and `__default__`: all stages."""
    stages = {name: module.create_pipeline() for name, module in STAGES.items()}
    return {**stages, "__default__": sum(stages.values(), start=Pipeline([]))}
