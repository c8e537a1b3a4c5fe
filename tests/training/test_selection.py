"""Which epoch's weights become the model: by validation, the same after an interruption, under a key of its own."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aft import tasks
from aft.code import deciding
from aft.errors import SettingsError, StoreError
from aft.files import digest
from aft.models.adapters import ADAPTER, LoraSettings
from aft.models.directory import ModelDirectory
from aft.models.shipped import shipped_model
from aft.sampling.run import sample_responses
from aft.sampling.settings import SamplingSettings
from aft.tasks import Question, pocket
from aft.training import checkpoints, loop, run, selection
from aft.training.examples import Example, build_examples
from aft.training.job import Job
from aft.training.run import TrainedModel, train
from aft.training.selection import ACCURACY, Exam, best_epoch, is_over
from aft.training.settings import Objective, TrainingSettings

CHOSEN = TrainingSettings(epochs=4, learning_rate=3e-3, batch_size=8, checkpoint_every=2, select="validation")
SPLITS = pocket.load_questions(pocket.Settings(train=20, validation=20, test=1))  # three steps per epoch
EXAM = Exam(SPLITS["validation"], max_new_tokens=60, batch_rows=20)
TIMED = {"tokens_per_s", "validation_seconds"}


def curve_of(*accuracies: float, per_epoch: int = 3) -> list[dict[str, float]]:
    """A curve whose epochs are that accurate."""
    rows = [{"step": float(step)} for step in range(1, per_epoch * len(accuracies) + 1)]
    for number, accuracy in enumerate(accuracies, start=1):
        rows[number * per_epoch - 1][ACCURACY] = accuracy
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    return shipped_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def examples(base: ModelDirectory) -> list[Example]:
    return build_examples(SPLITS["train"], [], base.tokenizer(), Objective(), 512)


@pytest.fixture(scope="module")
def whole(base: ModelDirectory, examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """The run without an interruption."""
    place = tmp_path_factory.mktemp("whole")
    return train(base, Job(examples, CHOSEN, Objective(), 5, "train vft", exam=EXAM), place)


@pytest.fixture
def trained(base: ModelDirectory, examples: list[Example], tmp_path: Path) -> Any:
    def trained(settings: TrainingSettings = CHOSEN, exam: Exam | None = EXAM, place: str = "models") -> TrainedModel:
        return train(base, Job(examples, settings, Objective(), 5, "train vft", exam=exam), tmp_path / place)

    return trained


@pytest.fixture
def accuracies(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the epochs of a run answer so well, whatever they answer; the weights at each of these moments."""

    def given(*values: float) -> list[dict[str, torch.Tensor]]:
        rest, seen = iter(values), []

        def examine(model: Any, *_: Any) -> dict[str, float]:
            seen.append({name: weights.detach().clone() for name, weights in model.named_parameters()})
            return dict(zip(selection.COLUMNS, (next(rest), 7.0, 0.1), strict=True))

        monkeypatch.setattr(selection, "examine", examine)
        return seen

    return given


def without_times(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMED} for row in curve]


def weights_of(model: TrainedModel) -> bytes:
    return (model.directory.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("accuracies", "step"),
    [((0.2, 0.5, 0.4), 6), ((0.5, 0.5, 0.4), 3), ((0.1, 0.5, 0.5), 6), ((0.0, 0.0), 3), ((0.1, 0.2, 0.3), 9)],
)
def test_the_best_epoch_is_the_first_of_the_highest(accuracies: tuple[float, ...], step: int) -> None:
    best = best_epoch(curve_of(*accuracies))
    assert best is not None and best["step"] == step
    assert best_epoch([{"step": 1.0}]) is None


@pytest.mark.parametrize(
    ("accuracies", "patience", "over"),
    [
        ((0.5, 0.4), 1, True),
        ((0.5, 0.5), 1, True),  # as good is no better
        ((0.5, 0.4), 2, False),
        ((0.5, 0.4, 0.45), 2, True),  # better than the one before, not than the best
        ((0.5, 0.4, 0.6), 2, False),
        ((0.5,), 1, False),
        ((0.5, 0.4, 0.3), None, False),
    ],
)
def test_training_is_over_after_so_many_epochs_without_a_better_one(
    accuracies: tuple[float, ...], patience: int | None, over: bool
) -> None:
    curve = curve_of(*accuracies)
    assert is_over(curve, patience) is over
    assert not is_over([*curve, {"step": len(curve) + 1.0}], patience), "only at the end of an epoch"


