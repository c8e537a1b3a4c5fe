"""Pages of studies, in Markdown: ours beside the paper's, verdicts, and what was not run."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from aft import __version__
from aft.pipelines.comparisons import variants_of
from aft.reporting.study_pages import Place, StudyPage, document, draw, study_text, write_study

VARIANTS = variants_of(
    yaml.safe_load((Path(__file__).parents[2] / "conf/base/parameters_align_train.yml").read_text("utf-8"))["align"]
)
PAGE = StudyPage(
    name="beta",
    title="Margin of the boundary",
    question="Where?",
    seeds=[1, 2],
    baselines=["vft"],
    x_label="β",
    figure="sweep",
    figures=["accuracy", "perplexity_of_positives"],
    paper={"accuracy": {("vft", None): 36.48, ("aft_bc", 0.0): 38.75}},
    paper_source="Figure 2b",
    variants=VARIANTS,
)


def _row(value: float | None, variant: str, accuracy: float) -> dict[str, object]:
    return {
        **{"value": value, "variant": variant, "questions": 1000, "accuracy": accuracy, "low": accuracy - 0.01},
        **{"high": accuracy + 0.01, "std_over_seeds": 0.02, "perplexity_of_positives": 1.256},
        **{"assessment_accuracy": 0.7, "per_seed": f"{accuracy - 0.01} {accuracy + 0.01}"},
    }


TABLE = pd.DataFrame([_row(None, "vft", 0.4), _row(0.0, "aft_bc", 0.5), _row(0.15, "aft_bc", 0.6)])
ORDERINGS = pd.DataFrame(
    [
        {
            **{
                "claim": "it helps",
                "source": "paper",
                "above": "aft_bc@0.15",
                "below": "vft",
                "metric": "accuracy",
                "difference": 0.2,
            },
            **{"low": 0.1, "high": 0.3, "level": 0.9, "seeds_agreeing": 2, "seeds": 2, "verdict": "agrees"},
        }
    ]
)


def test_ours_stands_beside_the_papers() -> None:
    text = study_text(PAGE, TABLE, ORDERINGS, "figure.png", 0.9)
    assert "| `vft` |  | 40.0 [39.0, 41.0] ± 2.0 | 1.256 | 36.48 |" in text
    assert "| `aft_bc` | 0 | 50.0 [49.0, 51.0] ± 2.0 | 1.256 | 38.75 |" in text
    assert "| `aft_bc` | 0.15 | 60.0 [59.0, 61.0] ± 2.0 | 1.256 |  |" in text  # the paper has no such value
    assert "| it helps | the paper's | aft_bc@0.15 - vft, accuracy | +20.0 [+10.0, +30.0] | 2 of 2 | agrees |" in text


def test_the_page_says_the_level_of_its_intervals(tmp_path: Path) -> None:
    write_study(tmp_path / "beta", PAGE, TABLE, ORDERINGS, 0.9)
    for text in ((tmp_path / "beta/study.md").read_text("utf-8"), document(tmp_path, ["beta"], tmp_path, tmp_path)):
        assert "difference [90 %]" in text and "1,000 questions; intervals of 90 %" in text
        assert "95 %" not in text


def test_a_study_of_an_earlier_version_is_not_told_with_verdicts_of_this_one(tmp_path: Path) -> None:
    """Its intervals were over questions only, which its summary shows by having no level."""
    write_study(tmp_path / "beta", PAGE, TABLE, ORDERINGS, 0.9)
    (tmp_path / "beta/study.json").write_text(
        '{"name": "beta", "title": "Margin", "seeds": [1, 2], "aft": "0.3.0"}', encoding="utf-8"
    )
    text = document(tmp_path, ["beta"], tmp_path / "figures", tmp_path)
    assert "Not run: beta." in text
    assert "it helps" not in text


def test_base_models_that_are_all_alike_have_no_correlation() -> None:
    pilot = StudyPage("p", "P", "Q", seeds=[1], variants=VARIANTS, figure="pilot", figures=["accuracy"])
    alike = pd.DataFrame([_row(value, "vft", 0.5) for value in (1.0, 2.0, 3.0)])
    assert "Pearson" not in study_text(pilot, alike, ORDERINGS[:0], "f.png", 0.95)


def test_extensions_are_marked() -> None:
    table = pd.DataFrame([_row(None, "rrhf_bc", 0.5)])
    plain = StudyPage("t", "T", "Q", seeds=[1], variants=VARIANTS, figure="accuracy", figures=["accuracy"])
    assert "`rrhf_bc` \\*" in study_text(plain, table, ORDERINGS[:0], "f.png", 0.95)


@pytest.mark.parametrize("figure", ["accuracy", "sweep", "pilot"])
def test_every_figure_is_drawn_and_the_page_has_it(figure: Any, tmp_path: Path) -> None:
    table = TABLE[1:] if figure == "pilot" else TABLE
    write_study(tmp_path / "studies/beta", replace(PAGE, figure=figure), table, ORDERINGS, 0.9)
    text = document(tmp_path / "studies", ["beta", "votes"], tmp_path / "docs/figures", tmp_path / "docs")
    assert (tmp_path / "docs/figures/study_beta.png").read_bytes().startswith(b"\x89PNG")
    assert "(figures/study_beta.png)" in text
    assert "Not run: votes." in text
    assert "| the paper's | 1 | 0 | 0 | 0 |" in text


def test_the_points_of_a_sweep_are_told_apart_in_every_figure() -> None:
    (axes,) = draw(replace(PAGE, figure="accuracy"), TABLE).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["vft", "aft_bc  β 0", "aft_bc  β 0.15"]


def test_studies_of_another_version_are_named(tmp_path: Path) -> None:
    write_study(tmp_path / "beta", PAGE, TABLE, ORDERINGS, 0.9)
    assert "another version" not in document(tmp_path, ["beta"], tmp_path / "figures", tmp_path)
    file = tmp_path / "beta/study.json"
    file.write_text(file.read_text("utf-8").replace(__version__, "0.4.9"), encoding="utf-8")
    text = document(tmp_path, ["beta"], tmp_path / "figures", tmp_path)
    assert "Made by another version of AFT: beta; run it again." in text and "it helps" in text


def test_what_could_not_be_measured_or_compared_is_a_dash(tmp_path: Path) -> None:
    """A set of questions that turned out to be empty, and a claim about it: neither ends the other studies."""
    page = replace(PAGE, figures=["accuracy", "accuracy_validation"])
    nothing = ORDERINGS[:1].assign(difference=math.nan, low=math.nan, high=math.nan, verdict="nothing to compare")
    write_study(tmp_path / "beta", page, TABLE, pd.concat([ORDERINGS, nothing]), 0.9)
    text = document(tmp_path, ["beta"], tmp_path / "figures", tmp_path)
    assert "validation: accuracy % |" in text and "| - |" in text
    assert "one seed | nothing to compare |" in text and "| - | " in text


def test_what_a_person_reads_in_the_studies_stands_before_their_tables(tmp_path: Path) -> None:
    write_study(tmp_path / "beta", PAGE, TABLE, ORDERINGS, 0.9)
    text = document(tmp_path, ["beta"], tmp_path, tmp_path, "## What they say\n\nAll.\n")
    assert 0 < text.index("\n\n## What they say\n\nAll.\n\n") < text.index("## Orderings")


def test_votes_are_drawn_over_k(tmp_path: Path) -> None:
    paper: dict[str, dict[Place, float]] = {"maj_at_1": {("vft", None): 34.83}, "maj_at_4": {("vft", None): 39.61}}
    votes = StudyPage(
        "votes", "Votes", "Q", seeds=[1], variants=VARIANTS, figure="votes", figures=list(paper), paper=paper
    )
    table = pd.DataFrame([_row(None, "vft", 0.4) | {"maj_at_1": 0.38, "maj_at_4": 0.42}])
    write_study(tmp_path, votes, table, ORDERINGS[:0], 0.95)
    assert "| `vft` | 38.0 | 42.0 |" in (tmp_path / "study.md").read_text(encoding="utf-8")


def test_a_tuned_study_tells_what_was_chosen_and_of_how_many_trainings() -> None:
    table = TABLE[:1].assign(chosen="learning_rate 0.001", epochs="9 12", trial_accuracy=0.5, trials=8)
    page = replace(PAGE, figure="accuracy", figures=["accuracy"], baselines=[], paper={})
    text = study_text(page, table, ORDERINGS[:0], "figure.png", 0.9)
    assert "| variant | chosen on validation | trainings to choose | epochs of each seed | accuracy % |" in text
    assert "| `vft` | learning_rate 0.001 | 8 | 9 12 | 40.0" in text


def test_accuracy_may_stand_over_the_seconds_of_training(lines: Any) -> None:
    """And the table tells what training took, in whole numbers."""
    table = TABLE[1:].assign(training_seconds=[10.4, 1234.0], training_steps=[7.0, 8.0])
    page = replace(PAGE, baselines=[], over_seconds=True, figures=["accuracy", "training_seconds"], paper={})
    (axes,) = draw(page, table).axes
    assert axes.get_xlabel() == "seconds of training"
    (line,) = lines(axes, "_accuracy")
    assert list(line.get_xdata()) == [10.4, 1234.0]
    assert "60.0 [59.0, 61.0] ± 2.0 | 1,234 |" in study_text(page, table, ORDERINGS[:0], "figure.png", 0.9)
