"""Which cells are run again: those of which something has changed that decides their results; and which never."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kedro.framework.project import pipelines

from aft import tasks
from aft.errors import ModelError, SettingsError, StoreError
from aft.feedback.judge_settings import JudgeSettings
from aft.models.directory import ModelDirectory
from aft.models.pocket import Architecture
from aft.pipeline_registry import register_pipelines
from aft.pipelines.parameters import BaseModel, Evaluation, Labelling, PocketBase
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings, ServerSettings
from aft.studies import cell, run
from aft.studies.definition import Study, Sweep
from aft.studies.marks import changed as changed_of
from aft.studies.marks import mark_of
from aft.studies.plan import Cell, points_of
from aft.tasks.pocket import Corpus
from aft.training.settings import Launch, Objective, TrainingSettings

PARAMS: dict[str, Any] = {
    **{"seed": 0, "recipe": "r", "model_cache": "cache", "sample_cache": "c", "score_cache": "c", "rating_cache": "c"},
    "task": {"family": "multitask", "settings": {"gsm8k": {"path": "questions"}, "ecqa": {"path": None}}},
    "test_sets": {"svamp": {"family": "svamp", "settings": {"path": "more"}}},
    "base_model": BaseModel("model", pocket=PocketBase(Corpus(), Architecture(), TrainingSettings(1, 0.1, 1))),
    "training": TrainingSettings(epochs=4, learning_rate=0.1, batch_size=1),
    "launch": Launch(),
    **{"sample_from": "round/seed_{seed}/aft", "candidates_from": "rollouts_{seed}"},
    "sampling": SamplingSettings(samples=6),
    "sampler": SamplerSettings("server", ServerSettings("http://a/v1", "m")),
    "labelling": Labelling(judge="file", ratings_file="ratings_{seed}.csv", openai=JudgeSettings("http://a/v1", "m")),
    "evaluation": Evaluation(SamplingSettings(samples=6, greedy=True), ks=[1]),
    "align": {name: {"objective": Objective()} for name in ("vft", "aft", "rrhf")},
}


def changed(value: Any, path: list[str], to: Any) -> Any:
    """Nested settings, of which the one under `path` is another."""
    if not path:
        return to
    name, *rest = path
    if isinstance(value, dict):
        return {**value, name: changed(value[name], rest, to)}
    return replace(value, **{name: changed(getattr(value, name), rest, to)})


class Place:
    """A project whose cells are as quickly made as noted."""

    asked: dict[str, Any] | None = None  # in the catalog, where it differs from the parameters

    def __init__(self, project: Path, model: Path) -> None:
        self.project, self.params, self.made = project, PARAMS, []
        for name in ("questions", "more"):
            (project / name).mkdir()
            (project / name / "train.jsonl").write_text("{}\n", encoding="utf-8")
        for name in ("model", "round/seed_0/aft", "round/seed_1/aft"):
            shutil.copytree(model, project / name)
        for seed in (0, 1):
            (project / f"ratings_{seed}.csv").write_text("question_id,sample_index,rating\n", encoding="utf-8")
            (project / f"rollouts_{seed}").mkdir()

    def context(self, label: str, seed: int, params: dict[str, Any]) -> Any:
        asked = {"raw_questions": self.asked or self.params["task"], "raw_test_sets": self.params["test_sets"]}
        catalog = {name: {"asked": value} for name, value in asked.items()}
        params = {**self.params, "label": label, "seed": seed}
        return SimpleNamespace(params=params, config_loader={"catalog": catalog})

    def folder(self, cell: Cell) -> Path:
        return self.project / "reports" / f"seed_{cell.seed}"

    def set(self, key: str, value: Any) -> None:
        self.params = changed(self.params, key.split("."), value)

    def run(self) -> list[tuple[int, tuple[str, ...]]]:
        """The cells that are run, each with what is made of it."""
        self.made.clear()
        cells = [Cell("r.study", {}, seed, ("vft", "aft")) for seed in (0, 1)]
        run.run_cells(cast(run.Workplace, self), cells, 1, None)
        return self.made


@pytest.fixture
def place(tmp_path: Path, pocket_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A project in which both cells are finished."""
    project = Place(tmp_path, pocket_directory.path)

    def make(_: Any, cell: Cell, missing: Any, folder: Path, *others: Any) -> bool:
        project.made.append((cell.seed, tuple(missing)))
        (folder / "metrics").mkdir(parents=True, exist_ok=True)
        for name in missing:
            (folder / "metrics" / f"{name}.json").write_text("{}", encoding="utf-8")
        return False

    monkeypatch.setattr(run, "_run", make)
    assert len(project.run()) == 2
    return project


