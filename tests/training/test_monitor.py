"""What is warned of and when: the rule by hand, models that degrade or do not, and runs that were killed."""

import math
from pathlib import Path
from typing import Any

import pytest

from aft.models.pocket import Architecture, build_model, build_tokenizer
from aft.models.tokens import encode_prompt, encode_response
from aft.tasks import get_task, pocket
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.monitor import DegradationMonitor
from aft.training.run import TrainedModel, train, train_once
from aft.training.settings import Objective, TrainingSettings

AFT = Objective(term="aft")


def monitor(objective=AFT, warmup_steps=0):
    return DegradationMonitor("train aft", objective, warmup_steps)


def warned_at(rows, **options):
    """The steps, from 1, whose rows gave reason to a warning."""
    watching = monitor(**options)
    return [step for step, row in enumerate(rows, start=1) if watching.observe({"step": step, **row})]


def probes(*perplexities):
    return [{} if value is None else {"held_out_perplexity": value} for value in perplexities]


def negatives(*scores):
    return [{} if score is None else {"score_negative": score} for score in scores]


# --- the rule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("perplexities", "steps"),
    [
        ((2, 2.19, 2.19, 2.19), []),  # 9.5 % above
        ((2, 2.21, 2.21), [3]),  # 10.5 %
        ((2, 2.21, None, None, 2.21), [5]),  # two probes in a row, whatever lies between them
        ((2, 2.21, 2.1, 2.21, 2.1), []),
        ((4, 3, 2, 2.21, 2.21), [5]),  # the lowest counts, not the first
        ((2, 3, 1, 1.05), []),
        ((2, 3, 3, 3, 2, 9, 9), [3]),  # once a run
        ((2, math.nan, math.inf), [3]),
        ((math.inf, 2, 2.1), []),
        ((2,), []),
    ],
)
def test_a_held_out_perplexity_that_rises(perplexities, steps):
    assert warned_at(probes(*perplexities)) == steps


@pytest.mark.parametrize(
    ("scores", "steps"),
    [
        # The level is -1. After k steps at -2.5, the mean of ten is -1 - 1.5 k / 10: below -2 from k = 7 on.
        ([-1.0] * 10 + [-2.5] * 20, [17]),
        ([-1.0] * 10 + [-2.0] * 20, []),  # fallen by 1, not by more
        ([-1.0] * 10 + [-10.0] + [-1.0] * 20, []),  # one bad step: the mean falls by .9
        ([-3.0] * 10 + [-1.0] * 10 + [-3.5] * 10, []),  # .5 below the level at last, 2.5 below the highest
        ([-3.0] * 10 + [-0.1] * 20, []),
        ([-1.0] * 9 + [-9.0], []),  # the level itself
        # k = 7 as above, but every other step has no negatives.
        ([score for score in [-1.0] * 10 + [-2.5] * 10 for score in (score, None)], [33]),
    ],
)
def test_scores_of_negatives_that_fall(scores, steps):
    assert warned_at(negatives(*scores)) == steps


def test_the_level_of_negatives_is_that_after_the_warm_up():
    """Without its four steps at -.2 it is -1, and k = 7 as above; with them -.68, and .32 + .15 k > 1 at k = 5."""
    scores = [-0.2] * 4 + [-1.0] * 10 + [-2.5] * 10
    assert warned_at(negatives(*scores), warmup_steps=4) == [21]
    assert warned_at(negatives(*scores)) == [19]


def test_each_kind_is_told_once_and_kept():
    """Negatives fall by 1.5 x 7 / 10 at step 17; the perplexity is 1 at every step and 2 from step 21 on."""
    watching = monitor()
    found = []
    for step in range(1, 41):
        score, perplexity = (-1.0 if step <= 10 else -2.5), (1.0 if step <= 20 else 2.0)
        row = {"step": step, "score_negative": score, "held_out_perplexity": perplexity}
        found += [(step, warning) for warning in watching.observe(row)]
    assert [step for step, _ in found] == [17, 22]
    assert watching.warnings == [warning for _, warning in found]
    assert found[0][1] == (
        "train aft: at step 17 the scores of negatives, -2.05 on average over 10 steps, are more than 1 below their "
        "level after the warm-up, -1.00: the model unlearns what they share with right responses; set a constraint "
        "(detached or boundary) or a smaller weight."
    )
    assert found[1][1] == (
        "train aft: at step 22 the perplexity of held-out references is 2, more than 10% above its lowest, 1, for the "
        "second time in a row: the model unlearns right responses; set a constraint (detached or boundary) or a "
        "smaller weight."
    )


