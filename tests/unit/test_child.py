"""The one that starts a Python process and the one that is started: real processes, some of them rude."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command import is_alive
from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.errors import JobError, NodeDiedError
from tfos_job.host import calls, child
from tfos_job.host.child import Child, child_environment, end_in_words

Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a process that runs the given lines, after `parent = Parent()`."""
    monkeypatch.syspath_prepend(tmp_path)
    started: list[Child] = []

    def start_child(*lines: str, **settings: Any) -> Child:
        text = ["import os, sys, time", "from tfos_job.host.parent import Parent", "parent = Parent()", *lines]
        (tmp_path / "program.py").write_text("\n".join(text))
        started.append(Child("program", name="the program", env=child_environment(""), **settings))
        return started[-1]

    yield start_child
    for each in started:
        each.end()


def test_what_a_child_prints_is_not_taken_for_what_it_says(start: Start, tmp_path: Path) -> None:
    # Before it is asked anything, and by whatever way: Python, the descriptor, a process of its own.
    (tmp_path / "sitecustomize.py").write_text('print(\'{"from": "sitecustomize"}\', flush=True)')
    with tempfile.TemporaryFile() as output:
        program = start(
            "print('{}')",
            "sys.stdout.flush()",
            "os.write(1, b'{}\\n')",
            "os.system('echo {}')",
            "parent.say(heard=parent.hear(), stdin=sys.stdin.read())",
            output=output,
        )
        program.tell({"order": 1})
        assert program.hear(PATIENCE_S) == {"heard": {"order": 1}, "stdin": ""}
        assert program.hear(PATIENCE_S) is None
        assert program.end(PATIENCE_S) == 0
        output.seek(0)
        assert output.read().splitlines() == [b'{"from": "sitecustomize"}', b"{}", b"{}", b"{}"]


def test_a_child_sees_that_its_parent_is_gone(start: Start) -> None:
    program = start("parent.say(ready=True)", "said = parent.hear()", "os._exit(7 if said is None else 8)")
    assert program.hear(PATIENCE_S) == {"ready": True}
    program.hang_up()
    assert program.end(PATIENCE_S) == 7


def test_a_child_that_is_stopped_goes_on_when_its_parent_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "program.py").write_text(
        "import os\nfrom tfos_job.host.parent import Parent\n"
        "parent = Parent()\nparent.say(ready=True)\nparent.hear()\nopen(os.environ['MARK'], 'w').close()"
    )
    (tmp_path / "starter.py").write_text(
        "import os, time\nfrom tfos_job.host.child import Child, child_environment\n"
        "program = Child('program', name='the program', env=child_environment(''))\n"
        "program.hear()\nprint(program.pid, flush=True)\ntime.sleep(3600)"
    )
    mark = tmp_path / "cleaned-up"
    env = child_environment("") | {"MARK": str(mark)}
    starter = subprocess.Popen([sys.executable, tmp_path / "starter.py"], env=env, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    starter.kill()
    starter.communicate()
    wait_until(lambda: not psutil.pid_exists(pid) or not is_alive(psutil.Process(pid)))
    assert mark.exists()


def test_a_child_that_does_not_read_keeps_nobody_waiting(start: Start) -> None:
    program = start("time.sleep(3600)")
    began_s = time.monotonic()
    program.tell("x" * (64 << 20))  # far more than a socket holds
    with pytest.raises(TimeoutError):
        program.hear(0.1)
    assert program.end() == -signal.SIGKILL
    assert time.monotonic() - began_s < PATIENCE_S


def test_a_child_imports_what_its_parent_would(start: Start, tmp_path: Path) -> None:
    # A file in the working directory is no module of its own, even where it has the name of one.
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "queue.py").write_text("raise ImportError('of the working directory')")
    program = start("import queue", "parent.say(path=sys.path)", cwd=str(tmp_path / "home"))
    found = program.hear(PATIENCE_S)["path"]
    assert next(filter(None, sys.path)) == found[0] == str(tmp_path)
    assert str(tmp_path / "home") not in found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("os.kill(os.getpid(), 35)", "was killed by signal 35"),
        ("sys.exit(3)", "ended with exit code 3"),
    ],
)
def test_how_a_child_ends_in_words(start: Start, line: str, words: str) -> None:
    code = start(line).end(PATIENCE_S)
    assert code is not None
    assert end_in_words(code) == words


def test_a_process_that_cannot_be_ended_is_left_behind_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As the kernel does with one that waits for a disk: the signal is taken, and has no effect.
    monkeypatch.setattr(child, "KILL_WAIT_S", 0.1)
    process = subprocess.Popen(["sleep", "3600"])
    with monkeypatch.context() as kernel:
        kernel.setattr(process, "kill", lambda: None)
        assert child.end(process, "the sleeper") is None
    assert f"the sleeper (process {process.pid}) does not end though it was killed, and is left behind" in caplog.text
    assert child.end(process, "the sleeper") == -signal.SIGKILL


SLOW = """
import os, signal, time
from tfos_job.host import calls

def work(request):
    print("loading weights", flush=True)
    if request == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if request == "exit":
        raise SystemExit("enough")
    if request == "sleep":
        time.sleep(3600)
    time.sleep(1.5)
    return {"slept": True}

if __name__ == "__main__":
    calls.answer(work)
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)

    def ask(request: Any, **limits: float) -> Any:
        return calls.call("slow", request, name="the helper", if_killed="?", **limits)

    return ask


def test_work_that_takes_long_shows_that_its_process_lives(start: Start, slow: Callable[..., Any]) -> None:
    assert slow("work") == {"slept": True}  # with a beat before the answer
    program = start("parent.beat()", "time.sleep(3600)")
    assert [program.hear(PATIENCE_S) for _ in range(3)] == [{"beat": True}] * 3


def test_a_process_that_is_stopped_or_late_is_ended(slow: Callable[..., Any]) -> None:
    with pytest.raises(NodeDiedError, match="the helper has given no sign of life for 2 s"):
        slow("stop", silence_s=2.0)
    with pytest.raises(NodeDiedError, match="the helper has not ended within 2 s"):
        slow("sleep", limit_s=2.0)
    with pytest.raises(JobError, match=r"(?s)SystemExit: enough.*This is a bug"):
        slow("exit")
    children = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    assert "-m slow" not in children.stdout
