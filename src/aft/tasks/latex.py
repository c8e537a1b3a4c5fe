"""Final answers in LaTeX: what stands in a box, and whether two of them are the same.

Numbers are compared exactly, by our own check. Everything else goes to math-verify (pip install 'aft[math]'), in a
process of its own that is ended, and counted, when a comparison takes too long: no text costs more than `LIMIT_S`.
What is here itself is total and linear in time.
"""

import atexit
import json
import logging
import re
import subprocess
import sys
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Timer

from aft.errors import SettingsError
from aft.tasks.answers import canonical_number

logger = logging.getLogger(__name__)

LIMIT_S = 5.0  # for one comparison
_START_S = 120.0  # for the import of sympy on a busy machine
_LONGEST = 1000  # characters of an answer; a longer one is compared as text only
_SHOWN = 60

_BRACES = re.compile(r"\\(?:boxed|fbox)[ ]?\{|\\boxed[ ]?([^\s${}\\]{1,40})|\\[\s\S]|[{}]")
# A number with no letter beside it: 3x is no number with a unit, nor is (3,100) a number with a comma.
_NUMBER = re.compile(r"(?:[-+\u22120-9.,/$ {}%]|\\[dtc]?frac(?![A-Za-z])|\\[$%,!])++")


def last_box(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}` with balanced braces that is not empty, None if there is none."""
    boxes: list[tuple[int, int]] = []
    opened: list[int | None] = []  # where the content of a box begins, None of a mere brace
    for found in _BRACES.finditer(text):
        token = found[0]
        if found[1]:  # \boxed5
            boxes.append(found.span(1))
        elif token == "}" and opened:
            start = opened.pop()
            if start is not None and text[start : found.start()].strip():
                boxes.append((start, found.start()))
        elif token.endswith("{") and token != "\\{":
            opened.append(None if token == "{" else found.end())
    return text[slice(*max(boxes))].strip() if boxes else None


def canonical_latex(text: str) -> str | None:
    r"""An answer in LaTeX without what only surrounds it, a number in its canonical form; None if nothing is left.

    `$\frac{1}{2}$.` gives "0.5"; what is no number stays as it is written.
    """
    plain = " ".join(text.split()).removeprefix("\\(").removesuffix("\\)").strip(" $").removesuffix(".").strip(" $")
    return (canonical_number(plain) if _NUMBER.fullmatch(plain) else None) or plain or None


def latex_equal(answer: str, other: str) -> bool:
    """Whether two canonical answers are the same: exactly, as numbers, else by math-verify with `other` as the truth.

    What cannot be compared within the limits is not equal; the log and `not_compared` count it. Raises `SettingsError`
    if math-verify is needed and not installed.
    """
    if answer == other:
        return True
    if all(_NUMBER.fullmatch(text) and canonical_number(text) for text in (answer, other)):
        return canonical_number(answer) == canonical_number(other)
    found = _compared(other, answer) if len(answer) <= _LONGEST else False
    if found is None:
        _WORKER.not_compared += 1
    return found is True


def not_compared() -> int:
    """How many answers this process has counted as wrong so far because they could not be compared within the limits.

    On a busy machine another run may compare them.
    """
    return _WORKER.not_compared


def begin_anew() -> None:
    """Compare again what was compared, in a new process: what could not be compared in time is tried again."""
    _compared.cache_clear()
    _WORKER.stop()


@cache
def verifier_versions() -> dict[str, str]:
    """Of math-verify and what it stands on; empty for what is not installed."""
    versions = {}
    for package in ("math-verify", "latex2sympy2_extended", "sympy", "antlr4-python3-runtime"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    return versions


def check_installed() -> None:
    """Raise `SettingsError` if math-verify is missing."""
    if find_spec("math_verify") is None:
        raise SettingsError(
            "Answers in LaTeX are compared by math-verify, which is not installed; pip install 'aft[math]', or choose "
            "another check."
        )


@lru_cache(maxsize=20_000)  # samples repeat one another, and what takes the whole limit would take it again
def _compared(truth: str, answer: str) -> bool | None:
    return _WORKER.equal(truth, answer)


class _Worker:
    """The process that compares, started when it is needed and again after one that had to be ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()
        self._given_up = 0
        self.not_compared = 0  # answers; several may be the same

    def equal(self, truth: str, answer: str) -> bool | None:
        """Whether math-verify takes the two for equal; None if it does not say so in time."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:  # or somebody else ended it
                process = self._start()
            said = _ask(process, [LIMIT_S, truth, answer], LIMIT_S)
            if said is None:
                self._given_up += 1
                logger.warning(
                    "An answer could not be compared within the limits (%g s) and counts as wrong (%d so far): %r",
                    *(LIMIT_S, self._given_up, answer[:_SHOWN]),
                )
                self._end(process)
            return None if said is None else said is True

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._end(self._process)

    def _start(self) -> subprocess.Popen[str]:
        check_installed()
        # -P: `import math` must not find this package's own
        command = [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))]
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=none, encoding="utf-8")
        said = _ask(process, None, _START_S)
        if said != "ready":
            self._end(process)
            raise SettingsError(f"math-verify does not start ({said}); pip install 'aft[math]' again.")
        self._process = process
        return process

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()
        self._process = None


def _ask(process: subprocess.Popen[str], request: object, seconds: float) -> object:
    """What the process says to a request, or when it has started; None if it had to be killed, or died."""
    timer = Timer(seconds, process.kill)
    timer.start()
    try:
        assert process.stdin is not None and process.stdout is not None
        if request is not None:
            process.stdin.write(f"{json.dumps(request)}\n")
            process.stdin.flush()
        line = process.stdout.readline()
    except OSError:  # it died before
        line = ""
    finally:
        timer.cancel()
    return json.loads(line) if line.endswith("\n") else None


_WORKER = _Worker()
atexit.register(_WORKER.stop)
