"""A study for people: its table beside the paper's values, its figure, and all studies as one page."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from aft import __version__
from aft.evaluation.statistics import pearson
from aft.evaluation.variant_notes import ADDED, VARIANT_NOTES
from aft.files import write_atomically, write_json
from aft.reporting.figures import accuracy_figure
from aft.reporting.study_figures import scatter_figure, sweep_figure
from aft.studies.definition import Study
from aft.studies.results import VERDICTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {
    "accuracy": "accuracy %",
    "assessment_accuracy": "assessment accuracy %",
    "paper_assessment_accuracy": "assessment accuracy (Eq. 3) %",
    "perplexity_of_positives": "perplexity of positives",
    "auroc": "AUROC",
}
_SOURCES = {"paper": "the paper's", "implied": "implied", "own": "ours"}
_PLAIN = {"perplexity_of_positives", "auroc"}  # told as they are, not in percent
TABLE, ORDERINGS, TEXT, FIGURE, SUMMARY = "table.csv", "orderings.csv", "study.md", "figure.png", "study.json"


def write_study(
    folder: Path, name: str, study: Study, table: pd.DataFrame, orderings: pd.DataFrame, level: float
) -> None:
    """Everything that is told of a study, whose intervals have this level, into its folder."""
    figure = draw(study, table)
    text = study_text(name, study, table, orderings, f"{FIGURE}", level)
    write_atomically(folder / FIGURE, lambda staged: figure.savefig(staged, format="png", dpi=120))
    write_atomically(folder / TABLE, lambda staged: table.to_csv(staged, index=False))
    write_atomically(folder / ORDERINGS, lambda staged: orderings.to_csv(staged, index=False))
    write_atomically(folder / TEXT, lambda staged: staged.write_text(text, encoding="utf-8"))
    summary = {"name": name, "title": study.title, "seeds": study.seeds, "level": level, "aft": __version__}
    write_json(folder / SUMMARY, summary)


def draw(study: Study, table: pd.DataFrame) -> "Figure":
    """The figure of a study."""
    if study.figure == "pilot":
        return scatter_figure(table.assign(model=table["value"].map("{:,} texts".format)))
    if study.figure == "votes":
        rows, papers = _votes(table), _votes(_paper_table(study))
        return sweep_figure(rows, "samples that vote (k)", paper=papers if len(papers) else None, log_x=True)
    if study.figure == "sweep":
        column = study.figures[0]
        outside = table[table["variant"].isin(study.baselines if study.sweep else [])]
        inside = table.drop(outside.index)
        paper = _paper_table(study).dropna(subset=["x"]) if column in study.paper else pd.DataFrame()
        return sweep_figure(
            _points(inside, column),
            study.sweep.label if study.sweep else "round",
            dict(zip(outside["variant"], outside[column], strict=True)),
            paper.assign(accuracy=paper[column] / 100)[["variant", "x", "accuracy"]] if len(paper) else None,
            bool(study.sweep and study.sweep.log),
        )
    return accuracy_figure(table.assign(per_seed=table["per_seed"].map(_numbers)))


def study_text(name: str, study: Study, table: pd.DataFrame, orderings: pd.DataFrame, figure: str, level: float) -> str:
    """The study in Markdown."""
    seeds = f"seed{'s' * (len(study.seeds) > 1)} {', '.join(map(str, study.seeds))}"
    parts = [
        f"## {study.title}",
        f"{study.question} (`kedro studies run {name}`; {seeds}; {int(table['questions'].iloc[0]):,} questions; "
        f"intervals of {100 * level:g} %)",
        _markdown(_cells(study, table)),
    ]
    if study.paper_source:
        parts.append(f"The paper: {study.paper_source}.")
    if any(map(_is_extension, table["variant"])):
        parts.append("\\* an extension, not in the paper.")
    r = pearson(table["accuracy"], table["assessment_accuracy"]) if study.figure == "pilot" else math.nan
    if not math.isnan(r):
        parts.append(f"Pearson r between accuracy and assessment accuracy over {len(table)} base models: {r:.2f}.")
    parts.append(f"![{study.title}]({figure})")
    if len(orderings):
        parts.append(orderings_text(orderings))
    return "\n\n".join(parts) + "\n"


def orderings_text(orderings: pd.DataFrame) -> str:
    """The claims with their differences in points (of perplexity: as they are), intervals and verdicts, in Markdown."""
    levels = " and ".join(f"{100 * level:g}" for level in sorted(set(orderings["level"])))
    rows = []
    for row in orderings.to_dict("records"):
        scale, form = (1, "+.3f") if row["metric"] in _PLAIN else (100, "+.1f")
        gap, low, high = (format(scale * row[key], form) for key in ("difference", "low", "high"))
        rows.append(
            {
                **({"study": row["study"]} if "study" in row else {}),
                "claim": row["claim"],
                "whose": _SOURCES[row["source"]],
                "compared": f"{row['above']} - {row['below']}, {row['metric'].replace('_', ' ')}",
                f"difference [{levels} %]": f"{gap} [{low}, {high}]",
                "seeds": f"{row['seeds_agreeing']} of {row['seeds']}",
                "verdict": f"**{row['verdict']}**" if row["verdict"] == "contradicts" else row["verdict"],
            }
        )
    return _markdown(rows)


def document(folder: Path, studies: Iterable[str], figures: Path, home: Path) -> str:
    """All finished studies as one page in `home`, its figures copied to `figures`; unfinished ones are named."""
    names = list(studies)
    summaries = {name: _summary(folder / name) for name in names}
    # Without a level it was told by a version whose intervals were over questions only.
    done = [name for name in names if "level" in summaries[name]]
    texts, claims = [], []
    for name in done:
        picture = figures / f"study_{name}.png"
        content = (folder / name / FIGURE).read_bytes()
        write_atomically(picture, lambda staged, content=content: staged.write_bytes(content))
        link = picture.relative_to(home).as_posix()
        texts.append((folder / name / TEXT).read_text(encoding="utf-8").replace(f"({FIGURE})", f"({link})"))
        orderings = pd.read_csv(folder / name / ORDERINGS)
        claims.append(orderings.assign(study=summaries[name]["title"]))
    table = pd.concat(claims, ignore_index=True) if claims else pd.DataFrame()
    missing = [name for name in names if name not in done]
    parts = [
        "# Results of the studies",
        _INTRODUCTION,
        f"Written by `kedro studies document` from the studies' files, AFT {__version__}.",
        *([f"Not run: {', '.join(missing)}."] if missing else []),
        "## Orderings",
        _ORDERINGS,
        *([_tally(table), orderings_text(table)] if len(table) else []),
        *texts,
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


_INTRODUCTION = """
Levels cannot be compared with the paper's: its models have 7 to 13 billion parameters, pocket's has a fraction of a
million and is trained on the spot. What can be compared is what comes out above what. Accuracies are greedy, in
percent, as mean over seeds [interval] ± standard deviation over seeds. The interval of several seeds is a bootstrap
that draws seeds and questions, both with replacement; that of one seed is Wilson's, over questions. Differences are
paired by question and seed.
"""
_ORDERINGS = """
Each row is a claim, the two results that it compares, and the difference, with a paired bootstrap interval that draws
seeds and questions, the same for both results. *agrees*: the interval lies above 0; *contradicts*: below; *not
separable*: it holds 0; *one seed*: it is over questions only, and speaks of no other training. A claim is the paper's,
or follows from what it says of other data or feedback, or is our own question. In how many seeds the difference has the
claimed sign stands beside it. The seeds share one base model, and are few: where three differ by more than chance over
questions, their interval is hardly more than their range, which leaves out the truth in one of four cases, not in one
of twenty. Many rows rest on the same runs, and of many intervals some leave out the truth by chance. Assessment
accuracy and perplexity are compared as means over questions.
"""


def _summary(folder: Path) -> dict[str, Any]:
    """What a study's run noted of itself; nothing if it was not run."""
    try:
        return json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _tally(table: pd.DataFrame) -> str:
    """How many claims of each source have which verdict, in Markdown."""
    counts = table.groupby(["source", "verdict"]).size()
    rows = [
        {"whose": whose, **{verdict: str(counts.get((source, verdict), 0)) for verdict in VERDICTS}}
        for source, whose in _SOURCES.items()
        if source in set(table["source"])
    ]
    return _markdown(rows)


