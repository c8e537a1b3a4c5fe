"""VFT and every variant on the same test questions, and the comparison that joins them."""

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from aft.pipelines.evaluate import nodes, report
from aft.pipelines.variants import BASELINE, COMPARED, namespace

_NAMES = (BASELINE, *COMPARED)


def create_pipeline() -> Pipeline:
    """The wiring of `evaluate`: the variants that a plain run compares, and their comparison."""
    return measurements(_NAMES) + _comparison()


def measurements(variants: Sequence[str]) -> Pipeline:
    """What is measured of each variant, VFT's held-out groups included."""
    return sum((_variant(name) for name in variants), start=_groups())


def _variant(name: str) -> Pipeline:
    tags = f"run.accuracy.{name}"
    template = Pipeline(
        [
            Node(
                nodes.identify,
                [
                    *("model", "vft_model", "test_questions", "other_questions", "params:training", "params:objective"),
                    *("params:sampling", "params:sampler", "params:labelling", "params:sample_from"),
                    *("params:evaluation", "params:seed"),
                ],
                "identity",
                name=f"identify_{name}",
                tags=tags,
            ),
            *_answers(name, tags),
            Node(
                nodes.assess,
                [
                    *("model", "assessment_groups", "test_questions"),
                    *("params:evaluation", "params:training", "params:seed", "identity", "params:score_cache"),
                ],
                "assessment",
                name=f"assess_{name}",
                tags=tags,
            ),
            Node(
                nodes.summarise_variant,
                [*nodes.KINDS, "params:seed", "params:evaluation"],
                "metrics",
                name=f"measure_{name}",
                tags=tags,
            ),
        ]
    )
    shared = {name: name for name in ("vft_model", "test_questions", "other_questions", "assessment_groups")}
    return Pipeline(
        template,
        namespace=namespace(name),
        inputs={**shared, "model": "vft_model"} if name == BASELINE else set(shared),
        parameters={
            *("seed", "sample_cache", "score_cache", "evaluation", "training", "sampling", "sampler", "labelling"),
            "sample_from",
        },
        tags="evaluate",
    )


def _answers(name: str, tags: str) -> list[Node]:
    """The variant's answers to the test questions and to the other sets, and their labels."""
    sets = (
        ("", "test_questions", nodes.generate, nodes.predict, []),
        ("other_", "other_questions", nodes.generate_others, nodes.predict_others, ["predictions", "test_questions"]),
    )
    return [
        node
        for prefix, questions, generate, predict, more in sets
        for node in (
            Node(
                generate,
                ["model", questions, "params:evaluation", "params:sampler", "params:seed", "params:sample_cache"],
                f"{prefix}generations",
                name=f"generate_{prefix}{name}",
                tags=tags,
            ),
            Node(
                predict,
                [f"{prefix}generations", questions, *more, "params:seed", "identity"],
                f"{prefix}predictions",
                name=f"predict_{prefix}{name}",
                tags=tags,
            ),
        )
    ]


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
    def of_all(kind: str, suffix: str = "") -> dict[str, str]:
        return {f"{name}{suffix}": f"{namespace(name)}.{kind}" for name in _NAMES}

    tables = {key: dataset for kind in nodes.KINDS for key, dataset in of_all(kind, f"_{kind}").items()}
    seed = {"seed": "params:seed"}
    return Pipeline(
        [
            Node(
                nodes.compare,
                {"evaluation": "params:evaluation", **seed, **tables},
                ["comparison", "paired_differences"],
                name="compare",
            ),
            Node(nodes.draw_accuracy, "comparison", "accuracy_figure", name="draw_accuracy"),
            Node(nodes.draw_scores, {**seed, **of_all("assessment")}, "score_figure", name="draw_scores"),
            Node(
                nodes.draw_reliability,
                {**seed, **of_all("predictions")},
                "reliability_figure",
                name="draw_reliability",
            ),
            Node(
                nodes.draw_training,
                {"comparison": "comparison", **{name: f"{namespace(name)}.training_curve" for name in COMPARED}},
                "training_figure",
                name="draw_training",
            ),
            Node(
                report.write_report,
                {
                    "comparison": "comparison",
                    "paired": "paired_differences",
                    "feedback_summary": "feedback_summary",
                    "parameters": "parameters",
                    "recipe": "params:recipe",
                    "evaluation": "params:evaluation",
                    **{figure: figure for figure in report.FIGURES},
                    **of_all("model", "_model"),
                    "vft_model": "vft_model",
                    "base_model": "base_model",
                    "train_questions": "train_questions",
                    "test_questions": "test_questions",
                },
                "report",
                name="write_report",
            ),
        ],
        namespace="evaluate",
        prefix_datasets_with_namespace=False,
        tags="evaluate",
    )
