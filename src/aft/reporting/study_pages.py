"""The page of a study: its table beside the paper's values, and its figure; and all studies as one page."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from aft import __version__
from aft.alignment.variants import Variant
from aft.evaluation.statistics import pearson
from aft.files import write_atomically, write_json
from aft.reporting.figures import accuracy_figure
from aft.reporting.render import render
from aft.reporting.study_figures import scatter_figure, sweep_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERDICTS = ("agrees", "contradicts", "not separable", "one seed")
NOTHING_TO_COMPARE = "nothing to compare"
_NAMES = {
    "accuracy": "accuracy %",
    "assessment_accuracy": "assessment accuracy %",
    "paper_assessment_accuracy": "assessment accuracy (Eq. 3) %",
    "perplexity_of_positives": "perplexity of positives",
    "auroc": "AUROC",
    "training_steps": "optimiser steps",
    "training_tokens": "tokens read in training",
    "training_seconds": "seconds of training",
}
_TUNED = {"chosen": "chosen on validation", "trials": "trainings to choose", "epochs": "epochs of each seed"}
_SOURCES = {"paper": "the paper's", "implied": "implied", "own": "ours"}
_PLAIN = {"perplexity_of_positives", "auroc"}  # shown as they are, not in percent
TABLE, ORDERINGS, TEXT, FIGURE, SUMMARY = "table.csv", "orderings.csv", "study.md", "figure.png", "study.json"
Place = tuple[str, float | None]  # a variant, and the value of the sweep or the round; None: at any


@dataclass(frozen=True)
class StudyPage:
    """What stands on a study's page beside its results."""

    name: str  # of its command
    title: str
    question: str
    seeds: list[int]
    figure: Literal["accuracy", "sweep", "pilot", "votes"]
    figures: list[str]  # columns of the table that are shown
    variants: Mapping[str, Variant]  # those configured
    x_label: str = "round"  # what the column `value` holds
    log_x: bool = False
    over_seconds: bool = False  # the figure has seconds of training as x
    baselines: list[str] = field(default_factory=list)  # variants that do not depend on x
    paper: Mapping[str, Mapping[Place, float]] = field(default_factory=dict)  # by column; shares in percent
    paper_source: str | None = None
    env: str | None = None  # of its command


def write_study(folder: Path, page: StudyPage, table: pd.DataFrame, orderings: pd.DataFrame, level: float) -> None:
    """Write text, figure, tables and summary of a study, whose intervals have this level, into its folder."""
    asked = [name for figure in page.figures for name in (figure, *(_ends(figure) if _has_ends(figure) else ()))]
    table = table.reindex(columns=[*table.columns, *(name for name in asked if name not in table)])  # NaN: not measured
    figure, text = draw(page, table), study_text(page, table, orderings, FIGURE, level)
    write_atomically(folder / FIGURE, lambda staged: figure.savefig(staged, format="png", dpi=120))
    write_atomically(folder / TABLE, lambda staged: table.to_csv(staged, index=False))
    write_atomically(folder / ORDERINGS, lambda staged: orderings.to_csv(staged, index=False))
    write_atomically(folder / TEXT, lambda staged: staged.write_text(text, encoding="utf-8"))
    summary = {"name": page.name, "title": page.title, "seeds": page.seeds, "level": level, "aft": __version__}
    write_json(folder / SUMMARY, summary)


def draw(page: StudyPage, table: pd.DataFrame) -> "Figure":
    """The figure of a study."""
    paper = _paper_table(page)
    if page.figure == "pilot":
        return scatter_figure(table.assign(model=table["value"].map(lambda value: f"{value:,} {page.x_label}")))
    if page.figure == "votes":
        papers = _votes(paper)
        shown = papers if len(papers) else None
        return sweep_figure(_votes(table), "samples that vote (k)", page.variants, paper=shown, log_x=True)
    if page.figure == "sweep":
        column = page.figures[0]
        outside = table[table["variant"].isin(page.baselines)]
        paper = paper.dropna(subset=["x"]) if column in page.paper else pd.DataFrame()
        x, label = ("training_seconds", _NAMES["training_seconds"]) if page.over_seconds else ("value", page.x_label)
        return sweep_figure(
            _points(table.drop(outside.index), column, x),
            label,
            page.variants,
            dict(zip(outside["variant"], outside[column], strict=True)),
            paper.assign(accuracy=paper[column] / 100)[["variant", "x", "accuracy"]] if len(paper) else None,
            page.log_x,
            page.over_seconds,
        )
    at = ["" if _missing(value) else f"{page.x_label} {value:g}" for value in table["value"]]
    return accuracy_figure(table.assign(per_seed=table["per_seed"].map(_numbers), at=at), page.variants)


