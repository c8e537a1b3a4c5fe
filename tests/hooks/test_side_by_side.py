"""Which nodes of the pipelines are run before their turn, when, and by how many processes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.pipeline import Pipeline

from aft.directories import announce, announced
from aft.hooks.side_by_side import SideBySideHook
from aft.pipeline_registry import register_pipelines
from aft.sampling.settings import ClusterSettings, SamplerSettings, ServerSettings
from aft.training.settings import Launch

CHAIN = {"generate", "generate_other", "identify", "assess"}
VARIANTS = ("rft", "aft", "aft_dc", "aft_bc")
FROM_VFT = {"sample_cots", "label_and_rank", "generate_vft", "generate_other_vft", "identify_vft"}
FROM_FEEDBACK = {f"{kind}_{name}" for kind in ("train", "generate", "generate_other", "identify") for name in VARIANTS}


class Crew:
    """Notes what it is asked for."""

    def __init__(self, shares: Sequence[Any], rooms: Any, needed: Any) -> None:
        self.processes, self.asked, self.values, self.told, self.closed = len(shares), [], {}, {"a warning"}, False
        self.made: set[str] = set()
        self.learnt: dict[str, Any] = {}

    def add(self, nodes: Sequence[Any], values: dict[str, Any]) -> None:
        self.asked += [node.name.rpartition(".")[-1] for node in nodes]
        self.values |= values

    def turn_of(self, node: Any) -> bool:
        return node.name in self.made

    def learn(self, outputs: dict[str, Any]) -> None:
        self.learnt |= outputs

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def whole() -> Pipeline:
    return register_pipelines()["__default__"]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Begin a run on a machine of eight cores, come to the node of this name, and let it make something."""
    monkeypatch.setattr("aft.hooks.side_by_side.Crew", Crew)
    monkeypatch.setattr("aft.hooks.side_by_side.visible_devices", list)
    monkeypatch.setattr("aft.hooks.side_by_side.usual_jobs", lambda: 8)
    monkeypatch.setattr("aft.hooks.side_by_side._NEEDED", ())
    started: list[SideBySideHook] = []

    def at(pipeline: Pipeline, name: str, missing: Sequence[str] = (), **parameters: Any) -> SideBySideHook:
        hook, catalog = SideBySideHook(), catalog_of(parameters, missing)
        started.append(hook)
        hook.before_pipeline_run(pipeline, catalog)  # type: ignore[arg-type]
        come_to(hook, pipeline, name)
        announce()
        return hook

    yield at
    for hook in started:
        hook.on_pipeline_error()


def catalog_of(parameters: dict[str, Any], missing: Sequence[str] = ()) -> SimpleNamespace:
    """Every dataset is there and holds its own name, but for those whose names have such a part."""
    return SimpleNamespace(
        load=lambda name: parameters if name == "parameters" else name,
        exists=lambda name: not any(part in name for part in missing),
    )


def come_to(hook: SideBySideHook, pipeline: Pipeline, name: str) -> None:
    """Go through the nodes up to that of this name."""
    for node in hook._rest:
        hook.before_node_run(node, {})
        if node.name.rpartition(".")[-1] == name:
            return
        hook.after_node_run(node, dict.fromkeys(node.outputs))
    raise AssertionError(name)


def test_while_vft_is_trained_nothing_runs_beside_it_but_what_follows_is_waiting(start, whole):
    crew = start(whole, "train_vft")._crew
    assert {*crew.asked} == FROM_VFT | FROM_FEEDBACK
    assert "vft_model" not in crew.values and crew.values["train_questions"] == "train_questions"


def test_every_variant_waits_with_all_that_follows_from_it(start, whole):
    """They read VFT's groups, which are there; a second thing that is made asks for nothing twice."""
    hook = start(whole, "train_aft")
    chains = {f"{kind}_{name}" for kind in CHAIN for name in VARIANTS}
    trained = {f"train_{name}" for name in VARIANTS} - {"train_aft"}
    assert {*hook._crew.asked} == chains | trained | {"assess_vft"}
    assert hook._crew.values["assessment_groups"] == "assessment_groups"
    announce()
    assert len(hook._crew.asked) == len({*hook._crew.asked})


def test_what_another_node_has_to_make_of_it_first_is_not_run_beforehand(start, whole):
    """The groups that are assessed, which are made from VFT's answers in this process."""
    assert {*start(whole, "sample_cots")._crew.asked} == (FROM_VFT | FROM_FEEDBACK) - {"sample_cots"}


def test_figures_and_pages_are_drawn_beforehand_from_what_the_catalog_has(start, whole):
    """As soon as all tables are there, and not from what a node gives, which is of one seed."""
    hook = start(whole, "train_vft")
    come_to(hook, whole, "measure_vft")
    pages = {"draw_scores_binary", "draw_reliability_binary", "write_answers_binary"}
    assert not pages & {*hook._crew.asked}
    come_to(hook, whole, "write_report_binary")
    pages |= {"compare_binary", "draw_accuracy_binary", "draw_training_binary"}
    assert pages - {*hook._crew.asked} <= {"draw_accuracy_binary", "draw_training_binary"}
    assert not any(name.endswith(("training_curve", "assessment")) for name in hook._crew.learnt)


