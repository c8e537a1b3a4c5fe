"""From tables to a trained model: what the monitor watches, and in which precision DPO's two models are."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.models.directory import ModelDirectory
from aft.models.tokens import encode_response
from aft.pipelines.align_train.nodes import train_variant
from aft.pipelines.parameters import Launching, Training, Variant
from aft.pipelines.tables import to_table
from aft.pipelines.vft_train.nodes import train_vft
from aft.tasks import Question
from aft.training.examples import Example

TRAINING = Training(epochs=1, learning_rate=1e-3, batch_size=4, monitor_every=None)

Train = Callable[..., tuple[ModelDirectory, dict[str, pd.DataFrame]]]


@pytest.fixture
def feedback(pocket_questions: list[Question], pocket_tokenizer: Any) -> pd.DataFrame:
    """Four distinct samples of each of four questions, the first two of them right."""
    texts = [question.reference for question in pocket_questions]
    rows = [
        {"question_id": question.question_id, "sample_index": j, "token_ids": encode_response(pocket_tokenizer, text)}
        for i, question in enumerate(pocket_questions[:4])
        for j, text in enumerate(texts[i + 1 : i + 5])
    ]
    right = [row["sample_index"] < 2 for row in rows]
    ranks = pd.Series([int(not one) for one in right], dtype="Int64")
    return pd.DataFrame(rows).assign(is_correct=right, rank=ranks, rating_rank=ranks, distinct_equations=True)


@pytest.fixture
def train(
    pocket_directory: ModelDirectory, pocket_questions: list[Question], feedback: pd.DataFrame, tmp_path: Path
) -> Train:
    """Train a variant, or VFT if none is given, on the first four questions."""

    def run(
        objective: Variant | None = None,
        training: Training = TRAINING,
        feedback: pd.DataFrame = feedback,
        validation: pd.DataFrame | None = None,
    ) -> tuple[ModelDirectory, dict[str, pd.DataFrame]]:
        tables = (to_table(pocket_questions[:4]), to_table([]) if validation is None else validation)
        options = {"seed": 0, "model_cache": str(tmp_path / "models"), "launch": Launching()}
        if objective is None:
            return train_vft(pocket_directory, *tables, [], training, **options)
        options["score_cache"] = str(tmp_path / "scores")
        return train_variant(pocket_directory, pocket_directory, *tables, feedback, [], training, objective, **options)

    return run


# --- the monitor's probe ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "watched"),
    [
        ({"gsm8k": 80, "aqua_rat": 70, "ecqa": 100}, {"gsm8k": 22, "aqua_rat": 21, "ecqa": 21}),
        ({"gsm8k": 80, "ecqa": 5}, {"gsm8k": 59, "ecqa": 5}),  # a short one is filled up for
        ({"gsm8k": 80}, {"gsm8k": 64}),
        ({"gsm8k": 2, "ecqa": 1}, {"gsm8k": 2, "ecqa": 1}),
    ],
)
def test_the_monitor_watches_the_first_questions_of_every_dataset_in_equal_shares(
    sizes: dict[str, int],
    watched: dict[str, int],
    train: Train,
    pocket_questions: list[Question],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 in all, in the order of the table."""
    probes: list[list[Example]] = []

    def stop(*given: Any, probe: list[Example], **options: Any) -> None:
        probes.append(probe)
        raise KeyboardInterrupt

    monkeypatch.setattr("aft.training.run.train", stop)
    rows = [(name, i) for name, size in sizes.items() for i in range(size)]
    held_out = [
        dataclasses.replace(pocket_questions[5], question_id=f"{name}/{i}", dataset=name, choices=("a", "b"))
        for name, i in rows
    ]
    with pytest.raises(KeyboardInterrupt):
        train(validation=to_table(held_out))
    expected = [f"{name}/{i}" for name, size in watched.items() for i in range(size)]
    assert [example.question_id for example in probes[0]] == expected


# --- DPO's reference model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_dpo_compares_the_policy_with_a_reference_of_its_own_precision(precision: Any, train: Train) -> None:
    """Before its first step a policy that starts from the reference model is that model: all log-ratios are 0.

    So each of two positives above two negatives has log(1 + 2 e^0), whatever the scores; a large beta tells them apart.
    """
    training = dataclasses.replace(TRAINING, precision=precision)
    curve = train(Variant(term="dpo", start="vft", dpo_beta=10.0), training)[1]["seed_0"]
    assert curve["alignment_term"][0] == pytest.approx(2 * math.log(3), abs=2e-3)
