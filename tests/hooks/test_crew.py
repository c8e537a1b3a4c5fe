"""Processes that run nodes before their turn: what they hand on, what their end changes, and that none is left."""

import json
import logging
import math
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kedro.pipeline.node import Node

from aft.hooks.crew import Crew

ROOMS = ("errors.py",)  # whose import costs nothing


def until(reached: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


def folder(path: Path, after: str = "ready", name: str = "folder") -> tuple[Node, dict[str, Any]]:
    """A node that makes a folder, so that a test sees when it has run."""
    return Node(os.mkdir, {"path": f"path_of_{name}"}, name, name=name), {f"path_of_{name}": str(path)}


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew([{}], ROOMS)
    yield made
    made.close()


def test_what_a_node_gives_is_handed_on_to_the_next_one(crew, tmp_path):
    """Among many: of three nodes, the second and third wait for the one before."""
    add = Node(operator.add, ["one", "two"], "sum", name="add")
    text = Node(operator.concat, ["start", "sum"], "path", name="text")
    make = Node(os.mkdir, {"path": "path"}, "made", name="make")
    crew.add([make, text, add], {"one": "a", "two": "b", "start": f"{tmp_path}/"})
    until((tmp_path / "ab").is_dir)
    assert [crew.turn_of(node) for node in (add, text, make)] == [True, True, True]


def test_a_node_that_nobody_has_begun_is_left_to_its_turn(crew):
    waits = Node(math.sqrt, "unknown", "root", name="waits")
    crew.add([waits], {})
    assert not crew.turn_of(waits)


def test_while_a_process_is_at_a_node_its_turn_helps_with_others(crew, tmp_path):
    slow = Node(subprocess.check_output, {"args": "command"}, "said", name="slow")
    beside = Node(os.getpid, None, "pid", name="beside")
    started, values = folder(tmp_path / "started", name="started")
    crew.add([started], values)
    until((tmp_path / "started").is_dir)
    crew.add([slow], {"command": ["sleep", "1"]})
    until(lambda: "slow" in crew._under_way)  # "started" may still be, its folder being there
    crew.add([beside], {})
    assert crew.turn_of(slow)
    assert crew.turn_of(beside) and crew._outputs["pid"] == os.getpid()


def test_a_node_that_fails_is_left_to_its_turn_which_tells_why(crew, tmp_path, caplog):
    fails, (after, values) = Node(json.loads, "text", "content", name="fails"), folder(tmp_path / "after")
    crew.add([fails, after], {"text": "no JSON", **values})
    until((tmp_path / "after").is_dir)
    assert not crew.turn_of(fails) and crew.turn_of(after)
    assert caplog.messages == ["fails did not succeed beforehand and is run again in its turn."]


def test_the_run_goes_on_without_a_process_that_was_killed(crew, caplog):
    killed = Node(signal.raise_signal, "number", "nothing", name="killed")
    after = Node(os.getpid, None, "pid", name="after")
    crew.add([killed], {"number": signal.SIGKILL})
    until(lambda: len(caplog.messages) == 2)
    crew.add([after], {})
    assert not crew.turn_of(killed) and not crew.turn_of(after)
    assert caplog.messages[-1] == "A process that worked for this run has ended; the run goes on without it."


def test_an_order_that_a_process_cannot_read_ends_it(crew, caplog, monkeypatch):
    """As of a module that was edited meanwhile: the run goes on without the process."""
    monkeypatch.setitem(sys.modules, "only_here", only_here := ModuleType("only_here"))
    exec("def unknown(): pass", only_here.__dict__)
    node = Node(only_here.unknown, None, "nothing", name="unknown")
    crew.add([node], {})
    until(lambda: len(caplog.messages) == 2)
    assert not crew.turn_of(node)
    assert caplog.messages[-1] == "A process that worked for this run has ended; the run goes on without it."


def test_what_a_process_says_is_seen_before_it_counts_as_told(crew, caplog):
    """While another node's turn keeps back what was told, too."""
    caplog.handler.addFilter(told := lambda record: record.getMessage() not in crew.told)
    warns = Node(logging.getLogger("aft.other").warning, "text", "nothing", name="warns")
    crew.add([warns], {"text": "Careful."})
    until(lambda: "Careful." in crew.told)
    caplog.handler.removeFilter(told)
    assert caplog.messages == ["Careful."]


def test_what_several_nodes_warn_of_is_told_once(crew, caplog):
    warn = logging.getLogger("aft.other").warning
    again = [Node(warn, "text", name, name=name) for name in ("first", "second", "third")]
    crew.add([*again, Node(warn, "other", "last", name="last")], {"text": "Mind.", "other": "Enough."})
    until(lambda: "Enough." in crew.told)
    assert caplog.messages == ["Mind.", "Enough."]


def test_a_process_that_has_other_code_makes_nothing(edit_code, caplog):
    edit_code("errors.py")
    crew, node = Crew([{}], ROOMS), Node(os.getpid, None, "pid", name="one")
    crew.add([node], {})
    until(lambda: caplog.messages)
    assert "The code has changed since this run began" in caplog.text
    assert not crew.turn_of(node)
    crew.close()


def test_no_process_is_left_when_a_crew_is_closed(crew, tmp_path):
    slow = Node(subprocess.check_output, {"args": "command"}, "said", name="slow")
    crew.add([slow], {"command": ["sleep", "100"]})
    (worker,) = crew._workers
    pid = worker._process.pid
    assert is_alive(pid)
    crew.close()
    assert not is_alive(pid)


def test_no_process_outlives_a_run_that_was_killed(start_python):
    code = """
import os, sys, time
from kedro.pipeline.node import Node
from aft.hooks.crew import Crew
crew = Crew([{}], ["errors.py"])
crew.add([Node(os.getpid, None, "pid", name="one"), Node(time.monotonic_ns, None, "now", name="now")], {})
while "pid" not in crew._outputs: time.sleep(0.01)
print(crew._outputs["pid"], flush=True)
time.sleep(100)
"""
    run = start_python(code)
    pid = int(run.stdout.readline())
    assert is_alive(pid)
    run.kill()
    until(lambda: not is_alive(pid))
