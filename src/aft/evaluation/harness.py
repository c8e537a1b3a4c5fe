"""A task of EleutherAI's lm-evaluation-harness that asks a finished model what AFT asks it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from aft.errors import DataError
from aft.files import write_text, writing
from aft.models.directory import ModelDirectory
from aft.models.tokens import render_question
from aft.tasks import Question

# The answer after the first `####` that stands after the last thought: a number, or the letter of an option.
_NUMBER, _LETTER = r"\$?(-?[0-9][0-9,]*(?:\.[0-9]+)?)(?![0-9])", r"\(?([A-E])(?![A-Za-z])"
# The families that answer so; of questions from a file, their check and marker.
_NUMBER_OR_LETTER = re.compile(r"(?!math$|jsonl/).*|jsonl/(number|choice)/hashes")
_MARKED = r"####[ \t]*{}(?![\s\S]*</think>)"


def write_task(
    model: ModelDirectory, questions: Sequence[Question], folder: Path, *, name: str, max_new_tokens: int
) -> Path:
    """Write the task `name` into `folder`: its questions, `<name>.jsonl`, and `<name>.yaml`, whose path it gives.

    Prompts are those of the model's style, its chat template already applied: the harness must neither apply one nor
    add a beginning-of-sequence token to it. An answer is compared as text, but for thousands commas, where the task
    family's own check knows more spellings. Raises `DataError` for questions whose answers stand behind no `####`, or
    are neither numbers nor letters: all would be marked wrong.
    """
    others = sorted({one.dataset for one in questions if not _NUMBER_OR_LETTER.fullmatch(one.dataset)})
    if others:
        raise DataError(
            f"lm-evaluation-harness would mark every answer to {others[0]} wrong: the task reads numbers and letters "
            "behind #### only. Evaluate with AFT, or write a task by hand."
        )
    tokenizer = model.tokenizer()
    rows = [{"prompt": render_question(tokenizer, one), "answer": one.answer} for one in questions]
    file = (folder / f"{name}.jsonl").absolute()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    pattern = _MARKED.format(_LETTER if any(one.choices for one in questions) else _NUMBER)
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "regexes_to_ignore": [","]}
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": max_new_tokens},
        "filter_list": [
            {
                "name": "answer",
                "filter": [
                    {"function": "regex", "regex_pattern": pattern, "group_select": 0},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [metric],
    }
    write_text(folder / f"{name}.yaml", yaml.safe_dump(task, sort_keys=False))
    return folder / f"{name}.yaml"
