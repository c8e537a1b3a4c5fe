"""`aft feedback export` finds a run's feedback by recipe, seed and label, and writes what was asked for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from click.testing import CliRunner
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from aft.cli import cli
from aft.feedback.label import label_responses, rank_binary
from aft.models.directory import ModelDirectory
from aft.models.tokens import encode_response
from aft.pipelines.tables import to_table
from aft.shards import Shards
from aft.tasks import Question

ROOT = Path(__file__).parents[1]
Export = Callable[..., str]


@pytest.fixture
def export(
    tmp_path: Path,
    pocket_directory: ModelDirectory,
    pocket_questions: list[Question],
    monkeypatch: pytest.MonkeyPatch,
) -> Export:
    """The command, where there is feedback of seed 1 under the label `mine`: a right and a wrong response each."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    (tmp_path / "conf/local").mkdir()
    (tmp_path / "conf/local/globals.yml").write_text(f"data: {tmp_path}/data\n", encoding="utf-8")
    where = ("--env=smoke", "--conf-source", str(tmp_path / "conf"))
    monkeypatch.chdir(ROOT)
    bootstrap_project(ROOT)
    tokenizer = pocket_directory.tokenizer()
    rows = [
        {"question_id": one.question_id, "sample_index": index, "response": text, "finish_reason": "stop"}
        for one in pocket_questions[:3]
        for index, text in enumerate((one.reference, f"#### {int(one.answer) + 1}"))
    ]
    table = pd.DataFrame(rows)
    table["token_ids"] = [encode_response(tokenizer, text) for text in table["response"]]
    table["n_tokens"] = table["token_ids"].map(len)
    labelled = label_responses(table, {one.question_id: one for one in pocket_questions})
    given: dict[str, Any] = {"seed": 1, "label": "mine"}
    with KedroSession.create(ROOT, env="smoke", conf_source=where[2], runtime_params=given) as session:
        catalog = cast(KedroSession, session).load_context().catalog
        rank_binary(labelled, deduplicate=True).to_parquet(tmp_path / "shard.parquet", index=False)
        catalog.save("feedback", Shards([tmp_path / "shard.parquet"]))
        catalog.save("train_questions", to_table(pocket_questions[:3]))
        catalog.save("held_out_hashes", ["0" * 16])
        catalog.save("vft_model", pocket_directory)

    def of(*options: str) -> str:
        done = CliRunner().invoke(cli, ["feedback", "export", *options, *where])
        return f"{done.exit_code} {done.output}"

    return of


def test_files_hold_the_same_rows_whatever_they_are(export: Export, tmp_path: Path) -> None:
    told = export("--as=trl_pairs", "--seed=1", "--label=mine")
    path = tmp_path / "data/05_model_input/mine/seed_1/feedback_trl_pairs.jsonl"
    assert told == f"0 Written: 3 rows in {path}\n"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(set(row) == {"prompt", "chosen", "rejected"} and row["rejected"].startswith("####") for row in rows)
    other = tmp_path / "pairs.parquet"
    assert export("--as=trl_pairs", "--seed=1", "--label=mine", f"--output={other}").startswith("0 Written: 3 rows")
    assert pd.read_parquet(other).to_dict("records") == rows


def test_what_the_run_left_out_as_too_long_is_left_out_whatever_the_recipe_says(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may have had --params=training.max_tokens; its VFT model says so."""
    monkeypatch.setattr(ModelDirectory, "made_from", {"training": {"max_tokens": 20}})
    told = export("--as=trl_pairs", "--seed=1", "--label=mine")
    assert told.startswith("1 ") and "every reference is longer than max_tokens=20" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--as=trl_pairs", "--seed=1", "--label=mine", "--output=pairs.csv"), "must end in .jsonl or .parquet"),
        (("--as=pairs",), "'trl_pairs', 'trl_unpaired', 'sft', 'ranked'"),
        (("--as=sft",), "is missing; run "),
    ],
)
def test_a_mistake_is_one_sentence(options: tuple[str, ...], told: str, export: Export) -> None:
    said = export(*options)
    assert not said.startswith("0 ") and told in said and "Traceback" not in said
