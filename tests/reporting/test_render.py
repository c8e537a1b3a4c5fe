"""What templates do with what they are given: text and markup, values that lack, and that they are installed."""

import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from aft.reporting.render import macro, render

ROOT = Path(__file__).parents[2]


def test_text_is_escaped_and_what_a_macro_made_is_not():
    grid = macro("tokens.html.j2", "grid")
    inner = grid([["a < b & 'c'"]])
    assert ">a &lt; b &amp; &#39;c&#39;</td>" in inner
    assert f">{inner}</td>" in grid([[inner]])
    assert "&lt;table&gt;" in grid([[str(inner)]])  # a string made of markup is text again: the safe side


def test_attributes_cannot_be_left():
    made = macro("tokens.html.j2", "response")("", "", [("", "", '"><script>')])
    assert 'title="&#34;&gt;&lt;script&gt;"' in made


def test_the_first_cell_of_a_row_names_it():
    made = macro("tables.html.j2", "table")(["variant", "accuracy %"], [["<vft>", "1"]])
    assert '<tr><th scope="row">&lt;vft&gt;</th><td>1</td></tr>' in made
    assert '<th scope="col">accuracy\N{NO-BREAK SPACE}%</th>' in made


def test_a_page_forbids_to_load_or_run_anything():
    made = render("page.html.j2", title="a < b")
    assert made.startswith("<!DOCTYPE html>\n<html")
    assert "<title>a &lt; b</title>" in made
    assert '"Content-Security-Policy" content="default-src \'none\'' in made


def test_markdown_is_not_escaped():
    claim = {"claim": "a < b"}
    table = "| claim |\n| --- |\n| a < b |\n\n"
    given = {"missing": [], "older": [], "tally": [claim], "claims": [claim], "reading": "d > e", "version": "1"}
    made = render("studies.md.j2", texts=["'c'", "'d'"], **given)
    assert "AFT 1.\n\nd > e\n\n## Orderings" in made
    assert f"\n\n{table}{table}'c'\n\n'd'\n" in made
    alone = render("studies.md.j2", texts=["'c'"], **given)  # its own text has its claims
    assert f"\n\n{table}'c'\n" in alone and table * 2 not in alone


def test_a_value_that_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="title"):
        render("page.html.j2")


def test_every_template_is_part_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folder = ROOT / "src/aft/reporting"
    patterns = project["tool"]["setuptools"]["package-data"]["aft.reporting"]
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    assert packed == {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert packed
