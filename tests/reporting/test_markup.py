"""What stands in a page as text, and what as markup."""

import base64

from aft.reporting.markup import NOTHING, Html, element, joined, leaves, nested_table, page, png, shown, table


def test_text_is_escaped_and_markup_is_not():
    inner = element("b", "a < b & 'c'")
    assert inner == "<b>a &lt; b &amp; &#x27;c&#x27;</b>"
    assert element("p", inner, "<i>") == f"<p>{inner}&lt;i&gt;</p>"
    assert joined(["<", Html("<br>")]) == "&lt;<br>"


def test_attributes_cannot_be_left():
    assert element("a", "x", href='"><script>', class_="y") == '<a href="&quot;&gt;&lt;script&gt;" class="y">x</a>'


def test_elements_without_content_have_no_end():
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_strings_made_of_markup_are_text_again():
    """What is put together outside of the module is escaped: the safe side."""
    assert element("p", "a" + element("b", "x")) == "<p>a&lt;b&gt;x&lt;/b&gt;</p>"


def test_the_first_cell_of_a_row_names_it():
    made = table(["variant", "accuracy %"], [["<vft>", "1"]])
    assert '<tr><th scope="row">&lt;vft&gt;</th><td>1</td></tr>' in made
    assert '<th scope="col">accuracy\N{NO-BREAK SPACE}%</th>' in made


def test_nested_settings_become_dotted_paths_in_their_order():
    values = {"training": {"lora": {}, "steps": {"warm_up": 3}}, "a": 1}
    assert leaves(values) == [("training.lora", {}), ("training.steps.warm_up", 3), ("a", 1)]
    made = nested_table(("setting", "value"), values)
    assert '<th scope="row">training.steps.warm_up</th><td>3</td>' in made


def test_settings_are_shown_as_a_person_writes_them():
    assert [shown(value) for value in (True, False, None, {}, [], 0.1, 0, "")] == [
        *("yes", "no", NOTHING, NOTHING, NOTHING, "0.1", "0", "")
    ]
    assert shown([1, [2, None]]) == f"1, 2, {NOTHING}"


def test_a_picture_is_part_of_the_page():
    encoded = base64.b64encode(b"\x89PNG").decode()
    assert png(b"\x89PNG", alt='a "b"') == f'<img src="data:image/png;base64,{encoded}" alt="a &quot;b&quot;">'


def test_a_page_forbids_to_load_or_run_anything():
    made = page("a < b", element("p", "x"))
    assert made.startswith("<!DOCTYPE html>\n<html")
    assert "<title>a &lt; b</title>" in made
    assert "default-src &#x27;none&#x27;" in made
