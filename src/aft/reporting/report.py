"""The HTML report of a comparison: what was compared, the results, and what they were made of.

Here its content is computed as plain data; `templates/report.html.j2` has the words around it. The page is
self-contained: no script, no file beside it, no connection.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from aft.alignment.variants import Variant, marked
from aft.nested import leaves
from aft.reporting.answers import MOST_QUESTIONS
from aft.reporting.in_words import leaders
from aft.reporting.render import render

PAPER_ADDRESS = "https://arxiv.org/abs/2309.02144"
NOTHING = "\N{EM DASH}"  # where a value would stand


class Cell(NamedTuple):
    """A value with a note in small below it; `direction` is "up" or "down" for a difference that is one for sure."""

    value: str
    note: str
    direction: str = ""


class Table(NamedTuple):
    """The titles of the columns, and rows whose first cell names them."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]


@dataclass(frozen=True)
class Compared:
    """A comparison: the tables of `aft.evaluation.compare`, the variants configured, and the level of the intervals."""

    recipe: str
    comparison: pd.DataFrame
    differences: pd.DataFrame
    variants: Mapping[str, Variant]
    baseline: str = "vft"
    level: float = 0.95


@dataclass(frozen=True)
class MadeOf:
    """What the compared models were made of, as nested mappings that are shown as they are.

    `feedback` is the summary of the labelled samples, `hashes` are those of models and data, `warnings` sentences about
    the trainings.
    """

    feedback: Mapping[str, Any]
    settings: Mapping[str, Any]
    hashes: Mapping[str, Any]
    version: str
    warnings: Sequence[str] = ()


def html_report(compared: Compared, made_of: MadeOf, figures: Mapping[str, bytes]) -> str:
    """The whole evaluation as one self-contained HTML page; the same arguments give the same text.

    `figures` are PNG files by name. All text is escaped.
    """
    variants, baseline = compared.variants, compared.baseline
    comparison = compared.comparison
    comparison = comparison.assign(marked=[marked(name, variants) for name in comparison["variant"]])
    best, headline = _headline(comparison, baseline)
    return render(
        "report.html.j2",
        title=f"{compared.recipe}: which variant reasons better?",
        paper=PAPER_ADDRESS,
        facts=_facts(compared, made_of.version),
        answered=_answered(int(comparison["questions"].max())),
        best=best,
        headline=headline,
        warnings=made_of.warnings,
        comparison=_comparison_table(comparison, baseline),
        by_k=_by_k(comparison),
        sets=_sets_table(comparison, baseline),
        figures={name: b64encode(data).decode("ascii") for name, data in figures.items()},
        pairs=_differences_table(compared.differences, variants),
        feedback=[(path.replace("_", " "), shown(_amount(value))) for path, value in leaves(made_of.feedback)],
        variants=[_described(name, variants) for name in comparison["variant"]],
        settings=[(path, shown(value)) for path, value in leaves(made_of.settings)],
        hashes=[(path, shown(value)) for path, value in leaves(made_of.hashes)],
        version=made_of.version,
    )


def _facts(compared: Compared, version: str) -> dict[str, str]:
    comparison = compared.comparison
    seeds = dict.fromkeys(seed for text in comparison["seeds"] for seed in str(text).split())
    return {
        "recipe": compared.recipe,
        "variants": str(len(comparison)),
        "baseline": compared.baseline,
        "seeds": ", ".join(seeds),
        "test questions": " / ".join(dict.fromkeys(f"{count:,}" for count in comparison["questions"])),
        **_unanswered(comparison),
        "intervals": f"{100 * compared.level:g} %",
        "version": version,
    }


def _answered(questions: int) -> str:
    """Which questions the page of answers has."""
    return "every question" if questions <= MOST_QUESTIONS else f"{MOST_QUESTIONS:,} of {questions:,} questions"


def _unanswered(comparison: pd.DataFrame) -> dict[str, str]:
    """How many test questions no variant was asked; nothing if there is none."""
    most = comparison["questions_without_response"].max() if "questions_without_response" in comparison else 0
    return {"too long to be answered, so wrong": f"{most:g}"} if most else {}


def _headline(comparison: pd.DataFrame, baseline: str) -> tuple[str, str]:
    """The most accurate variants, and in words how far one leads and how many differ from the baseline for sure."""
    rows = comparison.to_dict("records")
    first = [row for row in rows if row["variant"] in leaders(comparison)]
    best = first[0]
    text = f"with {_percent(best['accuracy'])} % {_ends(best['low'], best['high']) if len(first) == 1 else 'each'}"
    if len(first) == 1 and best["variant"] != baseline:
        difference = _percent(best["difference"], sign=True)
        ends = _ends(best["difference_low"], best["difference_high"], sign=True)
        text += f", {difference} points {ends} against {baseline}"
    others = [row for row in rows if row["variant"] != baseline]
    above = sum(row["difference_low"] > 0 for row in others)
    below = sum(row["difference_high"] < 0 for row in others)
    return " and ".join(row["marked"] for row in first), (
        f"{text}. Of {len(others)} variants beside {baseline}, {above} stand above it and {below} below it with an "
        "interval of the difference that leaves out zero."
    )


