"""Pages from the templates beside this module: in HTML every value is text and escaped, unless a template made it."""

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(template: str, **values: Any) -> str:
    """The page that a template makes of the values; a value that it asks for and is not given raises an error."""
    return _environment().get_template(template).render(values)


def macro(template: str, name: str) -> Callable[..., str]:
    """A macro of an HTML template. What it makes is markup: templates that are given it take it as it is."""
    return getattr(_environment().get_template(template).module, name)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("aft.reporting"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
