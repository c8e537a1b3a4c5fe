"""The project's pipelines: the six stages, all of them in a row as the default, each comparison, and every variant.

Which variants and comparisons there are is configuration: that of the last context which was made (`follow`), or, where
nobody made one (`kedro registry list`), the project's own in the environment of `KEDRO_ENV`.
"""

import os
from functools import lru_cache
from pathlib import Path

from kedro.config import AbstractConfigLoader
from kedro.framework.project import pipelines, settings
from kedro.pipeline import Pipeline
from kedro.utils import find_kedro_project

from aft.alignment.variants import BASELINE
from aft.pipelines import align_train, evaluate, ingest, label_and_rank, sample_cots, vft_train
from aft.pipelines.comparisons import Plan, plan_of
from aft.pipelines.evaluate.pipeline import measurements

STAGES = ("ingest", "vft_train", "sample_cots", "label_and_rank", "align_train", "evaluate")
_followed: list[AbstractConfigLoader] = []  # one at most


def follow(loader: AbstractConfigLoader) -> None:
    """Have the pipelines registered again, when they are asked for next, by the configuration that `loader` reads."""
    _followed[:] = [loader]
    pipelines.configure(__name__)


def register_pipelines() -> dict[str, Pipeline]:
    """Every stage by its name, every comparison by its own, `variants`: every variant trained and measured, and
    `__default__`: the comparison that the configuration names under `compare`, whose variants the stages concern.

    Raises `SettingsError` if the configuration of variants and comparisons is refused, see `plan_of`.
    """
    loader = (
        _followed[0]
        if _followed
        else settings.CONFIG_LOADER_CLASS(
            str((find_kedro_project(Path.cwd()) or Path.cwd()) / settings.CONF_SOURCE),
            env=os.environ.get("KEDRO_ENV"),
            **settings.CONFIG_LOADER_ARGS,
        )
    )
    return dict(_pipelines(plan_of(loader["parameters"], taken=(*STAGES, "variants", "__default__"))))


@lru_cache(maxsize=8)
def _pipelines(plan: Plan) -> dict[str, Pipeline]:
    """Kept, since a study makes a context for each of its runs."""
    common = {
        "ingest": ingest.create_pipeline(),
        "vft_train": vft_train.create_pipeline(),
        "sample_cots": sample_cots.create_pipeline(),
        "label_and_rank": label_and_rank.create_pipeline(),
    }
    compared = {name: _comparison(name, variants) for name, variants in plan.comparisons}
    stages = {**common, **compared[plan.compare]}
    every = Pipeline(
        [*common.values(), align_train.create_pipeline(plan.variants), measurements((BASELINE, *plan.variants))]
    )
    whole = {name: Pipeline([*common.values(), *own.values()]) for name, own in compared.items()}
    return {**stages, **whole, "variants": every, "__default__": whole[plan.compare]}


def _comparison(name: str, variants: tuple[str, ...]) -> dict[str, Pipeline]:
    """The last two stages, of the variants of a comparison."""
    return {
        "align_train": align_train.create_pipeline(variants),
        "evaluate": evaluate.create_pipeline(name, variants),
    }
