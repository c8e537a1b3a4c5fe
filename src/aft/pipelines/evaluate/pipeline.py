"""VFT and every variant on the same test questions, and the comparison that joins them."""

from kedro.pipeline import Node, Pipeline

from aft.pipelines.evaluate import nodes
from aft.pipelines.variants import BASELINE, VARIANTS, namespace

_NAMES = (BASELINE, *VARIANTS)


def create_pipeline() -> Pipeline:
    """The wiring of `evaluate`."""
    variants = sum((_variant(name) for name in _NAMES), start=Pipeline([]))
    return variants + _groups() + _comparison()


def _variant(name: str) -> Pipeline:
    tags = f"run.accuracy.{name}"
    template = Pipeline(
        [
            Node(
                nodes.identify,
                [
                    *("model", "vft_model", "test_questions", "params:training", "params:objective"),
                    *("params:sampling", "params:labelling", "params:align_from", "params:evaluation", "params:seed"),
                ],
                "identity",
                name=f"identify_{name}",
                tags=tags,
            ),
            Node(
                nodes.generate,
                ["model", "test_questions", "params:evaluation", "params:seed", "params:sample_cache"],
                "generations",
                name=f"generate_{name}",
                tags=tags,
            ),
            Node(
                nodes.predict,
                ["generations", "test_questions", "params:seed", "identity"],
                "predictions",
                name=f"predict_{name}",
                tags=tags,
            ),
            Node(
                nodes.assess,
                [
                    *("model", "assessment_groups", "test_questions"),
                    *("params:evaluation", "params:seed", "identity", "params:score_cache"),
                ],
                "assessment",
                name=f"assess_{name}",
                tags=tags,
            ),
            Node(
                nodes.summarise_variant,
                ["predictions", "assessment", "params:seed", "params:evaluation"],
                "metrics",
                name=f"measure_{name}",
                tags=tags,
            ),
        ]
    )
    shared = {name: name for name in ("vft_model", "test_questions", "assessment_groups")}
    return Pipeline(
        template,
        namespace=namespace(name),
        inputs={**shared, "model": "vft_model"} if name == BASELINE else set(shared),
        parameters={
            "seed",
            "sample_cache",
            "score_cache",
            "evaluation",
            "training",
            "sampling",
            "labelling",
            "align_from",
        },
        tags="evaluate",
    )


def _groups() -> Pipeline:
    return Pipeline(
        [
            Node(
                nodes.build_assessment_groups,
                [f"{namespace(BASELINE)}.generations", "test_questions"],
                "assessment_groups",
                name="build_assessment_groups",
            )
        ],
        namespace="evaluate",
        prefix_datasets_with_namespace=False,
        tags="evaluate",
    )


def _comparison() -> Pipeline:
    assessments = {name: f"{namespace(name)}.assessment" for name in _NAMES}
    tables = {
        f"{name}_{kind}": f"{namespace(name)}.{kind}" for name in _NAMES for kind in ("predictions", "assessment")
    }
    return Pipeline(
        [
            Node(
                nodes.compare,
                {"evaluation": "params:evaluation", "seed": "params:seed", **tables},
                ["comparison", "paired_differences"],
                name="compare",
            ),
            Node(nodes.draw_accuracy, "comparison", "accuracy_figure", name="draw_accuracy"),
            Node(nodes.draw_scores, {"seed": "params:seed", **assessments}, "score_figure", name="draw_scores"),
            Node(
                nodes.draw_training,
                {"comparison": "comparison", **{name: f"{namespace(name)}.training_curve" for name in VARIANTS}},
                "training_figure",
                name="draw_training",
            ),
        ],
        namespace="evaluate",
        prefix_datasets_with_namespace=False,
        tags="evaluate",
    )