@pytest.mark.parametrize("node", ["load_questions", "prepare_base_model"])
def test_before_there_is_a_choice_no_process_is_started(start, whole, node):
    assert start(whole, node)._crew is None


def test_where_vft_is_missing_processes_are_started_at_once_and_begin_with_it(start, whole):
    """Their imports take seconds, and until VFT is trained there is nothing else to do."""
    assert start(whole, "load_questions", missing=["vft_model"])._crew.asked == []
    assert {*start(whole, "train_vft", missing=["vft_model"])._crew.asked} == FROM_VFT | FROM_FEEDBACK | {"train_vft"}


def test_that_vft_is_to_be_trained_elsewhere_is_announced_once_it_is_under_way(whole, start):
    """Whoever listens may have to wait, as for MLflow."""
    hook = start(whole, "load_questions", missing=["vft_model"])
    with announced(lambda: hook._crew.asked.append("announced")):
        come_to(hook, whole, "train_aft")
    assert hook._crew.asked[0] == "train_vft" and hook._crew.asked.count("announced") == 1


def test_where_vft_is_there_no_process_is_started_at_once(start, whole):
    assert start(whole, "load_questions", missing=["aft.model", "aft_dc.model"])._crew is None


def test_for_vft_alone_no_process_is_started_at_once(start):
    assert start(register_pipelines()["vft_train"], "train_vft", missing=["vft_model"])._crew is None


@pytest.mark.parametrize("names", [("vft_train",), ("vft_train", "sample_cots")])
def test_for_nodes_that_follow_one_from_another_no_process_is_started(start, names):
    pipelines = register_pipelines()
    assert start(sum((pipelines[name] for name in names), Pipeline([])), "train_vft")._crew is None


def test_a_run_that_makes_nothing_starts_no_process(start, whole):
    hook = SideBySideHook()
    hook.before_pipeline_run(whole, catalog_of({}))  # type: ignore[arg-type]
    come_to(hook, whole, "train_rft")
    assert hook._crew is None
    hook.after_pipeline_run()


@pytest.mark.parametrize(
    "parameters",
    [
        {"parallel": 1},
        {"launch": Launch(processes=2)},
        {"launch": Launch(sharding="full")},
        {"sampler": SamplerSettings(cluster=ClusterSettings(workers=2))},
    ],
)
def test_where_processes_work_together_already_there_are_no_others(start, whole, parameters):
    assert start(whole, "train_aft", **parameters)._crew is None


def test_a_server_that_draws_samples_is_asked_in_its_turn(start, whole):
    server = ServerSettings(base_url="http://localhost:1/v1", model="vft")
    asked = SamplerSettings(engine="server", server=server)
    assert start(whole, "train_vft", sampler=asked)._crew is None
    assert start(whole, "train_aft", sampler=asked)._crew is not None


@pytest.mark.parametrize(("parallel", "processes"), [("auto", 5), (2, 2), (3, 3), (64, 5)])
def test_there_are_as_many_processes_as_asked_for_but_no_more_than_variants(start, whole, parallel, processes):
    """This one is among them."""
    assert start(whole, "train_aft", parallel=parallel)._crew.processes == processes - 1


def test_samples_and_labels_are_of_no_variant(start, whole):
    """Where they are made anew, what follows is waiting; five variants are as many processes, this one among them."""
    assert start(whole, "sample_cots")._crew.processes == 4


def test_a_record_that_cannot_be_read_is_left_to_logging(start, whole):
    start(whole, "train_aft")
    record = logging.LogRecord("any", logging.WARNING, "", 0, "no place for it", (FutureWarning,), None)
    assert logging.getLogger().handlers[0].filter(record)


def test_what_was_told_beforehand_is_not_told_again_and_the_end_closes_all(start, whole):
    hook, seen = start(whole, "train_aft"), []
    crew = hook._crew
    record = logging.LogRecord("aft.any", logging.INFO, "", 0, "a summary", None, None)
    assert logging.getLogger().handlers[0].filter(record)  # of a node that this process runs before its turn
    crew.made = {node.name for node in whole.nodes if node.name.endswith("train_rft")}
    handler = logging.getLogger().handlers[0]
    come_to(hook, whole, "train_rft")
    for name, level, message in (
        ("aft.directories", logging.INFO, "Reusing"),
        ("aft.directories", logging.WARNING, "new"),
        ("aft.any", logging.WARNING, "a warning"),
        ("aft.any", logging.INFO, "a summary"),
    ):
        record = logging.LogRecord(name, level, "", 0, message, None, None)
        seen.append((message, bool(handler.filter(record))))
    assert seen == [("Reusing", False), ("new", True), ("a warning", False), ("a summary", False)]
    hook.on_pipeline_error()
    assert crew.closed and handler.filter(
        logging.LogRecord("aft.directories", logging.INFO, "", 0, "Reusing", None, None)
    )


def test_every_attribute_of_a_hook_can_be_read_before_the_first_run() -> None:
    """As releases of pluggy before 1.7 do when they look for a plugin's hooks, properties among them."""
    from aft.settings import HOOKS

    for hook in (SideBySideHook(), *HOOKS):
        for name in dir(hook):
            getattr(hook, name)
