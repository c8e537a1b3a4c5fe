"""Sampling settings that make no sense are refused in one sentence."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from aft.errors import SettingsError
from aft.pipelines.parameters import Sampler
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"samples": 0}, "samples"),
        ({"samples": -1, "greedy": True}, "samples"),
        ({"samples": 1, "temperature": 0.0}, "temperature"),
        ({"samples": 1, "temperature": -1.0}, "temperature"),
        ({"samples": 1, "temperature": float("nan")}, "temperature"),
        ({"samples": 1, "top_k": 0}, "top_k"),
        ({"samples": 1, "top_p": 0.0}, "top_p"),
        ({"samples": 1, "top_p": 1.1}, "top_p"),
        ({"samples": 1, "top_p": float("nan")}, "top_p"),
        ({"samples": 1, "max_new_tokens": 0}, "max_new_tokens"),
        ({"samples": 1, "block_size": 0}, "block_size"),
        ({"samples": 1, "batch_rows": 0}, "batch_rows"),
    ],
)
def test_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        SamplingSettings(**wrong)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_greedy_alone_is_allowed() -> None:
    assert SamplingSettings(samples=0, greedy=True).samples == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: ClusterSettings(workers=0), "workers"),
        (lambda: ClusterSettings(workers=1, cpus_per_worker=0), "cpus_per_worker"),
        (lambda: ClusterSettings(workers=1, gpus_per_worker=-1), "gpus_per_worker"),
        (lambda: ClusterSettings(workers=1, gpus_per_worker=float("nan")), "gpus_per_worker"),
        (lambda: ServerSettings("ftp://localhost", "m"), "base_url"),
        (lambda: ServerSettings("http://localhost/v1", "m", concurrency=0), "concurrency"),
        (lambda: SamplerSettings(engine="server"), r"set sampler\.server\.base_url"),
        (lambda: SamplerSettings(server=ServerSettings("http://localhost/v1", "m")), "set sampler.engine to server"),
    ],
)
def test_refused_of_the_sampler(wrong: Callable[[], object], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        wrong()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_the_checked_twin_refuses_unknown_keys_at_every_depth() -> None:
    given = {"engine": "server", "server": {"base_url": "http://localhost/v1", "model": "m"}, "cluster": {"workers": 2}}
    known = TypeAdapter(Sampler).validate_python(given)
    assert known.server is not None and (known.server.model, known.server.concurrency) == ("m", 64)
    assert known.cluster is not None and known.cluster.workers == 2
    for key in ("server", "cluster"):
        with pytest.raises(ValidationError, match="worker_s"):
            TypeAdapter(Sampler).validate_python({**given, key: {**given[key], "worker_s": 1}})  # type: ignore[dict-item]
