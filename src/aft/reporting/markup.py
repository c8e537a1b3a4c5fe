"""HTML from plain data: every string is text and is escaped, unless this module made it."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

NOTHING = "\N{EM DASH}"  # where a value would stand
_VOID = {"img", "meta"}  # elements without content or end tag


class Html(str):
    """Markup that is safe to stand in a page as it is; any other string is text."""


def element(tag: str, *content: str, **attributes: str) -> Html:
    """An element with its content and attributes, all escaped where they are text; `class_` makes `class`."""
    names = "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{names}>" if tag in _VOID else f"<{tag}{names}>{joined(content)}</{tag}>")


def joined(parts: Iterable[str]) -> Html:
    """One after the other, text escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], class_: str = "figures") -> Html:
    """A table whose first column names its rows; it scrolls sideways where the page is narrow."""
    units = [cell.replace(" %", "\N{NO-BREAK SPACE}%") for cell in header]
    head = element("tr", *(element("th", cell, scope="col") for cell in units))
    body = [
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
        for first, *rest in rows
    ]
    whole = element("table", element("thead", head), element("tbody", *body), class_=class_)
    return element("div", whole, class_="scroll")


def nested_table(header: tuple[str, str], values: Mapping[str, Any], class_: str = "") -> Html:
    """A nested mapping as a table of dotted paths and values."""
    return table(header, [(path, shown(value)) for path, value in leaves(values)], class_=f"nested {class_}".strip())


def leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The values of a nested mapping with their dotted paths, in its order; an empty mapping is a value."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found += leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def shown(value: Any) -> str:
    """A setting as a person writes it: yes and no, lists with commas, a dash for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or NOTHING
    return NOTHING if value is None or value == {} else str(value)


def png(data: bytes, alt: str) -> Html:
    """A picture that is part of the page."""
    return element("img", src=f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}", alt=alt)


def page(title: str, *content: str) -> str:
    """A whole document, light or dark as the reader's system is, which loads nothing and runs nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    document = element("html", head, element("body", element("main", *content)), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


_STYLE = """
:root { color-scheme: light dark; --ink: #202328; --soft: #5d636b; --line: #dcdfe4; --ground: #ffffff;
  --panel: #f5f6f8; --link: #0b4f8a; --up: #00695a; --down: #a3241b; --warn: #7a4d00; --warn-ground: #fff4dc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a2a9b2; --line: #373c43; --ground: #16181b;
  --panel: #1f2226; --link: #7fb8e8; --up: #5fd0b5; --down: #ff9a8c; --warn: #ffd58a; --warn-ground: #38290c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .7rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p, ul, dl { max-width: 48rem; margin: .6rem 0; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1.2rem 0 0; font-size: .9rem; }
code { font: .88em ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
.soft { color: var(--soft); }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; max-width: none; margin: 1.4rem 0; padding: 0; }
.facts div { background: var(--panel); border-radius: .5rem; padding: .55rem .95rem; }
.facts dt { font-size: .78rem; color: var(--soft); }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.warnings { background: var(--warn-ground); color: var(--warn); border-radius: .5rem; padding: .8rem 1.2rem;
  margin: 1.4rem 0; }
.warnings ul { margin: .3rem 0 0; padding-left: 1.2rem; max-width: none; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .42rem .1rem .42rem 1rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; }
thead th { font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--ground); }
tbody tr:hover > * { background: var(--panel); }
td small { display: block; color: var(--soft); font-size: .8rem; }
.text td, .text thead th, .nested td, .nested thead th { text-align: left; white-space: normal;
  overflow-wrap: anywhere; }
.nested, .text { min-width: 0; }
.nested tbody th { font-weight: 400; color: var(--soft); white-space: normal; overflow-wrap: anywhere; }
.nested td { max-width: 46rem; }
.hashes td { font: .85em ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
.up { color: var(--up); font-weight: 600; }
.down { color: var(--down); font-weight: 600; }
figure { margin: 1.6rem 0 2.2rem; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line);
  border-radius: .5rem; padding: .6rem; }
figcaption { max-width: 48rem; margin-top: .6rem; font-size: .92rem; color: var(--soft); }
figcaption strong { color: var(--ink); }
summary { cursor: pointer; color: var(--link); }
.terms dt { font-weight: 600; margin-top: .5rem; }
.terms dd { margin: 0; color: var(--soft); }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .85rem;
  color: var(--soft); }
@media print { main { max-width: none; padding: 0; } nav { display: none; } figure { break-inside: avoid; } }
"""