def _cells(study: Study, table: pd.DataFrame) -> list[dict[str, str]]:
    """The rows of the study's table as text, ours beside the paper's."""
    rows = []
    for row in table.to_dict("records"):
        told = {"variant": f"`{row['variant']}`" + (" \\*" if _is_extension(row["variant"]) else "")}
        if table["value"].notna().any():
            head = study.sweep.label if study.sweep else "round"
            told[head] = "" if _missing(row["value"]) else f"{row['value']:g}"
        told |= {_NAMES.get(name, _spoken(name)): _figure(row, name) for name in study.figures}
        for name, values in study.paper.items():
            if study.figure != "votes":
                key = row["variant"] if _missing(row["value"]) else f"{row['variant']}@{_value(study, row['value'])}"
                value = values.get(key, values.get(row["variant"]))
                told[f"paper: {_NAMES.get(name, _spoken(name))}"] = "" if value is None else f"{value:.2f}"
        rows.append(told)
    return rows


def _spoken(name: str) -> str:
    if name.startswith("accuracy_"):
        return f"{name.removeprefix('accuracy_').replace('_', ' ')}: accuracy %"
    return name.replace("_at_", "@").replace("best_of_", "best of ") + " %"


def _figure(row: Mapping[Any, Any], name: str) -> str:
    value = row[name]
    if _missing(value):
        return "-"
    if name in _PLAIN:
        return f"{value:.3f}"
    ends = [float(row[column]) for column in _ends(name)] if name.startswith("accuracy") else []
    interval = f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else ""
    std = float(row["std_over_seeds"]) if name == "accuracy" else math.nan
    return f"{100 * value:.1f}{interval}" + ("" if math.isnan(std) else f" ± {100 * std:.1f}")


