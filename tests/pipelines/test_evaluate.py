"""Where the variants answer, and what becomes of questions that are too long to be answered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.evaluation.compare import comparison_table
from aft.evaluation.predictions import measure
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


def test_test_questions_that_are_too_long_are_wrong_and_counted(
    tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question], caplog: pytest.LogCaptureFixture
) -> None:
    """Two of six, from generation to the figures: in accuracy, maj@k and the other sets, for two variants alike."""
    asked = [
        replace(one, question=one.question * 60, split="validation" if i % 2 else "ood") if i < 2 else one
        for i, one in enumerate(pocket_questions[:6])
    ]
    questions = to_table(asked)
    evaluation = Evaluation(Sampling(samples=2, greedy=True, max_new_tokens=24), ks=[2], resamples=10)
    shards = nodes.generate(pocket_directory, questions, evaluation, Sampler(), 0, str(tmp_path))
    greedy = nodes.generate_others(pocket_directory, questions, evaluation, Sampler(), 0, str(tmp_path))
    generations, others = (
        pd.concat([pd.read_parquet(shard) for shard in paths], ignore_index=True) for paths in (shards, greedy)
    )
    predicted = nodes.predict(generations, questions, 0, "id")["seed_0"]
    assert "2 of 6 questions were too long to be answered and count as wrong." in caplog.text
    tables = nodes.predict_others(others, questions, {"seed_0": lambda: predicted}, questions, 0, "id")["seed_0"]
    assert tables.groupby("set").size().to_dict() == {"ood": 1, "train": 4, "validation": 1}
    groups = nodes.build_assessment_groups(generations, questions)
    assert set(groups["question_id"]) == {one.question_id for one in asked[2:]}
    # The random model is never right: as if it were wherever it answered, all shares are 4 of 6.
    answered, groups = predicted["score"].notna(), groups.assign(score=-1.0)
    right = predicted.assign(is_correct=answered, extracted_answer=answered.map({True: "1", False: None}))
    figures = measure(right, groups, [2], others=tables)
    assert figures["questions_without_response"] == 2
    assert {figures[name] for name in ("accuracy", "maj_at_2", "pass_at_2", "best_of_2")} == {4 / 6}
    assert (figures["accuracy_ood"], figures["accuracy_validation"]) == (0.0, 0.0)
    by_seed = {"vft": {0: predicted}, "aft": {0: right}}
    table = comparison_table(by_seed, {name: {0: groups} for name in by_seed}, [2], "vft", 0.95, 10)
    assert table["questions"].tolist() == [6, 6] and table["questions_without_response"].tolist() == [2, 2]
    assert table["accuracy"].tolist() == [0.0, 4 / 6] and table["difference"].iloc[1] == pytest.approx(4 / 6)
