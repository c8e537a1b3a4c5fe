"""A study of the smoke recipe: its cells run, are not run again, and give one table, one figure and one page."""

import json
from pathlib import Path
from typing import Any

import pytest

STUDY = """
tiny:
  title: Tiny rounds
  question: Does everything run?
  variants: [vft, aft_rbc]
  seeds: [3]
  rounds: aft_rbc
  n_rounds: 2
  figure: sweep
  orderings:
    - {claim: a second round is above the first, above: aft_rbc@2, below: aft_rbc@1}
"""


@pytest.fixture(scope="module")
def project(studied: Any) -> Any:
    """A project whose study has been run."""
    (studied.folder / "conf/smoke/studies.yml").write_text(STUDY, encoding="utf-8")
    done = studied.studies("run", "tiny", "--jobs", "1")
    assert done.returncode == 0, done.stderr[-4000:]
    return studied


@pytest.mark.e2e
def test_a_study_from_nothing_to_its_page(project: Any, tmp_path: Path) -> None:
    folder = project.data / "08_reporting/smoke/studies/tiny"
    assert {path.name for path in folder.iterdir()} == {
        *("figure.png", "orderings.csv", "study.json", "study.md", "table.csv")
    }
    assert json.loads((folder / "study.json").read_text(encoding="utf-8"))["seeds"] == [3]
    assert "a second round is above the first" in (folder / "study.md").read_text(encoding="utf-8")

    again = project.studies("run", "tiny", "--jobs", "1")
    assert again.returncode == 0, again.stderr[-4000:]
    assert again.stderr.count("1 of 1 runs are finished already.") == 2  # one cell in each of two batches

    page = tmp_path / "results.md"
    assert project.studies("document", "--output", str(page)).returncode == 0
    assert "## Tiny rounds" in page.read_text(encoding="utf-8")
    assert (tmp_path / "figures/study_tiny.png").is_file()
    assert "(`kedro studies run tiny --env=smoke`;" in page.read_text(encoding="utf-8")
    assert "Not run: pilot" in page.read_text(encoding="utf-8")

    assert project.studies("document", "tiny", "--output", str(page)).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert "## Tiny rounds" in text and "Not run" not in text
    assert "--output: docs/results.md is that of all" in project.studies("document").stderr  # of another recipe


@pytest.mark.e2e
def test_cells_are_nested_in_mlflow(project: Any) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=project.tracking_uri)
    experiment = client.get_experiment_by_name("aft")
    assert experiment is not None
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id], max_results=200)}
    parents = [run for run in runs.values() if run.data.tags.get("kind") == "studies"]
    cells = [run for run in runs.values() if (run.info.run_name or "").startswith("variants@")]
    assert len(cells) == 2
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} <= {run.info.run_id for run in parents}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


@pytest.mark.e2e
def test_unknown_studies_are_answered_with_the_list(fresh: Any) -> None:
    done = fresh.studies("run", "table7")
    assert done.returncode == 1
    assert "There is no study table7; choose of" in done.stderr and "binary" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.e2e
def test_a_cell_that_fails_names_its_log(fresh: Any) -> None:
    broken = STUDY.replace("tiny:", "broken:").replace(
        "seeds: [3]", "seeds: [3]\n  params: {base_model.source: nowhere}"
    )
    (fresh.folder / "conf/smoke/studies_broken.yml").write_text(broken, encoding="utf-8")
    done = fresh.studies("run", "broken", "--jobs", "1")
    assert done.returncode == 1
    assert "There is no model directory nowhere" in done.stderr and "study_log.txt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("content", "words"), [("- tiny", "cannot be read"), ("tiny: {title: T", "cannot be read"), ("a/b: {}", "'a/b'")]
)
def test_a_file_that_names_no_studies_is_answered_in_a_sentence(fresh: Any, content: str, words: str) -> None:
    (fresh.folder / "conf/smoke/studies.yml").write_text(content, encoding="utf-8")
    done = fresh.studies("list")
    assert done.returncode == 1
    assert words in done.stderr and "Traceback" not in done.stderr
