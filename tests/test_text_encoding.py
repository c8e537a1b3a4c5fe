"""Text is UTF-8 whatever the machine's locale says; the linter sees `Path("x").open()`, but not `path.open()`."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aft.models.directory import ModelDirectory
from aft.models.publish import save_model

ROOT = Path(__file__).parents[1]
END = "<end▁of▁sentence>"
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
IN_CHAT = """
import sys
from pathlib import Path
from aft.models.directory import open_model
from aft.models.publish import in_prompt_style
made = in_prompt_style(open_model(Path(sys.argv[1])), "chat", Path(sys.argv[2]))
print(made.path, ascii(made.tokenizer().eos_token))
"""
PAGE = """
import sys
import yaml
from kedro.io import AbstractDataset
entry = yaml.safe_load(open(sys.argv[1], encoding="utf-8"))["align.compare.{comparison}." + sys.argv[3]]
dataset = AbstractDataset.from_config("page", {**entry, "filepath": sys.argv[2]})
dataset.save("\\u2581")
assert dataset.load() == "\\u2581"
"""


def in_ascii_locale(code: str, *arguments: Path | str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **ASCII_LOCALE, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


def test_a_model_keeps_its_end_token_in_another_prompt_style(pocket_directory: ModelDirectory, tmp_path: Path):
    given = tmp_path / "given"
    tokenizer = pocket_directory.tokenizer()
    tokenizer.add_special_tokens({"eos_token": END})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role != 'user' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    save_model(pocket_directory.model(), tokenizer, given)
    config = json.loads((given / "tokenizer_config.json").read_text("utf-8"))
    (given / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), "utf-8")

    path, end = in_ascii_locale(IN_CHAT, given, tmp_path / "cache").split(maxsplit=1)

    assert ast.literal_eval(end) == END
    config = json.loads((Path(path) / "tokenizer_config.json").read_text("utf-8"))
    assert (config["eos_token"], config["aft_prompt_style"]) == (END, "chat")


@pytest.mark.parametrize("name", ["report", "answers"])
def test_pages_are_written_as_utf_8(name: str, tmp_path: Path):
    in_ascii_locale(PAGE, ROOT / "conf/base/catalog_evaluation.yml", tmp_path / "page.html", name)
    assert (tmp_path / "page.html").read_text("utf-8") == "▁"


def _sources() -> Iterator[tuple[str, str]]:
    for folder in ("src", "tests", "benchmarks"):
        yield from ((str(path), path.read_text("utf-8")) for path in (ROOT / folder).rglob("*.py"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        yield (
            str(path),
            "\n".join(
                line for cell in cells if cell["cell_type"] == "code" for line in cell["source"] if line[0] != "%"
            ),
        )


def _leaves_encoding_open(call: ast.Call) -> bool:
    """Whether the call reads or writes text and does not say in which encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {word.arg: word.value for word in call.keywords}
    if "encoding" in keywords:
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name == "open":
        binary = any(isinstance(value, ast.Constant) and "b" in str(value.value) for value in call.args[-1:])
        return not binary and not ast.unparse(call.func).startswith(("os.", "tarfile.", "webbrowser."))
    return isinstance(keywords.get("text"), ast.Constant) or "universal_newlines" in keywords


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("path.read_text()", True),
        ("path.write_text('b')", True),
        ("path.open()", True),
        ("open(name, 'w')", True),
        ("run(order, text=True)", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text('b', encoding='utf-8')", False),
        ("path.open('rb')", False),
        ("run(order, encoding='utf-8')", False),
    ],
)
def test_what_counts_as_text_in_no_stated_encoding(code: str, expected: bool):
    assert _leaves_encoding_open(ast.parse(code, mode="eval").body) is expected  # type: ignore[arg-type]


def test_every_text_file_is_opened_in_a_stated_encoding():
    found = [
        f"{path}:{node.lineno}"
        for path, text in _sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and _leaves_encoding_open(node)
    ]
    assert found == []