def _comparison_table(comparison: pd.DataFrame, baseline: str) -> Table:
    """The figures that matter, k as large as was measured."""
    shares = _of_k(_measured(comparison)[-1:])
    numbers = {"AUROC": ("auroc", ".3f"), "calibration error": ("calibration_error", ".3f")}
    numbers |= {"perplexity of right answers": ("perplexity_of_positives", ".2f")}
    means = {f"mean@{k} %": f"mean_at_{k}" for k in _measured(comparison, "mean_at_")}
    rows = [
        [
            row["marked"],
            Cell(_percent(row["accuracy"]), f"{_ends(row['low'], row['high'])} {_deviation(row)}".strip()),
            NOTHING if row["variant"] == baseline else _difference(row),
            *(Cell(_percent(row.get(m)), _ends(row.get(f"{m}_low"), row.get(f"{m}_high"))) for m in means.values()),
            *(_percent(row.get(column)) for column in shares.values()),
            Cell(_percent(row["assessment_accuracy"]), _ends(row.get("assessment_low"), row.get("assessment_high"))),
            *(_number(row.get(column), form) for column, form in numbers.values()),
        ]
        for row in comparison.to_dict("records")
    ]
    return Table(
        ["variant", "accuracy %", f"minus {baseline}", *means, *shares, "assessment accuracy %", *numbers], rows
    )


def _by_k(comparison: pd.DataFrame) -> Table | None:
    """maj@k, pass@k and best-of-k for every k, if there are several."""
    ks = _measured(comparison)
    if len(ks) < 2:
        return None
    columns = _of_k(ks)
    rows = [
        [row["marked"], *(_percent(row.get(column)) for column in columns.values())]
        for row in comparison.to_dict("records")
    ]
    return Table(["variant", *columns], rows)


def _sets_table(comparison: pd.DataFrame, baseline: str) -> Table | None:
    """Accuracy on each other question set, with the difference to the baseline."""
    names = [name.removeprefix("accuracy_") for name in comparison.columns if name.startswith("accuracy_")]
    sets = [name for name in names if f"{name}_difference" in comparison]
    if not sets:
        return None
    rows = []
    for row in comparison.to_dict("records"):
        cells: list[str | Cell] = [row["marked"]]
        for name in sets:
            cells.append(Cell(_percent(row[f"accuracy_{name}"]), _ends(row[f"{name}_low"], row[f"{name}_high"])))
            cells.append(NOTHING if row["variant"] == baseline else _difference(row, f"{name}_"))
        rows.append(cells)
    return Table(["variant", *(title for name in sets for title in (f"{name} %", f"minus {baseline}"))], rows)


def _differences_table(differences: pd.DataFrame, variants: Mapping[str, Variant]) -> Table | None:
    if differences.empty:
        return None
    rows = [
        [
            f"{marked(row['variant'], variants)} minus {marked(row['other'], variants)}",
            _difference(row),
            ", ".join(str(row["mcnemar_p"]).split()),
            ", ".join(str(row["shared_seeds"]).split()),
        ]
        for row in differences.to_dict("records")
    ]
    return Table(["pair", "difference, points", "McNemar p, by seed", "seeds"], rows)


def _described(name: str, variants: Mapping[str, Variant]) -> tuple[str, str, str]:
    """What a variant is, and where the paper has it, if it has."""
    return marked(name, variants), variants[name].note, variants[name].source or "not in the paper"


def _measured(comparison: pd.DataFrame, figure: str = "maj_at_") -> list[int]:
    """Every k for which there is such a figure."""
    return sorted(int(k) for k in (str(name).removeprefix(figure) for name in comparison.columns) if k.isdecimal())


def _of_k(ks: Sequence[int]) -> dict[str, str]:
    """Title and column of each figure of k samples."""
    figures = (("maj@{} %", "maj_at_{}"), ("pass@{} %", "pass_at_{}"), ("best-of-{} %", "best_of_{}"))
    return {title.format(k): column.format(k) for title, column in figures for k in ks}


def _difference(row: Mapping[Any, Any], prefix: str = "") -> Cell:
    """A difference in points with its interval, marked where that leaves out zero."""
    difference, low, high = (row[f"{prefix}difference{end}"] for end in ("", "_low", "_high"))
    points, ends = _percent(difference, sign=True), _ends(low, high, sign=True)
    if low > 0:
        return Cell(f"▲ {points}", ends, "up")
    return Cell(f"▼ {points}", ends, "down") if high < 0 else Cell(points, ends)


def _deviation(row: Mapping[Any, Any]) -> str:
    std = row.get("std_over_seeds")
    return "" if _is_nothing(std) else f"± {_percent(std)}"


def _ends(low: Any, high: Any, sign: bool = False) -> str:
    return "" if _is_nothing(low) else f"[{_percent(low, sign)}, {_percent(high, sign)}]"


def _percent(share: Any, sign: bool = False) -> str:
    return NOTHING if _is_nothing(share) else _number(100 * share, "+.1f" if sign else ".1f")


def _number(value: Any, form: str) -> str:
    return NOTHING if _is_nothing(value) else format(value, form).replace("-", "\N{MINUS SIGN}")


def _amount(value: Any) -> Any:
    """Counts with their thousands apart and means with two digits; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return f"{value:,}" if isinstance(value, int) else _number(value, ",.2f")


def shown(value: Any) -> str:
    """A setting as a person writes it: yes and no, lists with commas, a dash for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or NOTHING
    return NOTHING if value is None or value == {} else str(value)


def _is_nothing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))
