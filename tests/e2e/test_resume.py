"""Killed in the middle, run again: the same result, byte for byte."""

import pytest

pytestmark = pytest.mark.e2e


def weights(project, name):
    return (project.data / f"06_models/smoke/seed_0/{name}/model.safetensors").read_bytes()


def test_kill_9_in_the_middle_of_sampling_and_of_training(finished, fresh):
    """Kill once while the candidates are sampled and once while a variant trains; then let it finish."""
    cache = fresh.data / "04_feature/cache"
    models = fresh.data / "06_models/cache"

    fresh.run_until(lambda: len(list(cache.glob("*/*.parquet"))) >= 1, "--pipelines=ingest,vft_train,sample_cots")
    sampled = len(list(cache.glob("*/*.parquet")))
    assert 1 <= sampled < 4, "killed too late to test anything"
    done = fresh.run("--pipelines=ingest,vft_train,sample_cots,label_and_rank")
    assert done.returncode == 0, done.stderr[-2000:]

    options = ("--pipelines=align_train", "--namespaces=align.aft_bc")
    fresh.run_until(lambda: any(models.glob(".*.partial/checkpoints/checkpoint-3")), *options)
    assert not (fresh.data / "06_models/smoke/seed_0/aft_bc").exists()
    resumed = fresh.run(*options)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "continuing from step 3" in resumed.stderr

    feedback = "05_model_input/smoke/seed_0/feedback.json"
    assert (fresh.data / feedback).read_bytes() == (finished.data / feedback).read_bytes()
    assert weights(fresh, "vft") == weights(finished, "vft")
    assert weights(fresh, "aft_bc") == weights(finished, "aft_bc")