def _ends(accuracy: str) -> list[str]:
    """The columns with the interval of an accuracy: on the test questions, or in another set."""
    other = accuracy.removeprefix("accuracy").lstrip("_")
    return [f"{other}_{end}" if other else end for end in ("low", "high")]


def _value(study: Study, value: Any) -> str:
    """A value as the study's file writes it: a column of a table knows numbers with a point only."""
    values = study.sweep.values if study.sweep else range(1, study.n_rounds + 1)
    return next(str(one) for one in values if one == value)


def _paper_table(study: Study) -> pd.DataFrame:
    """The paper's values: one row per variant and x, one column per figure."""
    cells: dict[str, dict[str, float]] = {}
    for column, values in study.paper.items():
        for key, value in values.items():
            cells.setdefault(key, {})[column] = value
    rows = []
    for key, figures in cells.items():
        variant, _, x = key.partition("@")
        rows.append({"variant": variant, "x": float(x) if x else math.nan, **figures})
    return pd.DataFrame(rows)


def _points(table: pd.DataFrame, column: str) -> pd.DataFrame:
    points = pd.DataFrame({"variant": table["variant"], "x": table["value"], "accuracy": table[column]})
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


def _is_extension(variant: str) -> bool:
    return VARIANT_NOTES.get(variant, ADDED).is_extension


def _numbers(text: Any) -> list[float]:
    return [float(value) for value in str(text).split()]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _markdown(rows: list[dict[str, str]]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([row[name] for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
