"""The page of answers: what its data holds, that nothing in them leaves it, and what a browser makes of it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest

from aft.evaluation.predictions import GREEDY, PREDICTION_COLUMNS
from aft.reporting.answers import answers_page, drawn
from aft.tasks import Question

# Of every kind that could end a block of script or of JSON, or a line of it, or an attribute.
MALICIOUS = "</script><script>alert(1)</script><!-- <script> ]]> \u2028 \" ' & {{ 7 * 7 }} <img src=x onerror=alert(1)>"
QUESTION = "Ava has 3 pens. She finds 4. She loses 2. How many?"
RIGHT = "finds 4: 3 + 4 = 7.\nloses 2: 7 - 2 = 5.\n#### 5"
WRONG = "finds 4: 3 + 4 = 8.\nloses 2: 8 - 2 = 6.\n#### 6"

Given = tuple[str | None, str | None, bool, float]  # response, canonical answer, whether it is right, score


def question(name: str, text: str = QUESTION, dataset: str = "pocket", **changed: Any) -> Question:
    fields = {"choices": None, "reference": RIGHT, "answer": "5", "content_hash": name}
    return Question(name, dataset, "test", text, **(fields | changed))


def table(answers: Mapping[str, Sequence[Given]]) -> pd.DataFrame:
    """Predictions: each question's greedy answer, then its samples."""
    rows = [
        (name, index, *given)
        for name, all_given in answers.items()
        for index, given in enumerate(all_given, start=GREEDY)
    ]
    return pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))


def page(questions: list[Question], predictions: Mapping[str, pd.DataFrame], **changed: Any) -> str:
    arguments = {"recipe": "pocket", "seed": 3, "version": "1.2.3"} | changed
    return answers_page(questions=questions, predictions=predictions, **arguments)