ALL = [(0, ("vft", "aft")), (1, ("vft", "aft"))]


def test_other_questions_in_the_catalog_are_seen(place: Place) -> None:
    """And those in the files that it names."""
    place.asked = {"family": "gsm8k", "settings": {"path": str(place.project / "more")}}
    assert place.run() == ALL
    assert place.run() == []
    (place.project / "more/train.jsonl").write_text("{}{}\n", encoding="utf-8")
    assert place.run() == ALL


def test_what_is_finished_is_not_run_again(place: Place) -> None:
    assert place.run() == []


@pytest.mark.parametrize("folder", ["questions", "more"])
def test_other_questions_in_the_same_folder_run_all_again(
    place: Place, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    (place.project / folder / "train.jsonl").write_text('{"question": "Another one?"}\n', encoding="utf-8")
    key = {"questions": "task.settings.gsm8k.path", "more": "test_sets.svamp.settings.path"}[folder]
    with caplog.at_level(logging.INFO):
        assert place.run() == ALL
    assert f"r.study, seed 1: aft is made again; not as before: what {key} holds." in caplog.text
    assert place.run() == []


def test_other_ratings_of_a_seed_run_that_seed_again(place: Place) -> None:
    (place.project / "ratings_1.csv").write_text("question_id,sample_index,rating\nq,0,7\n", encoding="utf-8")
    assert place.run() == ALL[1:]


def test_other_rollouts_of_a_seed_run_that_seed_again(place: Place) -> None:
    (place.project / "rollouts_1" / "more.jsonl").write_text("{}\n", encoding="utf-8")
    assert place.run() == ALL[1:]


@pytest.mark.parametrize(("folder", "again"), [("model", ALL), ("round/seed_0/aft", ALL[:1])])
def test_another_model_in_the_same_folder_runs_again_what_starts_or_samples_from_it(
    place: Place, folder: str, again: list[tuple[int, tuple[str, ...]]]
) -> None:
    (place.project / folder / "generation_config.json").write_text('{"eos_token_id": 2}', encoding="utf-8")
    assert place.run() == again


def test_a_folder_that_is_no_whole_model_is_named_before_anything_runs(place: Place) -> None:
    for weights in (place.project / "model").glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ModelError, match=r"has no .*safetensors"):
        place.run()


def test_the_model_of_an_earlier_round_may_be_deleted_when_all_is_finished(place: Place) -> None:
    shutil.rmtree(place.project / "round")
    assert place.run() == []


def test_other_code_runs_all_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aft.studies.marks.source_hash", lambda *rooms: " ".join(rooms))
    assert place.run() == ALL


def test_a_release_that_changes_no_result_runs_nothing_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "__version__", "99", raising=False)
    assert place.run() == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("training.token_budget", 9), ("training.scoring", "naive"), ("training.checkpoint_every", 2)),
        *(("training.monitor_every", None), ("training.gradient_checkpointing", True)),
        *(("base_model.pocket.training.token_budget", 9), ("launch.processes", 2), ("model_cache", "elsewhere")),
        *(("sampling.batch_rows", 9), ("sampling.block_size", 9), ("evaluation.sampling.batch_rows", 9)),
        *(("sampler.cluster", ClusterSettings(workers=2)), ("sampler.server.base_url", "http://b/v1")),
        *(("labelling.openai.base_url", "http://b/v1"), ("align.rrhf.objective.weight", 2.0)),
    ],
)
def test_how_and_where_it_is_computed_runs_nothing_again(place: Place, key: str, value: Any) -> None:
    place.set(key, value)
    assert place.run() == []


@pytest.mark.parametrize(
    ("key", "value", "again"),
    [
        *(("training.epochs", 5, ALL), ("sampling.samples", 7, ALL), ("test_sets", {}, ALL)),
        *(("sampler.server.model", "n", ALL), ("evaluation.level", 0.9, ALL)),
        ("align.aft.objective.weight", 2.0, [(0, ("aft",)), (1, ("aft",))]),
    ],
)
def test_what_decides_runs_again_what_it_decides(place: Place, key: str, value: Any, again: list[Any]) -> None:
    place.set(key, value)
    assert place.run() == again


