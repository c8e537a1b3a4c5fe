"""Answers in LaTeX: the last box, numbers by our own check, all else by math-verify in a process that can be ended."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aft.errors import SettingsError
from aft.tasks import latex
from aft.tasks.latex import canonical_latex, last_box, latex_equal


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"so \boxed{1}, or rather \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\left\{ x \right\}}", r"\left\{ x \right\}"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"\boxed{1} and \boxed{}", "1"),
        (r"\boxed{1} and \boxed{2", "1"),  # a response that was cut
        (r"\boxed{\boxed{3}}", "3"),
        (r"\fbox{4}", "4"),
        (r"$\boxed 5$", "5"),
        ("} 6", None),
        ("", None),
    ],
)
def test_the_last_box_with_balanced_braces(text: str, box: str | None) -> None:
    assert last_box(text) == box


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (r"$\frac{1}{2}$.", "0.5"),
        (r"\dfrac12", "0.5"),
        (r"\$1,200", "1200"),
        (r"50\%", "50"),
        ("3x", "3x"),
        ("(3,100)", "(3,100)"),
        (r"\{3,100\}", r"\{3,100\}"),
        (r"\sqrt{2}", r"\sqrt{2}"),
        ("10^{10}", "10^{10}"),
        ("x +\n 1", "x + 1"),
        (r"\( y \)", "y"),
        (" $$ ", None),
    ],
)
def test_only_a_mere_number_is_rewritten(text: str, canonical: str | None) -> None:
    assert canonical_latex(text) == canonical


def test_numbers_need_no_other_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latex, "_compared", None)
    assert latex_equal("0.5", "1/2") and not latex_equal("33.33", "100/3") and latex_equal("x+1", "x+1")
    assert not latex_equal("x" * 2000, "1")  # too long to be compared


def test_without_math_verify_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latex, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"math-verify, which is not installed; pip install 'aft\[math\]'"):
        latex.check_installed()


def test_what_was_late_is_tried_again_only_when_all_is_compared_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker:
        def __init__(self) -> None:
            self.not_compared = self.ended = 0
            self.says: list[bool | None] = [None, True]

        def equal(self, truth: str, answer: str) -> bool | None:
            return self.says.pop(0)

        def stop(self) -> None:
            self.ended += 1

    latex.begin_anew()
    monkeypatch.setattr(latex, "_WORKER", worker := Worker())
    assert not latex_equal("q+1", "1+q") and not latex_equal("q+1", "1+q")
    assert latex.not_compared() == 2 and worker.says == [True]
    latex.begin_anew()
    assert latex_equal("q+1", "1+q") and worker.ended == 1
    latex.begin_anew()


class TestMathVerify:
    """What needs the extra `math`."""

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("math_verify", reason="math-verify is not installed: pip install 'aft[math]'")

    @pytest.fixture
    def worker(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        """One of the test's own, which nothing was given to before."""
        worker = latex._Worker()
        monkeypatch.setattr(latex, "_WORKER", worker)
        yield worker
        worker.stop()

    @pytest.mark.parametrize(
        ("answer", "truth", "equal"),
        [
            ("x+1", "1+x", True),
            ("(x-1)(x+1)", "x^2-1", True),
            ("p-q", "q-p", False),
            (r"2^{1/2}", r"\sqrt{2}", True),
            (r"\left(3, \pi/2\right)", r"(3,\frac{\pi}{2})", True),
            (r"\{2,1\}", r"\{1,2\}", True),
            (r"90^\circ", "90", True),
            ("3x", "3", False),
            (r"\text{Evelyn}", "Evelyn", True),
            (r"\frac{" * 200, "1", False),  # malformed, and deep
        ],
    )
    def test_expressions_are_compared_by_what_they_say(self, answer: str, truth: str, equal: bool) -> None:
        assert latex_equal(answer, truth) is equal

    def test_a_hostile_answer_costs_the_limit_and_counts_as_wrong(
        self, worker: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The process that it kept busy is gone, the same answer is not tried again, and the next one is compared."""
        assert latex_equal("y+1", "1+y")  # the process has started
        busy, began = worker._process, time.monotonic()
        with monkeypatch.context() as short:
            short.setattr(latex, "LIMIT_S", 1.0)
            assert not latex_equal("10^{10^{10}}", "7.5") and not latex_equal("10^{10^{10}}", "7.5")
        assert 1.0 <= time.monotonic() - began < 3.0
        (told,) = caplog.messages
        assert "within the limits (1 s) and counts as wrong (1 so far): '10^{10^{10}}'" in told
        assert busy.returncode is not None and latex.not_compared() == 2
        assert latex_equal("z+1", "1+z")

    def test_a_process_that_somebody_ended_is_replaced(self, worker: Any) -> None:
        assert latex_equal("a+1", "1+a")
        worker._process.kill()
        worker._process.wait()
        assert latex_equal("b+1", "1+b")

    def test_what_a_model_wrote_is_not_run(self, tmp_path: Path) -> None:
        made = tmp_path / "made"
        for text in (f"__import__('os').mkdir('{made}')", rf"\text{{__import__('os').mkdir('{made}')}}"):
            assert not latex_equal(text, "1")
        assert not made.exists()
