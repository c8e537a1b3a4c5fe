"""Where the variants answer."""

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
