"""What is exported is what our own training learns from, in shapes that can be read back, and that TRL trains on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.errors import DataError
from aft.models.chat import STYLE_KEY
from aft.models.directory import ModelDirectory
from aft.models.tokens import encode_prompt, encode_response
from aft.pipelines.label_and_rank.nodes import label_and_rank
from aft.pipelines.parameters import Labelling
from aft.pipelines.sample_cots.nodes import sample_cots
from aft.pipelines.tables import to_table
from aft.sampling.settings import SamplerSettings, SamplingSettings
from aft.tasks import Question, pocket
from aft.training.examples import build_examples
from aft.training.export import SHAPES, export_feedback
from aft.training.settings import Objective

Label = Callable[..., tuple[pd.DataFrame, dict[str, Any]]]


@pytest.fixture
def label(tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question]) -> Label:
    """Feedback on own rollouts to the first four questions."""

    def of(rows: list[dict[str, Any]], **labelling: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
        path, asked = tmp_path / "rows.jsonl", to_table(pocket_questions[:4])
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        options = (None, SamplingSettings(1), SamplerSettings(), 0, str(tmp_path / "cache"), str(path))
        candidates = sample_cots(pocket_directory, asked, *options)
        caches = (str(tmp_path / "ratings"), str(tmp_path / "cache"))
        made, summary = label_and_rank(candidates, asked, Labelling(**labelling), 0, *caches)
        return made.table(), summary

    return of


@pytest.fixture
def rows(pocket_questions: list[Question]) -> list[dict[str, Any]]:
    """The first question: two right and two wrong, one of them cut; the second: a right one, the third: a wrong one."""
    one, two, three = pocket_questions[:3]
    wrong = f"#### {int(one.answer) + 1}"
    return [
        {"question_id": one.question_id, "response": one.reference, "rating": 9},
        {"question_id": one.question_id, "response": wrong, "rating": 2},
        {"question_id": one.question_id, "response": f"#### {one.answer}", "rating": 9},
        {"question_id": one.question_id, "response": f"#### {one.answer}", "finish_reason": "length", "rating": 1},
        {"question_id": two.question_id, "response": two.reference, "rating": 5},
        {"question_id": three.question_id, "response": f"#### {int(three.answer) + 2}", "rating": 5},
    ]


@pytest.fixture
def export(pocket_directory: ModelDirectory, pocket_questions: list[Question]) -> Callable[..., list[dict[str, Any]]]:
    def of(shape: str, feedback: pd.DataFrame, max_tokens: int = 512) -> list[dict[str, Any]]:
        return export_feedback(shape, pocket_questions[:4], feedback, pocket_directory.tokenizer(), max_tokens)

    return of


def test_pairs_are_all_strict_pairs(rows, label, export, pocket_questions):
    one = pocket_questions[0]
    pairs = export("trl_pairs", label(rows)[0])
    short, wrong = f"#### {one.answer}", f"#### {int(one.answer) + 1}"
    assert {row["prompt"] for row in pairs} == {pocket.prompt(one)}
    expected = [(chosen, rejected) for chosen in (one.reference, short) for rejected in (wrong, short)]
    assert [(row["chosen"], row["rejected"]) for row in pairs] == expected, "what was cut has no answer"


def test_unpaired_rows_are_all_responses(rows, label, export):
    unpaired = export("trl_unpaired", label(rows)[0])
    assert [row["label"] for row in unpaired] == [True, False, True, False, True, False]
    assert [row["finish_reason"] for row in unpaired] == ["stop", "stop", "stop", "length", "stop", "stop"]
    assert [row["completion"] for row in unpaired] == [row["response"] for row in rows]


def test_sft_rows_are_what_rft_trains_on(rows, label, export, pocket_directory, pocket_questions):
    tokenizer, feedback = pocket_directory.tokenizer(), label(rows)[0]
    objective = Objective(learn_positives=True)
    examples = build_examples(pocket_questions[:4], feedback.to_dict("records"), tokenizer, objective, 512)
    exported = export("sft", feedback)
    assert [encode_response(tokenizer, row["completion"]) for row in exported] == [one.targets[0] for one in examples]
    assert len(exported) == 5, "four references and one more right response"


def test_ranked_lists_follow_the_ratings_or_else_the_labels(rows, label, export):
    (ranked,) = export("ranked", label(rows, judge="given")[0])
    assert (ranked["ranks"], ranked["rewards"]) == ([0, 1, 0, 2], [1.0, 0.0, 1.0, 0.0])
    (ranked,) = export("ranked", label(rows)[0])
    assert (ranked["ranks"], ranked["rewards"]) == ([0, 1, 0, 1], [1.0, 0.0, 1.0, 0.0])


@pytest.mark.parametrize("shape", ["trl_unpaired", "ranked"])
def test_what_is_exported_can_be_imported_with_the_same_labels(shape, rows, label, export):
    columns = ["question_id", "response", "is_correct", "rank", "n_tokens"]
    kept = rows if shape == "trl_unpaired" else rows[:4]
    before, _ = label(kept)
    again, summary = label(export(shape, before))
    pd.testing.assert_frame_equal(before[columns], again[columns])
    told = summary["given_labels"]
    assert (told["given"], told["differ_from_check"]) == (len(kept), 0)


def test_pairs_can_be_imported_and_their_labels_used(rows, label, export):
    """All but that of the response that is right where it ended, and wrong where it was cut."""
    pairs = export("trl_pairs", label(rows)[0])
    again, summary = label([{**row, "label": None} for row in pairs], given_labels="use")
    assert len(again) == 3 and summary["given_labels"]["differ_from_check"] == 0


def test_what_is_too_long_or_missing_is_not_exported(rows, label, export):
    feedback, _ = label(rows)
    assert export("trl_pairs", feedback) and len(export("trl_unpaired", feedback, 60)) <= 6
    with pytest.raises(DataError, match="nothing to export as trl_pairs"):
        export("trl_pairs", feedback[feedback["is_correct"]])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_with_a_chat_template_has_messages(shape, rows, label, pocket_directory, pocket_questions):
    tokenizer = pocket_directory.tokenizer()
    tokenizer.init_kwargs[STYLE_KEY] = "chat"
    tokenizer.chat_template = "{% for one in messages %}{{ one.content }}{% endfor %}"
    row = export_feedback(shape, pocket_questions[:4], label(rows)[0], tokenizer, 512)[0]
    assert row["prompt"] == [{"role": "user", "content": pocket.prompt(pocket_questions[0])}]
    said = row["chosen" if shape == "trl_pairs" else "responses" if shape == "ranked" else "completion"]
    assert (said[0] if shape == "ranked" else said)[0]["role"] == "assistant"


@pytest.mark.parametrize(
    ("shape", "trainer"),
    [("trl_pairs", "DPO"), ("trl_unpaired", "KTO"), ("sft", "SFT")],
)
def test_trl_trains_on_it(shape, trainer, rows, label, export, pocket_directory, tmp_path):
    """One step of TRL's own trainer, which makes the tokens of it that our training learns from."""
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'aft[bench]' to train on an export")
    from datasets import load_dataset

    exported = export(shape, label(rows)[0])
    path = tmp_path / "export.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in exported), encoding="utf-8")
    data: Any = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "hf"))
    options = getattr(trl, f"{trainer}Config")(
        **{"output_dir": str(tmp_path / "out"), "max_steps": 1, "per_device_train_batch_size": 2, "use_cpu": True},
        **{"report_to": [], "bf16": False, "save_strategy": "no", "disable_tqdm": True},
    )
    model, tokenizer = pocket_directory.model("float32"), pocket_directory.tokenizer()
    made = getattr(trl, f"{trainer}Trainer")(model=model, args=options, train_dataset=data, processing_class=tokenizer)
    for row, tokens in zip(exported, made.train_dataset, strict=True):
        prompt = encode_prompt(tokenizer, row["prompt"])
        said = {
            name: encode_response(tokenizer, row[name]) for name in ("chosen", "rejected", "completion") if name in row
        }
        if shape == "sft":
            assert tokens["input_ids"] == prompt + said["completion"]
        else:
            ours = {f"{name}_ids": ids for name, ids in {"prompt": prompt, **said}.items()}
            assert {name: tokens[name] for name in ours} == ours
    assert made.train().training_loss > 0
