"""One page for people: what was compared, how it came out, and what it was made of.

The page needs nothing but itself: no script, no file beside it, no connection.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from aft.evaluation.variant_notes import ADDED, VARIANT_NOTES, marked
from aft.reporting.markup import NOTHING, Html, element, joined, leaves, nested_table, page, png, table

PAPER_ADDRESS = "https://arxiv.org/abs/2309.02144"
_MOST_OPEN_ROWS = 15  # of the paired differences; more are folded

_CAPTIONS = {
    "accuracy_figure": (
        "Accuracy",
        "Share of test questions that each variant answers correctly when it decodes greedily, with its interval.",
    ),
    "score_figure": (
        "Scores of right and wrong answers",
        "Mean token log-probability that each variant gives the same held-out responses. The further apart the two "
        "kinds stand, the better the variant tells them apart; both far to the left are mostly a model that degrades.",
    ),
    "training_figure": (
        "Scores while training",
        "Without a constraint wrong responses are pushed down without end, and right ones may follow.",
    ),
    "reliability_figure": (
        "Accuracy by confidence",
        "Sampled responses in bins of equal count. Confidence is the geometric mean token probability; it is no "
        "probability of being right, so the distance to the diagonal tells variants apart and nothing more.",
    ),
    "sweep_figure": ("Accuracy over a setting", "Each point is a run of its own, or several of other seeds."),
    "scatter_figure": (
        "Task accuracy and assessment accuracy of several base models",
        "Each point is one base model after fine-tuning on the references.",
    ),
}

_TERMS = (
    ("accuracy", "Share of test questions answered correctly by greedy decoding; a mean over seeds."),
    (
        "[low, high]",
        "Interval: Wilson's over test questions for one seed, of which it says how sure the figure is for this trained "
        "model; for several a bootstrap that draws seeds and questions, for models of other seeds. Of two or three "
        "seeds it is hardly more than their range, and too narrow where seeds differ much; ± is the deviation over "
        "seeds.",
    ),
    (
        "difference",
        "In percentage points, paired by question and seed over the seeds that both have. Coloured, and marked ▲ or ▼, "
        "where its interval leaves out zero. With many variants some intervals do so by chance.",
    ),
    ("McNemar p", "Exact test that both are equally often right, one p-value per shared seed."),
    ("maj@k", "Accuracy of a majority vote over k sampled answers; the expectation over all choices of k samples."),
    ("pass@k", "Probability that at least one of k sampled answers is right."),
    ("best-of-k", "Accuracy of the answer among k samples that the model itself scores highest."),
    (
        "assessment accuracy",
        "Share of (right, wrong) pairs of responses to one held-out question in which the right one has the higher "
        "score; a tie counts one half, chance is 50 %. The mean over questions.",
    ),
    (
        "AUROC",
        "Probability that a right sample scores above a wrong one when both may be from any questions; chance is 0.5.",
    ),
    (
        "calibration error",
        "Mean distance between confidence (the geometric mean token probability) and accuracy over ten bins. That "
        "confidence is not meant as a probability of being right.",
    ),
    ("perplexity", "Mean over held-out right responses of exp(-score); near 1 is a model that is sure of them."),
)


def html_report(
    *,
    recipe: str,
    comparison: pd.DataFrame,
    differences: pd.DataFrame,
    figures: Mapping[str, bytes],
    feedback: Mapping[str, Any],
    settings: Mapping[str, Any],
    hashes: Mapping[str, Any],
    version: str,
    warnings: Sequence[str] = (),
    baseline: str = "vft",
    level: float = 0.95,
) -> str:
    """The whole evaluation as one self-contained HTML page; the same arguments give the same text.

    `comparison` and `differences` are the tables of `aft.evaluation.compare`, `figures` PNG files by name, `feedback`
    the summary of the labelled samples, `settings` and `hashes` (of models and data) nested mappings that are shown
    as they are, `warnings` sentences about the trainings, `level` that of the intervals. All text is escaped.
    """
    sections = {
        "Comparison": [_comparison_table(comparison, baseline), _terms()],
        "By number of samples": _by_k(comparison),
        "Other question sets": _sets_table(comparison, baseline),
        "Figures": [_figure(name, data) for name, data in figures.items()],
        "Paired differences": _differences_table(differences),
        "Feedback": [_feedback_table(feedback)] if feedback else [],
        "The variants": _variants_table(comparison["variant"]),
        "Settings": [_folded("All settings of this run", nested_table(("setting", "value"), settings))],
        "Fingerprints": [nested_table(("of", "hash"), hashes, class_="hashes")],
    }
    shown = {title: content for title, content in sections.items() if content}
    return page(
        f"{recipe}: which variant reasons better?",
        _header(recipe, comparison, baseline, level, version),
        _warnings(warnings),
        element("nav", *(element("a", title, href=f"#{_anchor(title)}") for title in shown)),
        *(element("section", element("h2", title), *content, id=_anchor(title)) for title, content in shown.items()),
        element("footer", f"Made by aft {version}. Nothing on this page is loaded from elsewhere."),
    )


def _header(recipe: str, comparison: pd.DataFrame, baseline: str, level: float, version: str) -> Html:
    seeds = dict.fromkeys(seed for text in comparison["seeds"] for seed in str(text).split())
    facts = {
        "recipe": recipe,
        "variants": str(len(comparison)),
        "baseline": baseline,
        "seeds": ", ".join(seeds),
        "test questions": " / ".join(dict.fromkeys(f"{count:,}" for count in comparison["questions"])),
        **_unanswered(comparison),
        "intervals": f"{100 * level:g} %",
        "version": version,
    }
    return element(
        "header",
        element("h1", f"{recipe}: which variant reasons better?"),
        element(
            "p",
            "A language model was fine-tuned on reference solutions, and again in ways that also learn from its own "
            "right and wrong solutions, after “Making Large Language Models Better Reasoners with Alignment” (",
            element("a", "arXiv 2309.02144", href=PAPER_ADDRESS),
            "). All variants answered the same test questions.",
            class_="soft",
        ),
        element(
            "dl",
            *(element("div", element("dt", name), element("dd", value)) for name, value in facts.items()),
            class_="facts",
        ),
        element("p", *_headline(comparison, baseline)),
    )


def _unanswered(comparison: pd.DataFrame) -> dict[str, str]:
    """How many test questions no variant was asked; nothing if there is none."""
    most = comparison["questions_without_response"].max() if "questions_without_response" in comparison else 0
    return {"too long to be answered, so wrong": f"{most:g}"} if most else {}


def _headline(comparison: pd.DataFrame, baseline: str) -> list[str]:
    """The most accurate variant in a sentence, and how many differ from the baseline for sure."""
    rows = comparison.to_dict("records")
    best = max(rows, key=lambda row: row["accuracy"])
    text = [
        "Most accurate here: ",
        element("strong", marked(str(best["variant"]))),
        f" with {_percent(best['accuracy'])} % {_ends(best['low'], best['high'])}",
    ]
    others = [row for row in rows if row["variant"] != baseline]
    if best["variant"] != baseline:
        difference = _percent(best["difference"], sign=True)
        ends = _ends(best["difference_low"], best["difference_high"], sign=True)
        text.append(f", {difference} points {ends} against {baseline}")
    above = sum(row["difference_low"] > 0 for row in others)
    below = sum(row["difference_high"] < 0 for row in others)
    return [
        *text,
        f". Of {len(others)} variants beside {baseline}, {above} stand above it and {below} below it with an interval "
        "of the difference that leaves out zero.",
    ]


def _warnings(warnings: Sequence[str]) -> Html:
    if not warnings:
        return Html("")
    return element(
        "div",
        element("strong", "Warnings of the trainings"),
        element("ul", *(element("li", one) for one in warnings)),
        class_="warnings",
    )


def _comparison_table(comparison: pd.DataFrame, baseline: str) -> Html:
    """The figures that matter, k as large as was measured."""
    ks = _measured(comparison)
    shares = _of_k(ks[-1:])
    header = ["variant", "accuracy %", f"minus {baseline}", *shares, "assessment accuracy %"]
    numbers = {"AUROC": ("auroc", ".3f"), "calibration error": ("calibration_error", ".3f")}
    numbers |= {"perplexity of right answers": ("perplexity_of_positives", ".2f")}
    rows = [
        [
            marked(str(row["variant"])),
            _with_note(_percent(row["accuracy"]), _ends(row["low"], row["high"]), _deviation(row)),
            NOTHING if row["variant"] == baseline else _difference(row, ""),
            *(_percent(row.get(column)) for column in shares.values()),
            _with_note(
                _percent(row["assessment_accuracy"]), _ends(row.get("assessment_low"), row.get("assessment_high"))
            ),
            *(_number(row.get(column), form) for column, form in numbers.values()),
        ]
        for row in comparison.to_dict("records")
    ]
    return table([*header, *numbers], rows)


def _terms() -> Html:
    terms = [part for name, text in _TERMS for part in (element("dt", name), element("dd", text))]
    return _folded("What the columns mean", element("dl", *terms, class_="terms"))


def _by_k(comparison: pd.DataFrame) -> list[Html]:
    """maj@k, pass@k and best-of-k for every k, if there are several."""
    ks = _measured(comparison)
    if len(ks) < 2:
        return []
    columns = _of_k(ks)
    rows = [
        [marked(str(row["variant"])), *(_percent(row.get(column)) for column in columns.values())]
        for row in comparison.to_dict("records")
    ]
    return [table(["variant", *columns], rows)]


def _sets_table(comparison: pd.DataFrame, baseline: str) -> list[Html]:
    """Accuracy on each other question set, with the difference to the baseline."""
    sets = [
        name.removeprefix("accuracy_")
        for name in comparison.columns
        if name.startswith("accuracy_") and f"{name.removeprefix('accuracy_')}_difference" in comparison
    ]
    if not sets:
        return []
    header = ["variant", *(title for name in sets for title in (f"{name} %", f"minus {baseline}"))]
    rows = []
    for row in comparison.to_dict("records"):
        cells = [marked(str(row["variant"]))]
        for name in sets:
            ends = _ends(row[f"{name}_low"], row[f"{name}_high"])
            cells.append(_with_note(_percent(row[f"accuracy_{name}"]), ends))
            cells.append(NOTHING if row["variant"] == baseline else _difference(row, f"{name}_"))
        rows.append(cells)
    text = "Accuracy of greedy answers to other questions than the test questions; intervals and signs are as above."
    return [element("p", text, class_="soft"), table(header, rows)]


def _figure(name: str, data: bytes) -> Html:
    title, text = _CAPTIONS.get(name, (name.replace("_", " "), ""))
    caption = element("figcaption", element("strong", title), f". {text}" if text else "")
    return element("figure", png(data, alt=title), caption)


def _differences_table(differences: pd.DataFrame) -> list[Html]:
    if differences.empty:
        return []
    rows = [
        [
            f"{marked(str(row['variant']))} minus {marked(str(row['other']))}",
            _difference(row, ""),
            ", ".join(str(row["mcnemar_p"]).split()),
            ", ".join(str(row["shared_seeds"]).split()),
        ]
        for row in differences.to_dict("records")
    ]
    whole = table(["pair", "difference, points", "McNemar p, by seed", "seeds"], rows)
    return [whole] if len(rows) <= _MOST_OPEN_ROWS else [_folded(f"All {len(rows)} pairs", whole)]


def _feedback_table(feedback: Mapping[str, Any]) -> Html:
    """What the sampled training responses were."""
    readable = {path.replace("_", " "): _amount(value) for path, value in leaves(feedback)}
    return nested_table(("sampled training responses", ""), readable)


def _variants_table(variants: Iterable[Any]) -> list[Html]:
    """What each compared variant is, and what is the paper's and what is not."""
    notes = [(str(variant), VARIANT_NOTES.get(str(variant), ADDED)) for variant in variants]
    rows = [(marked(variant), note.text, note.source) for variant, note in notes]
    return [
        table(["variant", "what it is", "in the paper"], rows, class_="text"),
        element(
            "p",
            "* An extension of this project that the paper does not have: the boundary constraint for RRHF, PRO and "
            "DPO, and the detached constraint for DPO. The paper derives DPO for rankings but does not run it.",
        ),
        element(
            "p",
            "Of the figures, accuracy, the majority vote, assessment accuracy and perplexity are the paper's; it takes "
            "assessment accuracy over three right and three wrong training responses, which the comparison table of "
            "the run has beside ours. Best-of-k, pass@k, AUROC, calibration, paired intervals and tests are "
            "additions. The paper's models have 7 and 13 billion parameters: compare orderings with it, not levels.",
        ),
    ]