def study_text(page: StudyPage, table: pd.DataFrame, orderings: pd.DataFrame, figure: str, level: float) -> str:
    """The study in Markdown, with a link to its `figure`."""
    r = pearson(table["accuracy"], table["assessment_accuracy"]) if page.figure == "pilot" else math.nan
    return render(
        "study.md.j2",
        name=page.name,
        env=page.env,
        title=page.title,
        question=page.question,
        seeds=page.seeds,
        questions=f"{int(table['questions'].iloc[0]):,}",
        level=f"{100 * level:g}",
        results=_results(page, table),
        paper_source=page.paper_source,
        has_extension=any(page.variants[name].extension for name in table["variant"]),
        correlation="" if math.isnan(r) else f"{r:.2f}",
        figure=figure,
        claims=_claims(orderings),
    )


def document(folder: Path, studies: Iterable[str], figures: Path, home: Path, reading: str = "") -> str:
    """All finished studies as one page in `home`, its figures copied to `figures`; unfinished ones are named.

    `reading` is what a person makes of them, which stands before the tables.
    """
    names = list(studies)
    summaries = {name: _summary(folder / name) for name in names}
    # Without a level it was written by a version whose intervals were over questions only.
    done = [name for name in names if "level" in summaries[name]]
    texts, orderings = [], []
    for name in done:
        picture = figures / f"study_{name}.png"
        content = (folder / name / FIGURE).read_bytes()
        write_atomically(picture, lambda staged, content=content: staged.write_bytes(content))
        text, link = (folder / name / TEXT).read_text(encoding="utf-8"), picture.relative_to(home).as_posix()
        texts.append(text.replace(f"({FIGURE})", f"({link})").strip("\n"))
        orderings.append(pd.read_csv(folder / name / ORDERINGS).assign(study=summaries[name]["title"]))
    table = pd.concat(orderings, ignore_index=True) if orderings else pd.DataFrame()
    return render(
        "studies.md.j2",
        version=__version__,
        reading=reading.strip(),
        missing=[name for name in names if name not in done],
        older=[name for name in done if summaries[name].get("aft") != __version__],
        tally=_tally(table) if len(table) else [],
        claims=_claims(table),
        texts=texts,
    )


def _summary(folder: Path) -> dict[str, Any]:
    """What a study's run noted of itself; nothing if it was not run."""
    try:
        return json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _claims(orderings: pd.DataFrame) -> list[dict[str, str]]:
    """The claims with their differences in points (of perplexity: as they are), intervals and verdicts."""
    levels = set(orderings["level"]) if len(orderings) else set[float]()
    rows = []
    for row in orderings.to_dict("records"):
        scale, form = (1, "+.3f") if row["metric"] in _PLAIN else (100, "+.1f")
        gap, low, high = (format(scale * row[key], form) for key in ("difference", "low", "high"))
        level = f"{100 * row['level']:g} %"
        difference = "-" if _missing(row["difference"]) else f"{gap} [{low}, {high}]"
        rows.append(
            {
                **({"study": row["study"]} if "study" in row else {}),
                "claim": row["claim"],
                "whose": _SOURCES[row["source"]],
                "compared": f"{row['above']} - {row['below']}, {row['metric'].replace('_', ' ')}",
                **(
                    {f"difference [{level}]": difference}
                    if len(levels) == 1
                    else {"difference [interval]": f"{difference} ({level})"}
                ),
                "seeds": f"{row['seeds_agreeing']} of {row['seeds']}",
                "verdict": f"**{row['verdict']}**" if row["verdict"] == "contradicts" else row["verdict"],
            }
        )
    return rows


