"""Where the variants answer, and over which seeds they are compared."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.models.directory import ModelDirectory
from aft.pipelines.evaluate import nodes
from aft.pipelines.parameters import Cluster, Evaluation, Sampler, Sampling, Server
from aft.pipelines.tables import to_table
from aft.sampling.settings import SamplerSettings
from aft.tasks import Question

ON_TWO = Sampler(cluster=Cluster(workers=2))
SERVED = Sampler(engine="server", server=Server(base_url="http://127.0.0.1:1", model="other"), cluster=ON_TWO.cluster)


@pytest.mark.parametrize(("sampler", "used"), [(ON_TWO, ON_TWO), (SERVED, SamplerSettings())])
def test_variants_answer_on_the_cluster_unless_a_server_has_another_model(
    sampler: Sampler,
    used: SamplerSettings,
    pocket_directory: ModelDirectory,
    pocket_questions: list[Question],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("aft.sampling.run.sample_responses", lambda *given: asked.append(given[-1]))
    evaluation = Evaluation(Sampling(samples=1, greedy=True), ks=[1], level=0.95, resamples=10)
    questions: pd.DataFrame = to_table(pocket_questions)
    for answer in (nodes.generate, nodes.generate_others):
        answer(pocket_directory, questions, evaluation, sampler, 0, str(tmp_path))
    assert asked == [used, used]


EVALUATION = Evaluation(Sampling(samples=1, greedy=True), ks=[1], level=0.5, resamples=1)


def _tables(right: list[bool]) -> dict[str, pd.DataFrame]:
    """What evaluate keeps of one variant and seed, whose answers to a, b, c … are right or wrong."""
    answers = [
        {"question_id": question, "sample_index": index, "extracted_answer": "7", "is_correct": flag, "score": -1.0}
        for question, flag in zip("abcdef", right, strict=False)
        for index in (-1, 0)
    ]
    groups = [
        {"question_id": question, "sample_index": kind, "is_correct": kind == 0, "score": -1.0 * (flag == (kind == 1))}
        for question, flag in zip("abcdef", right, strict=False)
        for kind in (0, 1)
    ]
    predicted, assessed = (pd.DataFrame(rows).assign(identity="same") for rows in (answers, groups))
    kinds = (predicted, assessed, predicted.assign(set="other")[:0])
    return dict(zip(nodes.KINDS, kinds, strict=True))


def _partitions(seeds: dict[str, dict[int, list[bool]]]) -> dict[str, nodes.Partitions]:
    """The partitions of every variant that a plain run compares: those of rft unless they are given."""
    found: dict[str, nodes.Partitions] = {}
    for name in (nodes.BASELINE, *nodes.COMPARED):
        tables = {seed: _tables(right) for seed, right in seeds.get(name, seeds["rft"]).items()}
        for kind in nodes.KINDS:
            own = {f"seed_{seed}": (lambda table=rows[kind]: table) for seed, rows in tables.items()}
            found[f"{name}_{kind}"] = own
    return found


def test_a_comparison_is_over_the_seeds_that_all_variants_have(caplog: pytest.LogCaptureFixture) -> None:
    """aft lacks seed 1, under which all others have everything right: it says nothing here."""
    half = [True, False]
    partitions = _partitions({"rft": {0: half, 1: [True, True]}, "aft": {0: half}})
    with caplog.at_level(logging.WARNING):
        table, paired = nodes.compare(EVALUATION, 0, **partitions)
    assert set(table["seeds"]) == {"0"} and set(table["accuracy"]) == {0.5}
    assert set(paired["shared_seeds"]) == {"0"}
    assert "Compared over seed 0 only" in caplog.text and "vft of seed 1" in caplog.text
    assert " aft of seed" not in caplog.text


def test_variants_of_the_same_seeds_are_compared_over_all_of_them(caplog: pytest.LogCaptureFixture) -> None:
    table, _ = nodes.compare(EVALUATION, 0, **_partitions({"rft": {1: [True, True], 0: [True, False]}}))
    assert set(table["seeds"]) == {"0 1"} and set(table["accuracy"]) == {0.75}
    assert "Compared over" not in caplog.text


def test_level_and_resamples_reach_the_figures_of_a_seed() -> None:
    """Of one resample both ends of the bootstrap are one point; half of Wilson's 95 % would be wider."""
    kinds = _tables([True, False, True, True])
    kept: list[nodes.Partitions] = [{"seed_3": lambda table=table: table} for table in kinds.values()]
    figures = nodes.summarise_variant(*kept, seed=3, evaluation=EVALUATION)
    assert figures["assessment_accuracy_low"] == figures["assessment_accuracy_high"]
    assert figures["accuracy_high"] - figures["accuracy_low"] < 0.35