def test_every_epoch_answers_as_the_finished_model_of_so_many_epochs_does(
    trained: Any, whole: TrainedModel, tmp_path: Path
) -> None:
    """The accuracy of the last epoch is that of the stored model under the sampling engine; the curve really varies."""
    curve = {row["step"]: row[ACCURACY] for row in whole.curve if ACCURACY in row}
    assert list(curve) == [3, 6, 9, 12] and len(set(curve.values())) > 1
    last = trained(dataclasses.replace(CHOSEN, select="last"), place="last")
    greedy = SamplingSettings(samples=0, greedy=True, max_new_tokens=60)
    assert curve[12] == share_right(last.directory, greedy, tmp_path / "last")
    assert max(curve.values()) == share_right(whole.directory, greedy, tmp_path / "best")


def share_right(model: ModelDirectory, settings: SamplingSettings, store: Path) -> float:
    import pandas as pd

    shards = sample_responses(model, EXAM.questions, settings, 0, store, "answer")
    answers = pd.concat([pd.read_parquet(shard) for shard in shards])["response"]
    right = [pocket.extract_answer(text) == one.answer for text, one in zip(answers, EXAM.questions, strict=True)]
    return sum(right) / len(right)


@pytest.mark.parametrize("best", [1, 2, 4])
def test_the_weights_of_the_best_epoch_become_the_model(best: int, trained: Any, accuracies: Any) -> None:
    """Those that were examined then, to the last bit; all steps are made, and stand in the curve."""
    seen = accuracies(*(float(number == best) for number in range(1, 5)))
    chosen = trained()
    assert [row["step"] for row in chosen.curve] == list(range(1, 13)) and len(seen) == 4
    found = {name: weights.clone() for name, weights in chosen.directory.model().named_parameters()}
    same = [all(torch.equal(found[name], its) for name, its in weights.items()) for weights in seen]
    assert same == [number == best for number in range(1, 5)]