def data_of(html: str) -> dict[str, Any]:
    found = re.findall(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def two_variants() -> tuple[list[Question], dict[str, pd.DataFrame]]:
    """a: both right. b: vft wrong, aft right. c: both wrong, aft without an answer."""
    right, wrong, none = (RIGHT, "5", True, -0.1), (WRONG, "6", False, -0.2), ("Hm.", None, False, -0.3)
    return [question(name) for name in "abc"], {
        "vft": table({"a": [right], "b": [wrong], "c": [wrong]}),
        "aft": table({"a": [right], "b": [right], "c": [none]}),
    }


def malicious_page() -> str:
    asked = question(MALICIOUS, MALICIOUS, "commonsenseqa", choices=(MALICIOUS,), reference=MALICIOUS, answer=MALICIOUS)
    answers = {MALICIOUS: [(MALICIOUS, MALICIOUS, False, -1.0)] * 2}
    return page([asked], {MALICIOUS: table(answers)}, recipe=MALICIOUS, version=MALICIOUS)


class Elements(HTMLParser):
    """The tags of a page in order, and the text that it shows outside of script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += "" if self.tags and self.tags[-1] in ("script", "style") else data


def test_an_answer_has_its_text_and_its_samples_only_their_votes():
    samples = [
        (WRONG, "6", False, -1.0),
        (RIGHT, "5", True, -1.0),
        ("Hm.", None, False, -1.0),
        (RIGHT, "5", True, -1.0),
    ]
    html = page([question("a")], {"vft": table({"a": [(RIGHT, "5", True, -0.12345), *samples]})})
    assert data_of(html) == {
        "variants": ["vft"],
        "questions": [
            [
                *("a", QUESTION, None, RIGHT, "5"),
                [[RIGHT, "5", True, -0.123, [["5", 2, True], ["6", 1, False], [None, 1, False]], [], []]],
            ]
        ],
    }


def test_wrong_steps_are_told_with_their_lines_where_the_task_can_tell():
    answers = {"a": [(WRONG, "6", False, -0.1)], "b": [("It is B.", "B", False, -0.1)]}
    choice = question("b", dataset="commonsenseqa", choices=("a pen", "a book"), answer="A")
    (_, _, _, _, _, [stepwise]), (_, _, choices, _, _, [other]) = data_of(
        page([question("a"), choice], {"vft": table(answers)})
    )["questions"]
    assert stepwise[5:] == [['"finds 4: 3 + 4 = 8." has a sum that is not right.'], [1]]
    assert other[5:] == [[], []]
    assert choices == ["a pen", "a book"]


def test_a_question_without_a_response_has_none():
    unanswered = table({"a": [(None, None, False, float("nan"))]})
    data = data_of(page([question("a"), question("b")], {"vft": unanswered}))
    nothing = [None, None, False, None, [], [], []]
    assert [replies for *_, replies in data["questions"]] == [[nothing], [nothing]]


def test_a_score_that_is_no_number_leaves_the_page_readable():
    html = page([question("a")], {"vft": table({"a": [(RIGHT, "5", True, float("-inf"))]})})
    assert data_of(html)["questions"][0][5][0][3] is None


def test_more_questions_than_a_page_holds_are_drawn_by_their_ids_and_the_page_says_so():
    questions = [question(f"q{number}") for number in range(40)]
    chosen = drawn(questions, 10)
    assert len(chosen) == 10
    assert chosen == sorted(chosen, key=questions.index)
    assert set(drawn(questions[::-1], 10)) == set(chosen) != set(questions[:10])
    assert set(drawn(questions[:20], 10)) >= set(chosen) & set(questions[:20])
    predictions = {"vft": table({})}
    html = page(questions, predictions, most=10)
    assert [row[0] for row in data_of(html)["questions"]] == [one.question_id for one in chosen]
    assert "Of 40 questions this page has 10" in html
    assert "questions this page has" not in page(questions, predictions, most=40)


def test_whatever_the_data_hold_is_text():
    """In every place where text from outside can stand."""
    html = malicious_page()
    harmless = page([question("a")], {"vft": table({"a": [(RIGHT, "5", True, -1.0)]})})
    assert Elements(html).tags == Elements(harmless).tags
    assert data_of(html)["questions"][0][:5] == [MALICIOUS, MALICIOUS, [MALICIOUS], MALICIOUS, MALICIOUS]
    block = html[html.index('type="application/json">') : html.index("</script>")]
    assert not re.search("\u2028|<!--|</|<script", block)


def test_the_page_loads_nothing_and_runs_its_own_script_only():
    html = page(*two_variants())
    policy = re.findall(r'content="(default-src [^"]*)"', html)
    assert len(policy) == 1
    assert re.search(r"default-src 'none';.* script-src 'sha256-[\w+/=]+';", policy[0])
    assert "unsafe" not in policy[0].partition("script-src")[2]
    assert re.findall(r"(?:href|src)=\"([^\"]*)\"", html) == ["report.html"]
    assert not re.search(r"https?://|url\(|@import|innerHTML|insertAdjacent|document\.write|\beval\b", html)
    assert " on" not in {
        name[:3] for tag in re.findall(r"<[a-z][^>]*>", html) for name in re.findall(r" \w+(?==)", tag)
    }


def test_without_javascript_a_sentence_stands_in_place_of_the_form():
    html = page(*two_variants())
    assert re.search(r"<noscript><p[^>]*>[^<]*JavaScript", html)
    assert re.search(r"<form [^>]*hidden>", html) and re.search(r"<nav [^>]*hidden>", html)


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("There is no Chromium here: WHAT A BROWSER MAKES OF answers.html IS NOT TESTED.")
    return found


@pytest.fixture
def browse(chromium: str, tmp_path: Path) -> Callable[..., str]:
    """The elements of a page as headless Chromium draws it, with these filters in its address."""

    def browsed(html: str, filters: str = "") -> str:
        path = tmp_path / "answers.html"
        path.write_text(html, encoding="utf-8")
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}")
        done = subprocess.run(
            [chromium, *options, "--virtual-time-budget=5000", "--dump-dom", f"{path.as_uri()}#{filters}"],
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=120,
        )
        return done.stdout

    return browsed


@pytest.fixture
def drive(browse: Callable[..., str]) -> Callable[[str, str], Any]:
    """What a script makes of the page: the body of a function that runs after the page's own."""

    def driven(html: str, body: str) -> Any:
        script = f"<script>document.title = JSON.stringify((() => {{ {body} }})());</script></body>"
        html, count = re.subn(r"script-src 'sha256-[^']*'", "script-src 'unsafe-inline'", html)
        assert count == 1
        return json.loads(unescape(re.findall("<title>(.*?)</title>", browse(html.replace("</body>", script)))[0]))

    return driven


def ids(dom: str) -> list[str]:
    return re.findall(r'<span class="id">(.*?)</span>', dom)


def test_the_address_filters_and_a_question_alone_is_open(browse):
    dom = browse(page(*two_variants()), "wrong=vft&right=aft")
    assert ids(dom) == ["b"]
    assert "1 of 3 questions, page 1 of 1" in dom
    assert "<mark>finds 4: 3 + 4 = 8.</mark>\nloses 2: 8 - 2 = 6." in dom
    assert "has a sum that is not right." in dom
    assert "score \N{MINUS SIGN}0.200" in dom


def test_filters(drive):
    expected = {
        "": "abc",
        "right=aft": "ab",
        "wrong=vft&wrong=aft": "c",
        "right=another": "abc",  # a variant that another comparison has
        "answer=6": "bc",
        "answer=5": "abc",  # the reference's
        "answer=none": "c",
        "text=SUM": "",
        "text=3+%2B+4+%3D+8": "bc",
        "text=hm.&wrong=vft": "c",
        "page=7": "abc",
        "page=x": "abc",
    }
    body = f"""return {json.dumps(list(expected))}.map((filters) => {{
      go(new URLSearchParams(filters));
      return [...document.querySelectorAll(".id")].map((one) => one.textContent).join("");
    }});"""
    assert dict(zip(expected, drive(page(*two_variants()), body), strict=True)) == expected


def test_the_form_and_the_address_say_the_same(drive):
    body = """go(new URLSearchParams("wrong=vft&text=hm"));
      const shown = [...form.querySelectorAll("input, select")].map((one) => one.value);
      form.querySelectorAll("select")[1].value = "right";
      form.elements.text.value = "3 + 4";
      form.dispatchEvent(new Event("input"));
      const changed = location.hash;
      form.reset();
      return [shown, changed, location.hash];"""
    shown, changed, cleared = drive(page(*two_variants()), body)
    assert shown == ["hm", "", "wrong", ""]
    assert (changed, cleared) == ("#wrong=vft&right=aft&text=3+%2B+4", "")


def test_whatever_the_data_hold_is_text_in_the_browser(browse):
    dom = browse(malicious_page(), "wrong=" + quote(MALICIOUS))
    tags = Elements(dom).tags
    assert tags.count("script") == 2 and "img" not in tags
    assert dom.count(escape(MALICIOUS, quote=False)) >= 8  # name, question, choice, reference, answers, votes
    assert "1 of 1 questions" in dom


def test_keys_move_over_questions_and_pages(drive):
    questions = [question(f"q{number}") for number in range(120)]
    body = """const at = () => {
        const { children: [first], name } = document.activeElement;
        return first?.className === "id" ? first.textContent : name ?? null;
      };
      const press = (keys) => keys.split(" ").forEach((key) => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true })));
      return ["k", "j", "j ArrowDown", "k ArrowUp", "k", "/", "j", "Enter", "ArrowRight", "j", "k"].map((keys) => {
        press(keys);
        return [at(), page];
      });"""
    assert drive(page(questions, {"vft": table({})}), body) == [
        [None, 1],
        ["q0", 1],
        ["q2", 1],
        ["q0", 1],
        ["q0", 1],
        ["text", 1],
        ["text", 1],  # a letter in a field is a letter
        ["q0", 1],
        [None, 2],
        ["q50", 2],
        ["q49", 1],
    ]


def test_a_page_has_fifty_questions(browse):
    questions = [question(f"q{number}") for number in range(120)]
    dom = browse(page(questions, {"vft": table({})}), "page=3")
    assert ids(dom) == [f"q{number}" for number in range(100, 120)]
    assert "120 of 120 questions, page 3 of 3" in dom
    assert re.search(r'<button id="next" disabled', dom) and not re.search(r'<button id="previous" disabled', dom)
