"""Sampling settings that make no sense are refused in one sentence."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from aft.errors import SettingsError
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"samples": 0}, "samples is 0: it must be at least 1, unless"),
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
        *(
            ({"samples": 1, name: value}, f"{name} is .*: it must be a whole number from {least} up to 1000000")
            for name, least in (
                *dict.fromkeys(("top_k", "max_new_tokens", "block_size", "batch_rows"), 1).items(),
                ("samples", 0),
            )
            for value in (True, 1.5, "3", -1, 99999999999999999999, float("inf"))
        ),
        *(({"samples": None, "greedy": True}, "samples"), ({"samples": True, "greedy": True}, "samples")),
        *(({"samples": 1, "temperature": value}, "temperature") for value in (True, "1", None, float("inf"), 1e300)),
        *(({"samples": 1, "top_p": value}, "top_p") for value in (True, "1", float("inf"), -1e-320)),
        ({"samples": 1, "precision": "float16"}, "precision is 'float16': .* It should be 'float32' or 'bfloat16'"),
    ],
)
def test_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        SamplingSettings(**wrong)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("extreme", [{"temperature": 1e-300}, {"temperature": 1000}, {"top_p": 1e-320}, {"top_p": 1}])
def test_what_makes_sense_however_extreme_is_allowed(extreme: dict[str, Any]) -> None:
    """Of these test_draws.py tells what they draw."""
    assert SamplingSettings(samples=1_000_000, top_k=1_000_000, **extreme).samples == 1_000_000


def test_greedy_alone_is_allowed() -> None:
    assert SamplingSettings(samples=0, greedy=True).samples == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: ClusterSettings(workers=0), "workers"),
        (lambda: ClusterSettings(workers=1, cpus_per_worker=0), "cpus_per_worker"),
        (lambda: ClusterSettings(workers=1, gpus_per_worker=-1), "gpus_per_worker"),
        (lambda: ClusterSettings(workers=1, gpus_per_worker=float("nan")), "gpus_per_worker"),
        *(
            (partial(ClusterSettings, **{"workers": 1, name: value}), f"{name} is .*: it must be a whole number from 1")
            for name in ("workers", "cpus_per_worker")
            for value in (True, 1.5, "2", None, 10**20)
        ),
        *(
            (
                partial(ClusterSettings, **{"workers": 1, "gpus_per_worker": value}),
                "gpus_per_worker (is .*: it )?must be a",
            )
            for value in (True, "1", None, 1e-300, 1.5, 1e300, float("inf"))
        ),
        *((partial(ClusterSettings, **{"workers": 1, "address": value}), "address must be") for value in ("", 5)),
        (lambda: SamplerSettings(engine="remote"), "engine is 'remote': it should be 'local' or 'server'"),  # type: ignore[arg-type]
        (lambda: ServerSettings("http://localhost/v1", "m", timeout_s=True), "timeout_s"),
        (lambda: ServerSettings("http://localhost/v1", "m", retries=10**20), "retries"),
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


def test_unknown_keys_are_refused_at_every_depth() -> None:
    given = {"engine": "server", "server": {"base_url": "http://localhost/v1", "model": "m"}, "cluster": {"workers": 2}}
    known = SamplerSettings(**given)  # type: ignore[arg-type]
    assert known.server is not None and (known.server.model, known.server.concurrency) == ("m", 64)
    assert known.cluster is not None and known.cluster.workers == 2
    for key in ("server", "cluster"):
        with pytest.raises(SettingsError, match=f"There is no parameter 'sampler.{key}.worker_s'"):
            SamplerSettings(**{**given, key: {**given[key], "worker_s": 1}})  # type: ignore[arg-type]
