"""From a file of questions to a report: the commands of docs/own_data.md, and a file without references."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.models.directory import open_model
from aft.pipelines.training import NO_REFERENCES

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
QUICK = (
    "training.max_steps=2,sampling.samples=4,evaluation.sampling.samples=2,evaluation.ks=[2],evaluation.resamples=50"
)


def test_the_pages_commands_end_in_a_report(fresh: Any) -> None:
    """The fifty shipped questions, one of which the page shows."""
    blocks = re.findall(r"<!-- run -->\n```bash\n(.*?)```\n<!-- end -->", PAGE, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert commands and all(words[:3] == ["kedro", "run", "--env=own"] for words in commands)
    shown = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert shown and json.loads(shown[1]) in map(json.loads, lines_of("conf/own/questions.jsonl"))
    for words in commands:
        done = fresh.run(*words[3:], env="own")
        assert done.returncode == 0, done.stderr[-3000:]
    results = fresh.data / "08_reporting/own/binary"
    table = pd.read_csv(results / "comparison.csv")
    assert table["variant"].tolist() == ["vft", "rft", "aft", "aft_dc", "aft_bc"]
    assert (table["questions"] == 16).all() and (table["parse_failures"] == 0).all()
    assert (results / "report.html").is_file() and (results / "answers.html").is_file()
    assert NO_REFERENCES not in done.stderr


def test_a_file_without_references_skips_vft_and_says_so(fresh: Any, tmp_path: Path) -> None:
    """In the log while it runs and at its end, and in the report."""
    rows = [json.loads(line) for line in lines_of("conf/own/questions.jsonl")]
    bare = "".join(json.dumps({"question": row["question"], "answer": row["answer"]}) + "\n" for row in rows)
    (tmp_path / "bare.jsonl").write_text(bare, encoding="utf-8")
    done = fresh.run(f"--params=task.settings.path={tmp_path / 'bare.jsonl'},{QUICK}", env="own")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count(NO_REFERENCES) == 2
    assert NO_REFERENCES in (fresh.data / "08_reporting/own/binary/report.html").read_text(encoding="utf-8")
    models = {path.name: open_model(path) for path in (fresh.data / "06_models/own/seed_0").glob("[a-z]*")}
    base = models["aft"].made_from["start"]
    assert models["vft"].fingerprint == base != models["aft"].fingerprint


def lines_of(name: str) -> list[str]:
    return (ROOT / name).read_text(encoding="utf-8").splitlines()
