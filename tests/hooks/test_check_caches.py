"""A cache at a place where nothing can be kept is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from aft.cache import CACHES
from aft.errors import AftError, SettingsError
from aft.hooks.check_caches import CheckCachesHook
from aft.locks import PATIENCE


def check(parameters: dict[str, Any], *read: str) -> None:
    pipeline = Pipeline([Node(lambda *_: None, [f"params:{name}" for name in read], "model", name="train")])
    CheckCachesHook().before_pipeline_run(pipeline, DataCatalog({"parameters": MemoryDataset(parameters)}))


@pytest.mark.parametrize("value", ["/dev/null", "/proc/x", "/etc/passwd", "", 5])
@pytest.mark.parametrize("name", CACHES)
def test_a_place_that_cannot_be_one_is_named(name: str, value: Any, tmp_path: Path) -> None:
    usual = {cache: str(tmp_path / cache) for cache in CACHES}
    check(usual, *CACHES)
    with pytest.raises(AftError, match=f"^{name} "):
        check({**usual, name: value}, *CACHES)


def test_a_cache_that_the_run_does_not_use_is_left_alone(tmp_path: Path) -> None:
    check({"model_cache": str(tmp_path / "models"), "rating_cache": "/dev/null"}, "model_cache")


def test_a_patience_that_is_none_is_found_before_there_is_a_lock_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "for ever")
    with pytest.raises(SettingsError, match=PATIENCE):
        check({}, "seed")