def test_the_code_of_an_own_family_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = tmp_path / "own_family_of_studies" / "asked.py"
    family.parent.mkdir()
    family.write_text("from aft.tasks.gsm8k import *\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    asked = {"family": "own_family_of_studies.asked", "settings": {}}

    def mark() -> dict[str, str]:
        return mark_of({**PARAMS, "test_sets": {"own": asked}}, "aft", 0, lambda path, is_model: None)

    before = mark()
    family.write_text("from aft.tasks.gsm8k import *\nLIMIT = 2\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"studies\.asked' has changed since this run began \(asked\.py\)"):
        mark()  # what is in memory is the family of before
    monkeypatch.setattr(tasks, "_imported", {})  # another process
    assert changed_of(before, mark()) == ["code of own_family_of_studies.asked"]


@pytest.mark.parametrize("content", ["[]", '{"vft": "3f9a"}', "{"])
def test_marks_that_are_none_of_ours_are_as_no_marks(place: Place, content: str) -> None:
    (place.project / "reports/seed_0/finished.json").write_text(content, encoding="utf-8")
    assert place.run() == ALL[:1]


class Recipe(run.Workplace):
    """A recipe whose settings are all the known ones and those of the study."""

    def context(self, label: str | None = None, seed: int = 0, params: dict[str, Any] | None = None) -> Any:
        catalog = {"raw_questions": {"asked": PARAMS["task"]}, "raw_test_sets": {"asked": PARAMS["test_sets"]}}
        return SimpleNamespace(params={**PARAMS, "label": label, **(params or {})}, config_loader={"catalog": catalog})


def test_a_sweep_over_a_setting_that_nothing_reads_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "_content", register_pipelines(), raising=False)
    monkeypatch.setattr(pipelines, "_is_data_loaded", True, raising=False)
    place = Recipe(tmp_path, None, None)
    known, unknown = (Study("T", "Q", ["aft"], [0], sweep=Sweep(key, [4], "k")) for key in ("sampling", "samplings"))
    place.check(known, points_of(known, "r", "data"))
    with pytest.raises(SettingsError, match="no parameter 'samplings': did you mean 'sampling'"):
        place.check(unknown, points_of(unknown, "r", "data"))


def test_the_accuracy_on_each_dataset_of_a_multitask_can_be_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers are a set of their own, as those to a further test set are (`predict_others`)."""
    monkeypatch.setattr(run, "check_known", lambda params: None)
    place = Recipe(tmp_path, None, None)
    known, unknown = (Study("T", "Q", ["aft"], [0], figures=[f"accuracy_{name}"]) for name in ("ecqa", "aqua_rat"))
    place.check(known, points_of(known, "r", "data"))
    with pytest.raises(SettingsError, match=r"reports accuracy_aqua_rat; there are .*accuracy_gsm8k, accuracy_svamp"):
        place.check(unknown, points_of(unknown, "r", "data"))


class Elsewhere(Place):
    """A project whose cells are processes."""

    env = conf_source = None

    def shown(self, path: Path) -> Path:
        return path.relative_to(self.project)


@pytest.fixture
def run_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the process of cells run a shell script in the place of Python."""

    def use(script: str) -> None:
        (tmp_path / "python").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    return use


@pytest.mark.parametrize(("status", "gaps"), [(0, 0), (cell.UNTRACKED, 2)])
def test_cells_whose_record_has_gaps_are_finished_and_counted(
    status: int, gaps: int, tmp_path: Path, pocket_directory: ModelDirectory, run_instead: Callable[[str], None]
) -> None:
    run_instead(f"echo from an import\nwhile read order; do echo {cell.ENDED}{status}; done")
    place = Elsewhere(tmp_path, pocket_directory.path)
    cells = [Cell("r.study", {}, seed, ("aft",)) for seed in (0, 1)]
    assert run.run_cells(cast(run.Workplace, place), cells, 1, None) == gaps
    assert all((place.folder(one) / "finished.json").is_file() for one in cells)


def test_a_cell_whose_record_has_gaps_is_recorded_by_the_next_run(
    tmp_path: Path, pocket_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is computed is in the caches. Without MLflow nothing is run for its sake."""
    place, cells, ran = Elsewhere(tmp_path, pocket_directory.path), [Cell("r.study", {}, 0, ("aft",))], []

    def make(_: Any, one: Cell, missing: Any, folder: Path, *others: Any) -> bool:
        ran.append(one.seed)
        (folder / "metrics").mkdir(parents=True, exist_ok=True)
        (folder / "metrics/aft.json").write_text("{}", encoding="utf-8")
        return len(ran) == 1  # the first time MLflow was away

    monkeypatch.setattr(run, "_run", make)
    with caplog.at_level(logging.INFO):
        gaps = [run.run_cells(cast(run.Workplace, place), cells, 1, parent) for parent in ("id", None, "id", "id")]
    assert (gaps, ran) == ([1, 0, 0, 0], [0, 0])
    assert "r.study, seed 0: aft is made again; not as before: its record in MLflow." in caplog.text


def test_cells_that_run_at_once_have_a_gpu_each(
    tmp_path: Path, pocket_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four cells on two GPUs: none is on one where another runs, and both are used."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    busy, used, meeting = set[str](), list[str](), Barrier(2, timeout=20)

    def make(_: Any, cell: Cell, missing: Any, folder: Path, worker: Any):
        device = worker.variables["CUDA_VISIBLE_DEVICES"]
        assert device not in busy and worker.variables["AFT_PARENT_RUN"] == "id"
        busy.add(device)
        meeting.wait()
        used.append(device)
        busy.discard(device)
        meeting.wait()

    monkeypatch.setattr(run, "_run", make)
    place = Place(tmp_path, pocket_directory.path)
    cells = [Cell("r.study", {}, seed, ("aft",)) for seed in (0, 1, 2, 3)]
    run.run_cells(cast(run.Workplace, place), cells, 2, "id")
    assert sorted(used) == ["2", "2", "GPU-5", "GPU-5"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("read order; echo Error: It broke. >&2; exit 0", "its process ended with 0."),
        (f"printf words; read order; echo Error: It broke. >&2; echo; echo {cell.ENDED}1; read order", "It broke."),
        ("kill -9 $$", "its process was killed by signal 9."),
    ],
)
def test_a_process_that_ends_before_its_cell_and_a_cell_that_fails_name_the_log(
    script: str, told: str, tmp_path: Path, pocket_directory: ModelDirectory, run_instead: Callable[[str], None]
) -> None:
    """No other cell is begun."""
    run_instead(f"echo . >> started\n{script}")
    place = Elsewhere(tmp_path, pocket_directory.path)
    cells = [Cell("r.study", {}, seed, ("aft",)) for seed in (0, 1, 2)]
    with pytest.raises(run.CellError, match=f"r.study, seed 0, failed: {told} Its log is reports/seed_0/study_log.txt"):
        run.run_cells(cast(run.Workplace, place), cells, 1, None)
    assert (tmp_path / "started").read_text("utf-8") == ".\n"
    assert not any((place.folder(one) / run._LOG).exists() for one in cells[1:])


def test_a_process_that_has_ended_between_two_cells_is_started_again(
    tmp_path: Path, pocket_directory: ModelDirectory, run_instead: Callable[[str], None]
) -> None:
    run_instead(f"echo . >> started\nread order\necho {cell.ENDED}0")
    place = Elsewhere(tmp_path, pocket_directory.path)
    worker = run._Worker(tmp_path, {})
    one = Cell("r.study", {}, 0, ("aft",))
    for _ in range(2):
        assert run._run(cast(run.Workplace, place), one, {"aft": {}}, place.folder(one), worker) is False
        assert worker._process is not None and worker._process.wait(20) == 0
    worker.end()
    assert (tmp_path / "started").read_text("utf-8") == ".\n.\n"
    with pytest.raises(run.CellError, match=r"failed: the study was stopped\. Its log"):
        run._run(cast(run.Workplace, place), one, {"aft": {}}, place.folder(one), worker)


def test_a_trial_is_finished_when_its_curve_is_there(place: Place) -> None:
    """It has no metrics, and needs none."""
    trial = [Cell("r.study", {}, 1, ("vft",), "training_curve")]
    curve = place.folder(trial[0]).parent / "training_curves/vft/seed_1.parquet"
    asked = (cast(run.Workplace, place), trial, 1, None)
    place.made.clear()
    run.run_cells(*asked)
    assert place.made == [(1, ("vft",))]
    curve.parent.mkdir(parents=True)
    curve.touch()
    run.run_cells(*asked)
    assert place.made == [(1, ("vft",))]


def test_a_context_is_made_once_for_a_label_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study asks for it when it checks its settings, looks for what is missing, and reads results."""
    given: list[dict[str, Any]] = []

    @contextmanager
    def create(*_: Any, runtime_params: dict[str, Any], **others: Any) -> Iterator[Any]:
        given.append(runtime_params)
        yield SimpleNamespace(load_context=object)

    monkeypatch.setattr(run.KedroSession, "create", create)
    place, params = run.Workplace(tmp_path, None, None), {"training.epochs": 4}
    first = place.context("r.study", 1, params)
    assert place.context("r.study", 1, params) is first
    assert place.context("r.study", 2, params) is not first
    assert given == [{"training": {"epochs": 4}, "seed": seed, "label": "r.study"} for seed in (1, 2)]
