"""Two runs that would write the same result: the second is refused; all others go on side by side."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from aft.cache import refuse_while_running
from aft.errors import StoreError
from aft.hooks.run_lock import RunLockHook
from aft.locks import CLEANING, LOCKS, locked

TABLE = "aft.catalog.atomic.AtomicParquetDataset"


def catalog_of(data: Path, seed: int, label: str = "pocket") -> DataCatalog:
    """What the project's catalog says of five kinds of results."""
    files = {
        "questions": f"03_primary/{label}/train_questions.parquet",
        "align.aft.model": f"06_models/{label}/seed_{seed}/aft",
        "align.rft.model": f"06_models/{label}/seed_{seed}/rft",
        "score_figure": f"08_reporting/{label}/scores_seed_{seed}.png",
    }
    config: dict[str, Any] = {name: {"type": TABLE, "filepath": str(data / path)} for name, path in files.items()}
    config["align.aft.predictions"] = {
        "type": "aft.catalog.table_partitions.TablePartitionsDataset",
        "path": str(data / f"07_model_output/{label}/predictions/aft"),
    }
    catalog = DataCatalog.from_config(config)
    catalog["parameters"] = MemoryDataset({"seed": seed, "label": label, "recipe": "pocket"})
    return catalog


def begin(data: Path, *outputs: str, seed: int = 0, label: str = "pocket", base: str = "pocket") -> RunLockHook:
    """A run that writes these outputs, as far as the hook takes part in it."""
    hook = RunLockHook()
    config = {"globals": {"data": data.name}, "parameters": {"base_model": {"source": base}}}
    hook.after_context_created(SimpleNamespace(project_path=data.parent, config_loader=config))  # type: ignore[arg-type]
    pipeline = Pipeline([Node(lambda: None, None, name, name=name.replace(".", "_")) for name in outputs])
    hook.before_pipeline_run(pipeline, catalog_of(data, seed, label))
    return hook


@pytest.mark.parametrize("output", ["align.aft.model", "score_figure", "align.aft.predictions"])
def test_a_second_run_of_the_same_result_is_refused_until_the_first_has_ended(output: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for ended in (RunLockHook.after_pipeline_run, RunLockHook.on_pipeline_error):
        first = begin(data, "questions", output)
        with pytest.raises(StoreError, match="Another run") as caught:
            begin(data, output, "align.rft.model")
        told = str(caught.value)
        assert f"{output} of pocket, seed 0;" in told and told.endswith(".") and "\n" not in told
        begin(data, "align.rft.model").after_pipeline_run()  # the refused run holds nothing
        ended(first)


@pytest.mark.parametrize(
    "other",
    [
        {"outputs": ("align.aft.model",), "seed": 1},
        {"outputs": ("align.aft.model",), "seed": 10},
        {"outputs": ("align.aft.model",), "label": "short"},
        {"outputs": ("align.rft.model",)},
        {"outputs": ("questions",)},
        {"outputs": ("align.aft.predictions", "score_figure"), "seed": 1},
    ],
    ids=str,
)
def test_other_runs_go_on_side_by_side(other: dict[str, Any], tmp_path: Path) -> None:
    """Of another seed, label or variant; and where what does not depend on the seed is written, they wait."""
    everything = ("questions", "align.aft.model", "align.aft.predictions", "score_figure")
    hooks = [begin(tmp_path / "data", *everything), begin(tmp_path / "data", *other.pop("outputs"), **other)]
    for hook in hooks:
        hook.after_pipeline_run()


def test_a_run_of_another_seed_with_another_base_model_is_refused(tmp_path: Path) -> None:
    """It would replace the one that the first run goes on to read; under a label of its own it replaces nothing."""
    first = begin(tmp_path / "data", "align.aft.model")
    with pytest.raises(StoreError, match="Another run of pocket is going on with other questions or another base"):
        begin(tmp_path / "data", "align.aft.model", seed=1, base="other")
    begin(tmp_path / "data", "align.aft.model", seed=1, base="other", label="mine").after_pipeline_run()
    first.after_pipeline_run()
    begin(tmp_path / "data", "align.aft.model", seed=1, base="other").after_pipeline_run()


@pytest.mark.usefixtures("impatient")
def test_one_run_at_a_time_writes_a_comparison(tmp_path: Path) -> None:
    """Of two seeds; the second waits, here in vain, and goes on when the first has ended."""
    hooks = [begin(tmp_path / "data", "align.aft.model", seed=seed) for seed in (0, 1)]
    node = Node(lambda: None, None, "align.compare.binary.comparison", name="compare", namespace="align.compare.binary")
    name, file = node.outputs[0], tmp_path / "data/08_reporting/pocket/binary/comparison.csv"
    catalog = DataCatalog.from_config({name: {"type": TABLE, "filepath": str(file)}})
    hooks[0].before_node_run(node, catalog)
    hooks[0].before_node_run(node, catalog)
    with pytest.raises(StoreError, match="Another run is making the comparison binary of pocket"):
        hooks[1].before_node_run(node, catalog)
    hooks[0].after_pipeline_run()
    hooks[1].before_node_run(node, catalog)
    hooks[1].after_pipeline_run()


def test_the_data_folder_may_be_reached_in_two_ways(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("data")
    first = begin(tmp_path / "data", "align.aft.model")
    with pytest.raises(StoreError, match="Another run"):
        begin(tmp_path / "link", "align.aft.model")
    first.after_pipeline_run()


def test_an_interrupted_run_in_the_same_process_is_no_obstacle(tmp_path: Path) -> None:
    """Ctrl-C in a notebook: no hook is called, and the next run begins with the same hooks."""
    hook = begin(tmp_path / "data", "align.aft.model")
    pipeline = Pipeline([Node(lambda: None, None, "align.aft.model", name="train")])
    hook.before_pipeline_run(pipeline, catalog_of(tmp_path / "data", 0))
    hook.after_pipeline_run()


def test_a_killed_run_is_no_obstacle(tmp_path: Path, start_python: Callable[..., Any]) -> None:
    code = """
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("test_run_lock", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
hook = module.begin(Path(sys.argv[2]), "align.aft.model")
print("begun", flush=True)
time.sleep(600)
"""
    process = start_python(code, __file__, tmp_path / "data")
    assert process.stdout.readline() == "begun\n"
    with pytest.raises(StoreError, match="Another run"):
        begin(tmp_path / "data", "align.aft.model")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    begin(tmp_path / "data", "align.aft.model").after_pipeline_run()


@pytest.mark.parametrize("output", ["questions", "align.aft.model"])
def test_nothing_is_cleaned_up_while_any_run_goes_on(output: str, tmp_path: Path) -> None:
    """Also one that writes only what does not depend on the seed; several are seen each."""
    data = tmp_path / "data"
    for ended in (RunLockHook.after_pipeline_run, RunLockHook.on_pipeline_error):
        first, second = begin(data, output), begin(data, "questions")
        for hook in (first, second):
            with pytest.raises(StoreError, match="Another run"):
                refuse_while_running(data)
            ended(hook)
        refuse_while_running(data)
        assert not list((data / LOCKS).glob("run_*")), "nothing is left of them"


def test_no_run_begins_while_someone_cleans_up(tmp_path: Path, impatient: None) -> None:
    with locked(tmp_path / "data" / LOCKS / CLEANING), pytest.raises(StoreError, match="room in the caches"):
        begin(tmp_path / "data", "questions")
    begin(tmp_path / "data", "questions").after_pipeline_run()