@pytest.mark.parametrize(
    ("objective", "way_out"),
    [
        (Objective(), "lower the learning rate or train for fewer epochs."),  # it has no term to constrain
        (AFT, "set a constraint (detached or boundary) or a smaller weight."),
        (Objective(term="aft", constraint="boundary"), "set a smaller weight or a lower learning rate."),
    ],
)
def test_the_way_out_is_one_that_the_run_has(objective, way_out):
    watching = monitor(objective)
    for step, perplexity in enumerate((1.0, 2.0, 2.0), start=1):
        watching.observe({"step": step, "held_out_perplexity": perplexity})
    (warning,) = watching.warnings
    assert warning.endswith(f"; {way_out}")


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pocket_runs(tmp_path_factory):
    """Train one tiny pocket model, which has seen the references of 68 questions ten times, under a constraint.

    Negatives are the references with one token replaced, at a third or at two thirds; the probe are twelve more.
    """
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = build_tokenizer()
    questions = pocket.load_questions(pocket.Settings(train=80, validation=1, test=1))["train"]
    references = [
        Example(
            question.question_id,
            encode_prompt(tokenizer, get_task(question.dataset).prompt(question)),
            [encode_response(tokenizer, question.reference)],
        )
        for question in questions
    ]
    small = Architecture(hidden_size=16, intermediate_size=64, layers=2, heads=2)
    usual: dict[str, Any] = {"epochs": 99, "max_steps": 40}
    start = train_once(
        {"kind": "start"},
        lambda: (build_model(small, len(tokenizer)), tokenizer),
        lambda: references[12:],
        Job((), TrainingSettings(**usual, learning_rate=0.01, batch_size=16), Objective(), 3, "start"),
        folder,
    )

    def ranked(example):
        (right,) = example.targets
        wrong = [
            [*right[:i], (right[i] + 1) % len(tokenizer), *right[i + 1 :]]
            for i in (len(right) // 3, 2 * len(right) // 3)
        ]
        return Example(example.question_id, example.prompt, [right], [right, *wrong], [0, 1, 1])

    def run(constraint) -> TrainedModel:
        settings = TrainingSettings(**usual, learning_rate=0.02, batch_size=8, monitor_every=5)
        objective = Objective(term="aft", constraint=constraint, weight=100.0)
        examples = [ranked(example) for example in references[12:]]
        label = f"train {objective.label}"
        return train(start.directory, Job(examples, settings, objective, 3, label, probe=references[:12]), folder)

    return run


def test_a_model_that_unlearns_is_warned_of_while_it_trains(pocket_runs, caplog):
    """Negatives that differ in one token are pushed down a hundred times as hard as references are learnt."""
    trained = pocket_runs("none")
    kinds = [warning.split(" is ")[0].split(",")[0] for warning in trained.warnings]
    steps = [int(kind.removeprefix("train aft: at step ").split()[0]) for kind in kinds]
    assert steps == sorted(steps) and 10 <= steps[0] < steps[1] < 30
    assert kinds[0].endswith("the perplexity of held-out references") and kinds[1].endswith("the scores of negatives")
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == trained.warnings
    assert len(trained.curve) == 40, "a warning stops nothing"
    perplexities = [row["held_out_perplexity"] for row in trained.curve if "held_out_perplexity" in row]
    assert len(perplexities) == 8 and perplexities[-1] > 3 * perplexities[0]

    caplog.clear()
    assert pocket_runs("none") == trained, "found again, warnings included"


@pytest.mark.parametrize("constraint", ["detached", "boundary"])
def test_a_constrained_model_is_not_warned_of(constraint, pocket_runs):
    """The same run, as hard, but for the constraint: the perplexity falls, and negatives rise."""
    trained = pocket_runs(constraint)
    assert trained.warnings == []
    perplexities = [row["held_out_perplexity"] for row in trained.curve if "held_out_perplexity" in row]
    assert perplexities[-1] < 0.7 * perplexities[0]
    assert trained.curve[-1]["score_negative"] > trained.curve[0]["score_negative"]


# --- runs that are killed ---------------------------------------------------------------------------------------------

KILLED_BEFORE = (6, 11, 21)  # steps, each with a checkpoint just before
_KILL = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import killed_runs, test_monitor
for step in test_monitor.KILLED_BEFORE:
    child = os.fork()
    if child == 0:
        killed_runs.kill_at("forward", step)
        test_monitor.watched_run(killed_runs, Path(sys.argv[2]) / str(step))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def watched_run(killed_runs: Any, workspace: Path) -> TrainedModel:
    """Thirty steps with a checkpoint after every fifth; a probe after every second one."""
    usual: dict[str, Any] = {"epochs": 99, "max_steps": 30, "learning_rate": 0.03, "batch_size": 4}
    return train_once(
        {"kind": "watched"},
        lambda: (killed_runs.small_llama(tied=False), killed_runs.build_tokenizer()),
        lambda: killed_runs.ragged_examples(13),
        Job(
            (),
            TrainingSettings(**usual, checkpoint_every=5, monitor_every=2),
            Objective(term="aft", weight=20.0),
            7,
            "watched",
            probe=[Example("held out", [5, 6], [[7, 8, 1]])],
        ),
        workspace,
    )


def test_a_killed_run_neither_loses_nor_repeats_a_warning(killed_runs, start_python, tmp_path, caplog):
    """Killed between the two probes of the first warning, after it, and after the second."""
    killing = start_python(_KILL, Path(__file__).parent, tmp_path)
    assert killing.communicate(timeout=100)[0].split() == ["-9"] * len(KILLED_BEFORE)
    whole = watched_run(killed_runs, tmp_path / "whole")
    watching = DegradationMonitor("watched", Objective(term="aft"), warmup_steps=1)  # .03 x 30, rounded up
    told = [(row["step"], warning) for row in whole.curve for warning in watching.observe(row)]
    assert [warning for _, warning in told] == whole.warnings, "they follow from the curve alone"
    assert [step for step, _ in told] == [6, 17], "else the moments above are others"
    for step in KILLED_BEFORE:
        caplog.clear()
        with caplog.at_level("INFO", "aft"):
            resumed = watched_run(killed_runs, tmp_path / str(step))
        assert f"watched: continuing from step {step - 1}." in caplog.messages
        assert resumed.warnings == whole.warnings
        logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert logged == [warning for warned, warning in told if warned >= step]