def _tally(orderings: pd.DataFrame) -> list[dict[str, str]]:
    """How many claims of each source have which verdict."""
    counts = orderings.groupby(["source", "verdict"]).size()
    shown = [*VERDICTS, *({NOTHING_TO_COMPARE} & set(orderings["verdict"]))]
    return [
        {"whose": whose, **{verdict: str(counts.get((source, verdict), 0)) for verdict in shown}}
        for source, whose in _SOURCES.items()
        if source in set(orderings["source"])
    ]


def _results(page: StudyPage, table: pd.DataFrame) -> list[dict[str, str]]:
    """The rows of the study's table as text, ours beside the paper's."""
    rows = []
    for row in table.to_dict("records"):
        variant, x = row["variant"], None if _missing(row["value"]) else row["value"]
        cells = {"variant": f"`{variant}`" + (" \\*" if page.variants[variant].extension else "")}
        if table["value"].notna().any():
            cells[page.x_label] = "" if x is None else f"{x:g}"
        if "trials" in table:
            cells |= {heading: str(row[name]) for name, heading in _TUNED.items()}
        cells |= {_heading(name): _figure(row, name) for name in page.figures}
        for name, values in page.paper.items() if page.figure != "votes" else ():
            value = values.get((variant, x), values.get((variant, None)))
            cells[f"paper: {_heading(name)}"] = "" if value is None else f"{value:.2f}"
        rows.append(cells)
    return rows


def _heading(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    if name.startswith("accuracy_"):
        return f"{name.removeprefix('accuracy_').replace('_', ' ')}: accuracy %"
    return name.replace("_at_", "@").replace("best_of_", "best of ") + " %"


def _figure(row: Mapping[Any, Any], name: str) -> str:
    value = row[name]
    if _missing(value):
        return "-"
    if name in _PLAIN:
        return f"{value:.3f}"
    if name.startswith("training_"):
        return f"{value:,.0f}"
    ends = [float(row[column]) for column in _ends(name)] if _has_ends(name) else []
    interval = f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else ""
    std = float(row["std_over_seeds"]) if name == "accuracy" else math.nan
    return f"{100 * value:.1f}{interval}" + ("" if math.isnan(std) else f" ± {100 * std:.1f}")


def _has_ends(figure: str) -> bool:
    """Whether the table has an interval of a figure."""
    return figure.startswith(("accuracy", "mean_at_"))


def _ends(accuracy: str) -> list[str]:
    """The columns with the interval of an accuracy: on the test questions, greedy or of samples, or in another set."""
    other = accuracy.removeprefix("accuracy").lstrip("_")
    return [f"{other}_{end}" if other else end for end in ("low", "high")]


def _paper_table(page: StudyPage) -> pd.DataFrame:
    """The paper's values: one row per variant and x (NaN: at any), one column per figure."""
    places = dict.fromkeys(place for values in page.paper.values() for place in values)
    columns = {name: [values.get(place) for place in places] for name, values in page.paper.items()}
    return pd.DataFrame({"variant": [variant for variant, _ in places], "x": [x for _, x in places], **columns})


def _points(table: pd.DataFrame, column: str, x: str) -> pd.DataFrame:
    points = pd.DataFrame({"variant": table["variant"], "x": table[x], "accuracy": table[column]})
    points["low"], points["high"] = (table[end] for end in _ends(column))
    if column == "accuracy":
        points["per_seed"] = table["per_seed"].map(_numbers)
    return points.dropna(subset=["x"])


def _votes(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of variant, x = k and accuracy from the columns maj_at_k, which the paper's table has in percent."""
    columns = [name for name in table if str(name).startswith("maj_at_")]
    chosen = table[["variant", *columns]] if columns else pd.DataFrame({"variant": []})
    long = chosen.melt("variant", var_name="x", value_name="accuracy")
    if long.empty:
        return long
    scale = 100 if long["accuracy"].max() > 1 else 1
    return long.assign(x=long["x"].str.removeprefix("maj_at_").astype(int), accuracy=long["accuracy"] / scale)


def _numbers(text: Any) -> list[float]:
    return [float(value) for value in str(text).split()]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
