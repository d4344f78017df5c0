"""The stacks of processes that stand still, in Python, in C or stopped: real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.host import proc, stacks
from tfos_job.host.child import child_environment

Start = Callable[[str], tuple[int, int]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a Python process; returns its id and the descriptor of its log."""
    with (tmp_path / "log").open("ab+") as log:
        started = []

        def begin(text: str) -> tuple[int, int]:
            log.write(b"of an attempt before\n")
            log.flush()
            process = subprocess.Popen([sys.executable, "-c", text], stderr=log, env=child_environment(""))
            started.append(process)
            return process.pid, log.fileno()

        yield begin
        for process in started:
            process.kill()
            process.wait()


WAITS_IN_PYTHON = """
import threading, time
from tfos_job.host import stacks
stacks.register()
def wait_beside():
    time.sleep(3600)
threading.Thread(target=wait_beside, daemon=True).start()
def wait_for_ever():
    time.sleep(3600)
wait_for_ever()
"""
# A call of C that keeps Python's lock: no other thread of Python, and no handler in Python, can run.
WAITS_IN_C = """
import itertools
from tfos_job.host import stacks
stacks.register()
def in_a_library():
    sum(itertools.repeat(0))
in_a_library()
"""


@pytest.mark.parametrize(
    ("text", "named"),
    [(WAITS_IN_PYTHON, ("in wait_for_ever", "in wait_beside")), (WAITS_IN_C, ("in in_a_library",))],
)
def test_a_child_tells_where_it_stands_and_goes_on(start: Start, text: str, named: tuple[str, ...]) -> None:
    pid, log = start(text)
    wait_until(lambda: proc.catches(pid, stacks.SIGNAL))
    found = ""
    while not all(name in found for name in named):
        found = stacks.of_child(pid, log, PATIENCE_S)
        assert "File" in found  # be it still on its way there
    assert "of an attempt before" not in found
    assert proc.state(pid) is not None


def test_a_child_that_cannot_tell_is_not_ended_and_not_waited_for(start: Start) -> None:
    pid, log = start(WAITS_IN_PYTHON)
    wait_until(lambda: proc.catches(pid, stacks.SIGNAL))
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: proc.is_stopped(proc.state(pid) or ""))
    assert stacks.of_child(pid, log, PATIENCE_S) == f"Process {pid} is stopped: state T (stopped)."
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not proc.is_stopped(proc.state(pid) or ""))
    assert "File" in stacks.of_child(pid, log, PATIENCE_S)

    pid, log = start("import time; time.sleep(3600)")
    assert stacks.of_child(pid, log).startswith(f"Process {pid} has not come so far as to tell its stacks: state ")
    pid, log = start("import signal, time; signal.signal(signal.SIGUSR1, lambda *_: None); time.sleep(3600)")
    wait_until(lambda: proc.catches(pid, stacks.SIGNAL))
    assert stacks.of_child(pid, log, 0.1).startswith(f"Process {pid} has told no stacks for 0.1 s: state ")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: proc.state(pid) is None)
    assert stacks.of_child(pid, log) == f"Process {pid} has ended."


def test_this_process_tells_of_all_its_threads() -> None:
    held = threading.Event()
    thread = threading.Thread(target=held.wait, name="a thread of its own")
    thread.start()
    found = stacks.of_this_process()
    held.set()
    thread.join()
    assert found.startswith("Thread MainThread:\n")
    assert "in test_this_process_tells_of_all_its_threads" in found
    assert "\nThread a thread of its own:\n" in found


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    assert stacks.cut("文字", 6) == "文字"
    found = stacks.cut("文" * 100 + "字" * 100, 60)
    assert len(found.encode()) <= 60
    assert found.startswith("文文")
    assert found.endswith("字字")
    assert "[…]" in found
