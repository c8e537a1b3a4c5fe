"""The sampling node draws from the model that is asked for, and by whom the sampler says."""

import sys
from pathlib import Path

import pytest

from aft.errors import AftError, SettingsError, StoreError
from aft.models.directory import ModelDirectory
from aft.pipelines.sample_cots.nodes import sample_cots
from aft.pipelines.tables import to_table
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings
from aft.tasks import Question

SAMPLING = SamplingSettings(samples=1, max_new_tokens=4)


def test_samples_lie_at_one_place_wherever_they_are_drawn(
    tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster finds what was drawn without one, though there is no Ray; a server's samples lie apart."""
    monkeypatch.setitem(sys.modules, "ray", None)
    questions, store = to_table(pocket_questions[:2]), str(tmp_path)
    shards = sample_cots(pocket_directory, questions, None, SAMPLING, SamplerSettings(), 0, store)
    cluster = SamplerSettings(cluster=ClusterSettings(workers=2))
    assert sample_cots(pocket_directory, questions, None, SAMPLING, cluster, 0, store) == shards
    assert sample_cots(pocket_directory, questions, str(pocket_directory.path), SAMPLING, cluster, 0, store) == shards
    with pytest.raises(SettingsError, match=r"aft\[ray\]"):
        sample_cots(pocket_directory, questions, None, SAMPLING, cluster, 1, store)
    server = SamplerSettings(engine="server", server=ServerSettings("http://127.0.0.1:1/v1", "vft", retries=0))
    with pytest.raises(StoreError, match=r"The server at http://127\.0\.0\.1:1/v1 cannot be reached"):
        sample_cots(pocket_directory, questions, None, SAMPLING, server, 0, store)


@pytest.mark.parametrize(
    ("sample_from", "told"),
    [
        (5, "sample_from is 5, but must be a model's folder"),
        (True, "sample_from is True, but must be"),
        (["a"], "sample_from is \\['a'\\], but must be"),
        ("", "sample_from is '', but must be"),
        (" ", "sample_from is ' ', but must be"),
        ("x" * 5000, "sample_from is 'x+, but must be"),
        ("no/such/{seed}", "There is no model directory no/such/3"),
        ("\0", "There is no model directory"),
        (__file__, "There is no model directory"),
        (str(Path(__file__).parent), "has no config.json"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_model_is_one_sentence(
    sample_from: str,
    told: str,
    tmp_path: Path,
    pocket_directory: ModelDirectory,
    pocket_questions: list[Question],
) -> None:
    with pytest.raises(AftError, match=told) as caught:
        sample_cots(
            pocket_directory, to_table(pocket_questions), sample_from, SAMPLING, SamplerSettings(), 3, str(tmp_path)
        )
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