def test_patience_ends_training_and_the_disk_holds_best_and_last(
    trained: Any, accuracies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[set[int]] = []
    finish = checkpoints.finish

    def watched(staged: Path, final: Path, *kept: Any) -> None:
        finish(staged, final, *kept)
        held.append({checkpoints.step_of(path) for path in final.parent.glob("checkpoint-*")})

    monkeypatch.setattr(checkpoints, "finish", watched)
    accuracies(0.1, 0.4, 0.4, 0.3, 0.9, 0.9)
    settings = dataclasses.replace(CHOSEN, epochs=6, patience=2, checkpoint_every=100)
    model = trained(settings)
    assert [row["step"] for row in model.curve] == list(range(1, 13)), "the fifth epoch is never reached"
    assert held == [{3}, {6}, {6, 9}]
    assert not [path for path in model.directory.path.rglob("*") if "checkpoint" in path.name]


def test_where_training_ends_within_an_epoch_an_epoch_ends(trained: Any, accuracies: Any) -> None:
    accuracies(0.1, 0.2)
    curve = trained(dataclasses.replace(CHOSEN, max_steps=4)).curve
    assert [row["step"] for row in curve if ACCURACY in row] == [3, 4]


@pytest.mark.parametrize("call", [2, 4, 9, 12])
def test_an_interrupted_run_selects_what_an_uninterrupted_one_does(
    call: int, trained: Any, whole: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in an epoch, and after each: the same weights and curve to the last bit."""
    calls, one_pass = itertools.count(1), loop._one_pass

    def stopped(*args: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return one_pass(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_one_pass", stopped)
        trained(place="stopped")
    resumed = trained(place="stopped")
    assert weights_of(resumed) == weights_of(whole)
    assert without_times(resumed.curve) == without_times(whole.curve)


def test_a_checkpoint_whose_best_epoch_is_damaged_is_passed_over(tmp_path: Path, caplog: Any) -> None:
    """It could not give the model any more: the run begins where it still can."""

    def write(step: int, *accuracies: float) -> Path:
        staged = tmp_path / f".checkpoint-{step}.partial"
        staged.mkdir()
        (staged / checkpoints.STATE).write_text(json.dumps({"curve": curve_of(*accuracies)}), encoding="utf-8")
        checkpoints.finish(staged, checkpoints.at(tmp_path, step), tuple(tmp_path.glob("checkpoint-*")))
        return checkpoints.at(tmp_path, step)

    first, second = write(3, 0.5), write(6, 0.5, 0.4)
    assert checkpoints.latest(tmp_path) == second
    (first / checkpoints.STATE).write_text("{}", encoding="utf-8")
    assert checkpoints.latest(tmp_path) is None
    assert "checkpoint-6 is incomplete" in caplog.text


def test_validation_decides_the_key_only_where_it_selects(trained: Any, accuracies: Any) -> None:
    """Other questions, answers or lengths give another model; how many are answered at a time does not."""
    accuracies(*[0.5] * 40)
    other = [dataclasses.replace(EXAM.questions[0], answer="999"), *EXAM.questions[1:]]
    changes = ({"questions": other}, {"questions": EXAM.questions[1:]}, {"max_new_tokens": 59}, {"batch_rows": 3})
    names = [trained(exam=dataclasses.replace(EXAM, **one)).directory.path.name for one in changes]
    own = trained().directory.path.name
    assert [name == own for name in names] == [False, False, False, True]
    last = dataclasses.replace(CHOSEN, select="last")
    assert trained(last, None).directory == trained(last).directory
    assert "validation" not in trained(last).directory.made_from


def test_settings_from_before_selection_have_the_keys_they_had() -> None:
    """Such as the pretrained base model's, which ships under one."""
    last = dataclasses.replace(CHOSEN, select="last")
    assert not {"select", "patience"} & deciding(last).keys()
    both = dataclasses.replace(CHOSEN, patience=2)
    assert (deciding(both)["select"], deciding(both)["patience"]) == ("validation", 2)
    assert digest(deciding(CHOSEN)) != digest(deciding(last))


@pytest.mark.parametrize(("room", "selecting"), [("sampling", True), ("tasks", True), ("evaluation", False)])
def test_the_code_that_answers_is_in_the_key_where_it_selects(room: str, selecting: bool, edit_code: Any) -> None:
    from aft.code import source_hash
    from aft.training.job import rooms_of

    before = [source_hash(*rooms_of(exam)) for exam in (EXAM, None)]
    edit_code(room)
    after = [source_hash(*rooms_of(exam)) for exam in (EXAM, None)]
    assert [one != other for one, other in zip(before, after, strict=True)] == [selecting, False]


def test_what_cannot_be_is_refused(trained: Any) -> None:
    with pytest.raises(SettingsError, match="set select to validation"):
        dataclasses.replace(CHOSEN, select="last", patience=2)
    for exam in (None, dataclasses.replace(EXAM, questions=[])):
        with pytest.raises(SettingsError, match="there are no validation questions; set it to last"):
            trained(exam=exam)


def test_a_question_that_is_asked_otherwise_is_another_exam() -> None:
    """Case and white space make another prompt, though no other content hash."""
    one, *others = EXAM.questions
    edited = dataclasses.replace(one, question=one.question.upper())
    assert dataclasses.replace(EXAM, questions=[edited, *others]).decides != EXAM.decides
    relabelled = dataclasses.replace(one, reference="")  # which no epoch is examined by
    assert dataclasses.replace(EXAM, questions=[relabelled, *others]).decides == EXAM.decides


def test_another_check_of_an_own_family_is_another_exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole package counts, as a module may import from it."""
    package = tmp_path / "own_family_of_exam"
    (package / "parts").mkdir(parents=True)
    (package / "asked.py").write_text("from aft.tasks.gsm8k import *\n", encoding="utf-8")
    (package / "parts/marks.py").write_text("LIMIT = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    asked = [dataclasses.replace(EXAM.questions[0], dataset="own_family_of_exam.asked")]
    exam = dataclasses.replace(EXAM, questions=asked)
    before = exam.decides
    (package / "parts/marks.py").write_text("LIMIT = 2\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"has changed since this run began \(parts/marks\.py\)"):
        exam.decides  # noqa: B018 (what is in memory is the family of before)
    monkeypatch.setattr(tasks, "_imported", {})  # another process
    assert exam.decides != before


def test_the_test_questions_play_no_part(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked is the validation split, by content hash; the test split is never prompted."""
    asked: list[str] = []
    prompt = pocket.prompt

    def noted(question: Question) -> str:
        asked.append(question.content_hash)
        return prompt(question)

    monkeypatch.setattr(pocket, "prompt", noted)
    trained()
    assert set(asked) == {one.content_hash for one in SPLITS["validation"]}


def test_the_log_tells_what_was_selected_and_what_it_cost(trained: Any, accuracies: Any, caplog: Any) -> None:
    accuracies(0.1, 0.625, 0.5, 0.5)
    with caplog.at_level("INFO", run.__name__):
        trained()
    told = [message for message in caplog.messages if "become the model" in message]
    assert told == [
        "train vft: the weights after epoch 2 of 4 become the model, which answer 62.5% of the validation questions; "
        "4 epochs were examined in 0.4 s, with 28 tokens."
    ]


def test_an_adapter_is_selected_and_merged(trained: Any, accuracies: Any) -> None:
    """The weights of its best epoch; the checkpoint has the adapter's alone."""
    seen = accuracies(0.1, 0.5, 0.2, 0.2)
    model = trained(dataclasses.replace(CHOSEN, lora=LoraSettings(rank=2)))
    adapter = load_file(model.directory.path / ADAPTER / "adapter_model.safetensors")
    at_best = {name.replace(".default", ""): weights for name, weights in seen[1].items() if "lora" in name}
    assert adapter.keys() == at_best.keys() and adapter
    assert all(torch.equal(adapter[name], at_best[name]) for name in adapter)
