"""The page as a browser reads it: whole, self-contained, escaped, and with the figures that it was given."""

import base64
import re
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from aft.alignment.variants import Variant
from aft.pipelines.comparisons import variants_of
from aft.reporting.report import NOTHING, PAPER_ADDRESS, Compared, MadeOf, html_report, shown
from aft.training.settings import Objective

VARIANTS = variants_of(
    yaml.safe_load((Path(__file__).parents[2] / "conf/base/parameters_align_train.yml").read_text("utf-8"))["align"]
)

NAN = float("nan")
COMPARED = tuple(field.name for field in fields(Compared))
MALICIOUS = "<script>alert('x')</script>\"><img src=http://evil.example/x onerror=alert(1)>"
VOID = {"img", "meta", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements that are open, references, attributes, tags, and the text outside of the style."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        if self.rows and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data

    def row(self, first: str, cells: int | None = None) -> list[str]:
        """The first row with that name (and number of cells)."""
        return next(row for row in self.rows if row[0] == first and cells in (None, len(row)))

    def references(self) -> list[str]:
        return [value for name, value in self.attributes if name in ("href", "src", "srcset", "action", "data")]


def make_comparison(variants=("vft", "aft_dc", "rrhf_bc"), **changed) -> pd.DataFrame:
    """40 %, 45 %, 50 % …, five points above the one before, each ± 2 points; the others are round numbers."""
    rows = []
    for place, variant in enumerate(variants):
        accuracy, difference = 0.4 + 0.05 * place, 0.05 * place
        row = {"variant": variant, "seeds": "0 1 2", "questions": 1000, "accuracy": accuracy}
        row |= {"low": accuracy - 0.02, "high": accuracy + 0.02, "std_over_seeds": 0.01}
        row |= {"difference": difference, "difference_low": difference - 0.03, "difference_high": difference + 0.03}
        row |= {"mcnemar_p": "0.5 0.01 1e-05", "shared_seeds": "0 1 2"}
        for k in (1, 8):
            row |= {f"maj_at_{k}": 0.4 + k / 100, f"pass_at_{k}": 0.6 + k / 100, f"best_of_{k}": 0.5 + k / 100}
        row |= {"assessment_accuracy": 0.78, "assessment_low": 0.77, "assessment_high": 0.79}
        row |= {"auroc": 0.7123, "calibration_error": 0.4567, "perplexity_of_positives": 1.104}
        rows.append(row | changed)
    return pd.DataFrame(rows)


def make_differences(*pairs) -> pd.DataFrame:
    rows = [
        {"variant": one, "other": other, "difference": -0.05, "difference_low": -0.08, "difference_high": -0.02}
        | {"mcnemar_p": "0.5 0.01", "shared_seeds": "0 1"}
        for one, other in pairs
    ]
    return pd.DataFrame(rows)


def report(**changed) -> str:
    arguments = {
        "recipe": "pocket",
        "comparison": make_comparison(),
        "differences": make_differences(("rrhf_bc", "aft_dc")),
        "variants": VARIANTS,
        "figures": {"accuracy_figure": b"\x89PNG one", "of_my_own": b"\x89PNG two"},
        "feedback": {"responses_sampled": 12000, "positives_per_question": 2.345},
        "settings": {"training": {"epochs": 5}},
        "hashes": {"models": {"vft": "3f9a"}},
        "version": "1.2.3",
    }
    given = arguments | changed
    figures = given.pop("figures")
    compared = Compared(**{name: given.pop(name) for name in COMPARED if name in given})
    return html_report(compared, MadeOf(**given), figures)


def test_the_page_is_well_formed_and_loads_nothing():
    page = Page(report())
    outside = [one for one in page.references() if not one.startswith(("#", "data:image/png;base64,"))]
    assert outside == [PAPER_ADDRESS, "answers.html"]
    assert "script" not in page.tags and "link" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert re.findall(r"https?://[^\s\"<]+", report()) == [PAPER_ADDRESS]
    assert "url(" not in report() and "@import" not in report()


def test_the_same_arguments_give_the_same_page():
    assert report() == report()


def test_questions_that_were_too_long_are_told_if_there_are_any():
    told = "too long to be answered, so wrong"
    assert told not in report() and told not in report(comparison=make_comparison(questions_without_response=0.0))
    text = Page(report(comparison=make_comparison(questions_without_response=2.0))).text
    assert text[text.index(told) + 1] == "2"


@pytest.mark.parametrize(("questions", "told"), [(10_000, "every question"), (10_001, "10,000 of 10,001 questions")])
def test_the_report_says_which_questions_the_page_of_answers_has(questions, told):
    text = "".join(Page(report(comparison=make_comparison(questions=questions))).text)
    assert f"Answers to look at: {told} with what each variant answered" in text


def test_links_within_the_page_lead_somewhere():
    page = Page(report())
    places = {value for name, value in page.attributes if name == "id"}
    within = [one[1:] for one in page.references() if one.startswith("#")]
    assert within and set(within) <= places


def test_the_comparison_is_in_percent_with_intervals_and_the_largest_k():
    page = Page(report())
    header = [title.replace("\N{NO-BREAK SPACE}", " ") for title in page.row("variant")]
    assert header[1:6] == ["accuracy %", "minus vft", "maj@8 %", "pass@8 %", "best-of-8 %"]
    row = page.row("aft_dc", len(header))
    assert row[1] == "45.0[43.0, 47.0] ± 1.0"
    assert row[2] == "▲ +5.0[+2.0, +8.0]"
    assert row[3:6] == ["48.0", "68.0", "58.0"]
    assert row[6:] == ["78.0[77.0, 79.0]", "0.712", "0.457", "1.10"]
    assert page.row("vft", len(header))[2] == NOTHING


def test_every_k_has_a_column_if_there_are_several():
    page = Page(report())
    columns = [f"{name}{k}\N{NO-BREAK SPACE}%" for name in ("maj@", "pass@", "best-of-") for k in (1, 8)]
    assert ["variant", *columns] in page.rows
    assert page.row("vft", 7)[1:] == ["41.0", "48.0", "61.0", "68.0", "51.0", "58.0"]
    one = make_comparison().drop(columns=["maj_at_1", "pass_at_1", "best_of_1"])
    assert "By number of samples" not in report(comparison=one)


def test_only_differences_whose_interval_leaves_out_zero_are_marked():
    """From -1 to +3 points is no difference; -8 to -2 is one downwards."""
    unsure = make_comparison(("vft", "aft_dc"), difference=0.01, difference_low=-0.01, difference_high=0.03)
    page = Page(report(comparison=unsure))
    assert page.row("aft_dc")[2] == "+1.0[\N{MINUS SIGN}1.0, +3.0]"
    assert page.row("rrhf_bc* minus aft_dc")[1] == "▼ \N{MINUS SIGN}5.0[\N{MINUS SIGN}8.0, \N{MINUS SIGN}2.0]"
    assert page.row("rrhf_bc* minus aft_dc")[2:] == ["0.5, 0.01", "0, 1"]


def test_the_headline_counts_what_is_certain():
    """Of 45 and 50 %, with +5 ± 3 and +10 ± 3 points, both stand above 40 %."""
    text = "".join(Page(report()).text)
    assert "Most accurate here: rrhf_bc* with 50.0 % [48.0, 52.0], +10.0 points [+7.0, +13.0] against vft" in text
    assert "Of 2 variants beside vft, 2 stand above it and 0 below it" in text


def test_all_that_lead_are_named():
    level = make_comparison(accuracy=0.5)
    text = "".join(Page(report(comparison=level)).text)
    assert "Most accurate here: vft and aft_dc and rrhf_bc* with 50.0 % each. Of 2 variants beside vft" in text


def test_the_settings_of_an_objective_are_shown():
    page = Page(report(settings={"align": {"aft": Objective(term="aft", beta=0.3)}}))
    assert page.row("align.aft.term")[1] == "aft" and page.row("align.aft.beta")[1] == "0.3"


def test_extensions_are_marked_and_explained():
    page = Page(report())
    assert page.row("rrhf_bc*", 3) == ["rrhf_bc*", "rrhf with a boundary constraint", "not in the paper"]
    assert page.row("aft_dc", 3)[2] == "Eq. 7"
    assert "An extension of this project that the paper does not have" in "".join(page.text)


def test_other_question_sets_have_a_table_of_their_own():
    sets = {f"longer_{end}": value for end, value in (("low", 0.2), ("high", 0.3))}
    sets |= {f"longer_difference{end}": value for end, value in (("", 0.01), ("_low", -0.01), ("_high", 0.03))}
    page = Page(report(comparison=make_comparison(accuracy_longer=0.25, **sets)))
    assert page.row("vft", 3)[1:] == ["25.0[20.0, 30.0]", NOTHING]
    assert page.row("aft_dc", 3)[1:] == ["25.0[20.0, 30.0]", "+1.0[\N{MINUS SIGN}1.0, +3.0]"]
    assert "Other question sets" not in report()


def test_figures_stand_in_the_page_with_captions():
    page = Page(report())
    pictures = [value for value in page.references() if value.startswith("data:")]
    decoded = [base64.b64decode(picture.removeprefix("data:image/png;base64,")) for picture in pictures]
    assert decoded == [b"\x89PNG one", b"\x89PNG two"]
    text = "".join(page.text)
    assert "Share of test questions that each variant answers correctly" in text
    assert "of my own" in text
    assert [value for name, value in page.attributes if name == "alt"] == ["Accuracy", "of my own"]


def test_feedback_settings_hashes_and_version_are_there():
    page = Page(report())
    assert page.row("responses sampled")[1] == "12,000"
    assert page.row("positives per question")[1] == "2.35"
    assert page.row("training.epochs")[1] == "5"
    assert page.row("models.vft")[1] == "3f9a"
    assert "1.2.3" in page.text


def test_warnings_are_told_if_there_are_any():
    assert "Warnings" not in report()
    page = Page(report(warnings=["aft, seed 1: <scores> fell."]))
    assert "aft, seed 1: <scores> fell." in page.text


def test_many_pairs_are_folded():
    few, many = make_differences(("a", "b")), make_differences(*[(f"a{i}", "b") for i in range(16)])
    assert "All 16 pairs" in report(differences=many)
    assert "All 1 pairs" not in report(differences=few)
    assert "Paired differences" not in report(differences=few[:0])


def test_whatever_a_name_holds_is_text():
    """In every place where a name from outside can stand."""
    html = report(
        recipe=MALICIOUS,
        comparison=make_comparison(("vft", MALICIOUS), seeds=MALICIOUS, **{"accuracy_<b>": 0.1}),
        variants=VARIANTS | {MALICIOUS: Variant(VARIANTS["aft"].objective, MALICIOUS, source=MALICIOUS)},
        differences=make_differences((MALICIOUS, MALICIOUS)),
        figures={MALICIOUS: b"\x89PNG"},
        feedback={MALICIOUS: MALICIOUS},
        settings={MALICIOUS: {MALICIOUS: [MALICIOUS]}},
        hashes={MALICIOUS: MALICIOUS},
        version=MALICIOUS,
        warnings=[MALICIOUS],
        baseline="vft",
    )
    page, harmless = Page(html), Page(report(figures={"one": b"\x89PNG"}, warnings=["one"]))
    assert set(page.tags) <= set(harmless.tags)
    assert {name for name, _ in page.attributes} == {name for name, _ in harmless.attributes}
    assert [one for one in page.references() if not one.startswith(("#", "data:"))] == [PAPER_ADDRESS, "answers.html"]
    assert MALICIOUS in "".join(page.row(MALICIOUS))


@pytest.mark.parametrize("seeds", ["0", 0])
def test_one_seed_has_no_deviation_and_may_come_back_from_a_file_as_a_number(seeds):
    one = make_comparison(seeds=seeds, std_over_seeds=NAN, mcnemar_p=0.25)
    page = Page(report(comparison=one, differences=make_differences(("aft_dc", "vft")).assign(mcnemar_p=0.25)))
    assert page.row("aft_dc")[1] == "45.0[43.0, 47.0]"
    assert page.row("aft_dc minus vft")[2] == "0.25"


def test_what_was_not_measured_is_a_dash():
    """No groups with both kinds, no samples; and a comparison of an older version that lacks the columns."""
    names = ("auroc", "calibration_error", "perplexity_of_positives", "assessment_accuracy")
    nothing = make_comparison(**dict.fromkeys((*names, "assessment_low", "assessment_high", "best_of_8"), NAN))
    without_samples = [name for name in nothing if str(name).startswith(("maj_at", "pass_at", "best_of"))]
    page = Page(report(comparison=nothing))
    assert page.row("aft_dc")[5:] == [NOTHING] * 5
    assert "nan" not in "".join(page.text).lower()
    page = Page(report(comparison=nothing.drop(columns=["auroc", "calibration_error", *without_samples])))
    assert page.row("aft_dc")[3:] == [NOTHING] * 4


def test_nested_settings_become_dotted_paths_in_their_order():
    values = {"training": {"lora": {}, "steps": {"warm_up": 3}}, "a": 1}
    assert Page(report(settings=values)).row("training.steps.warm_up") == ["training.steps.warm_up", "3"]


def test_settings_are_shown_as_a_person_writes_them():
    assert [shown(value) for value in (True, False, None, {}, [], 0.1, 0, "")] == [
        *("yes", "no", NOTHING, NOTHING, NOTHING, "0.1", "0", "")
    ]
    assert shown([1, [2, None]]) == f"1, 2, {NOTHING}"
