"""The project's pipelines: the six stages, and all of them in a row as the default, and every variant."""

from kedro.pipeline import Pipeline

from aft.pipelines import align_train, evaluate, ingest, label_and_rank, sample_cots, vft_train
from aft.pipelines.evaluate.pipeline import measurements
from aft.pipelines.variants import BASELINE, VARIANTS

STAGES = {
    "ingest": ingest,
    "vft_train": vft_train,
    "sample_cots": sample_cots,
    "label_and_rank": label_and_rank,
    "align_train": align_train,
    "evaluate": evaluate,
}


def register_pipelines() -> dict[str, Pipeline]:
    """Every stage by its name, `variants`: every variant trained and measured, and `__default__`: all stages."""
    stages = {name: module.create_pipeline() for name, module in STAGES.items()}
    common = (stages[name] for name in ("ingest", "vft_train", "sample_cots", "label_and_rank"))
    trained = align_train.create_pipeline(VARIANTS)
    variants = sum(common, start=trained + measurements((BASELINE, *VARIANTS)))
    return {**stages, "variants": variants, "__default__": sum(stages.values(), start=Pipeline([]))}