def _folded(summary: str, content: Html) -> Html:
    return element("details", element("summary", summary), content)


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _measured(comparison: pd.DataFrame) -> list[int]:
    return sorted(int(name.removeprefix("maj_at_")) for name in comparison.columns if name.startswith("maj_at_"))


def _of_k(ks: Sequence[int]) -> dict[str, str]:
    """Title and column of each figure of k samples."""
    figures = (("maj@{} %", "maj_at_{}"), ("pass@{} %", "pass_at_{}"), ("best-of-{} %", "best_of_{}"))
    return {title.format(k): column.format(k) for title, column in figures for k in ks}


def _difference(row: Mapping[Any, Any], prefix: str) -> Html:
    """A difference in points with its interval, marked where that leaves out zero."""
    difference, low, high = (row[f"{prefix}difference{end}"] for end in ("", "_low", "_high"))
    ends = _ends(low, high, sign=True)
    if low > 0:
        return _with_note(element("span", f"▲ {_percent(difference, sign=True)}", class_="up"), ends)
    if high < 0:
        return _with_note(element("span", f"▼ {_percent(difference, sign=True)}", class_="down"), ends)
    return _with_note(_percent(difference, sign=True), ends)


def _with_note(value: str, *notes: str) -> Html:
    """A value with its interval and the like in small below it."""
    return joined([value, element("small", " ".join(filter(None, notes)))])


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


def _is_nothing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))
