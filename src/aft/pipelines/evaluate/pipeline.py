"""VFT and every variant on the same test questions, and the comparison that joins them."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from kedro.pipeline import Node, Pipeline

from aft.alignment.variants import BASELINE
from aft.pipelines.comparisons import dataset, namespace, space_of_comparison
from aft.pipelines.evaluate import nodes, report

_SETTINGS = (  # what measuring a variant reads that all share
    *("seed", "sample_cache", "score_cache", "evaluation", "training", "sampling", "sampler", "labelling"),
    *("sample_from", "candidates_from"),
)


def create_pipeline(comparison: str, variants: Sequence[str]) -> Pipeline:
    """The wiring of `evaluate`: what is measured of the variants, and the comparison of this name."""
    return Pipeline([measurements(variants), _comparison(comparison, variants)])


def measurements(variants: Sequence[str]) -> Pipeline:
    """What is measured of each variant, VFT's held-out groups included."""
    return Pipeline([_groups(), *(_variant(name) for name in variants)])


@cache  # a variant may be in every comparison
def _variant(name: str) -> Pipeline:
    tags = f"run.accuracy.{name}"
    template = Pipeline(
        [
            Node(
                nodes.identify,
                [
                    *("model", "vft_model", "train_questions", "test_questions", "other_questions"),
                    *("params:training", "params:objective", "params:sampling", "params:sampler", "params:labelling"),
                    *("params:sample_from", "params:candidates_from", "params:evaluation", "params:seed"),
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
                [*nodes.KINDS, "params:seed", "params:evaluation", "params:score_cache"],
                "metrics",
                name=f"measure_{name}",
                tags=tags,
            ),
        ]
    )
    questions = ("train_questions", "test_questions", "other_questions")
    shared = {name: name for name in ("vft_model", *questions, "assessment_groups")}
    return Pipeline(
        template,
        namespace=namespace(name),
        inputs={**shared, "model": dataset(name, "model")},
        outputs={kind: dataset(name, kind) for kind in template.all_outputs()},
        parameters={**{key: key for key in _SETTINGS}, "objective": f"align.{name}.objective"},
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
                [dataset(BASELINE, "generations"), "test_questions"],
                "assessment_groups",
                name="build_assessment_groups",
            )
        ],
        namespace=namespace(BASELINE),
        prefix_datasets_with_namespace=False,
        tags="evaluate",
    )


def _comparison(comparison: str, variants: Sequence[str]) -> Pipeline:
    """Nodes under their full names: a template, which has no namespace, could not read datasets of several."""
    space = space_of_comparison(comparison)
    own = {name: f"{space}.{name}" for name in ("comparison", "paired_differences", *report.FIGURES)}
    evaluation, table = {"evaluation": "params:evaluation"}, own["comparison"]
    seed, recipe, place = {"seed": "params:seed"}, {"recipe": "params:recipe"}, {"score_cache": "params:score_cache"}
    drawn = {"align": "params:align", **place}

    def of_all(kind: str) -> dict[str, str]:
        return {f"{kind}.{name}": dataset(name, kind) for name in variants}

    def node(function: Callable[..., Any], inputs: str | dict[str, str], outputs: str | list[str]) -> Node:
        name = f"{function.__name__}_{comparison}"
        return Node(function, inputs, outputs, name=name, namespace=space, tags="evaluate")

    tables = {key: name for kind in nodes.KINDS for key, name in of_all(kind).items()}
    answers = {**recipe, **seed, **place, "test_questions": "test_questions", **of_all("predictions")}
    made_from = ("parameters", "feedback_summary", "base_model", "train_questions", "test_questions")
    asked = {"task": "raw_questions", "test_sets": "raw_test_sets"}
    reported = {**own, **{name: name for name in made_from}, **asked, **recipe, **evaluation, **of_all("model")}
    return Pipeline(
        [
            node(nodes.compare, {**evaluation, **seed, **place, **tables}, [table, own["paired_differences"]]),
            node(nodes.draw_accuracy, {"comparison": table, **drawn}, own["accuracy_figure"]),
            node(nodes.draw_scores, {**seed, **drawn, **of_all("assessment")}, own["score_figure"]),
            node(nodes.draw_reliability, {**seed, **drawn, **of_all("predictions")}, own["reliability_figure"]),
            node(
                nodes.draw_training, {"comparison": table, **drawn, **of_all("training_curve")}, own["training_figure"]
            ),
            node(report.write_report, reported, f"{space}.report"),
            node(report.write_answers, answers, f"{space}.answers"),
        ]
    )
