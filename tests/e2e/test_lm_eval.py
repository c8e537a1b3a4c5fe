"""EleutherAI's lm-evaluation-harness reads a finished model and comes to the answers that AFT comes to.

The harness is an extra (`pip install -e ".[harness]"`); without it there is nothing to test.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.evaluation.harness import write_task
from aft.feedback.label import label_responses
from aft.models.directory import ModelDirectory, open_model
from aft.models.pocket import Architecture, build_model, build_tokenizer
from aft.models.publish import in_prompt_style, save_model
from aft.sampling.run import sample_responses
from aft.sampling.settings import SamplingSettings
from aft.tasks import Question, pocket
from aft.training.examples import build_examples
from aft.training.job import Job
from aft.training.run import train
from aft.training.settings import Objective, TrainingSettings

pytestmark = pytest.mark.e2e
pytest.importorskip("lm_eval")

LEARNT, UNSEEN = 12, 12
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """The first ones are learnt by heart, the others never seen."""
    rows = pocket.load_questions(pocket.Settings(train=LEARNT, validation=1, test=UNSEEN))
    return [*rows["train"], *rows["test"]]


@pytest.fixture(scope="module", params=["plain", "chat"])
def model(request: pytest.FixtureRequest, questions: list[Question], tmp_path_factory: Any) -> ModelDirectory:
    """A model of either style that knows its training questions by heart, trained in a few seconds."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer: Any = build_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHATML
    random = build_model(Architecture(hidden_size=32, intermediate_size=64, layers=2, heads=2), len(tokenizer))
    save_model(random, tokenizer, folder / "base")
    start = in_prompt_style(open_model(folder / "base"), request.param, folder)
    settings = TrainingSettings(epochs=60, learning_rate=0.01, batch_size=LEARNT)
    examples = build_examples(questions[:LEARNT], [], start.tokenizer(), Objective(), settings.max_tokens)
    return train(start, Job(examples, settings, Objective(), 0, "train"), folder).directory


def harness_samples(model: ModelDirectory, questions: list[Question], folder: Path) -> tuple[float, pd.DataFrame]:
    """The harness's accuracy, and for every question in order its text, the answer read of it, and whether it counts.

    The task is the one that `aft models harness` writes.
    """
    from lm_eval import simple_evaluate  # type: ignore[import-not-found]
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]

    write_task(model, questions, folder, name="aft_pocket", max_new_tokens=256)
    chat = model.tokenizer().init_kwargs.get("aft_prompt_style") == "chat"
    arguments = {"pretrained": str(model.path), "dtype": "float32", **({"add_bos_token": False} if chat else {})}
    done: Any = simple_evaluate(
        model="hf",
        model_args=arguments,
        tasks=["aft_pocket"],
        device="cpu",
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = sorted(done["samples"]["aft_pocket"], key=lambda sample: sample["doc_id"])
    table = pd.DataFrame(
        {
            "response": [sample["resps"][0][0] for sample in samples],
            "answer": [sample["filtered_resps"][0] for sample in samples],
            "is_correct": [sample["exact_match"] == 1 for sample in samples],
        }
    )
    return done["results"]["aft_pocket"]["exact_match,answer"], table


def test_the_harness_comes_to_the_same_answers(
    model: ModelDirectory, questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Question by question: the same text, the same answer read of it, the same verdict; and so the same accuracy."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    accuracy, theirs = harness_samples(model, questions, tmp_path)
    settings = SamplingSettings(samples=0, greedy=True, max_new_tokens=256)
    shards = sample_responses(model, questions, settings, 0, tmp_path / "samples", "answer")
    ours = label_responses(
        pd.concat(map(pd.read_parquet, shards), ignore_index=True), {q.question_id: q for q in questions}
    )
    assert ours["question_id"].tolist() == [question.question_id for question in questions]
    assert theirs["response"].tolist() == ours["response"].tolist()
    assert theirs["is_correct"].tolist() == ours["is_correct"].tolist()
    read = [answer if isinstance(answer, str) else None for answer in ours["extracted_answer"]]
    assert [answer if answer != "[invalid]" else None for answer in theirs["answer"]] == read
    assert accuracy == ours["is_correct"].mean()
    assert LEARNT / len(questions) * 0.5 < accuracy < 1, "a test in which everything, or nothing, is right says nothing"
