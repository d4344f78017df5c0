"""A process that answers many calls: real processes, some of them rude."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.command import wait_until_gone
from tests.unit.waits import PATIENCE_S
from tfos_job.errors import BadDataError, JobError, NodeDiedError
from tfos_job.host import service
from tfos_job.host.service import Service

PROGRAM = """
import os, signal, sys, tempfile, time
from tfos_job.errors import BadDataError
from tfos_job.host import service

def work(request, got_on):
    if request == "raise":
        raise BadDataError("it is bad", place="there", next_step="Repair it")
    if request == "bug":
        raise ValueError("a bug")
    if request == "die":
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if request == "exit":
        print("last words", flush=True)
        os._exit(3)
    if request == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if request == "hang":
        time.sleep(3600)
    return [request, os.getpid(), tempfile.gettempdir(), os.environ["CUDA_VISIBLE_DEVICES"]]

service.serve(work, idle_s={idle_s})
"""
Make = Callable[..., Service]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.syspath_prepend(tmp_path)
    made: list[Service] = []

    def make_service(idle_s: float = 3600, **settings: Any) -> Service:
        (tmp_path / "program.py").write_text(PROGRAM.replace("{idle_s}", str(idle_s)))
        made.append(Service("program", name="the program", if_killed="Give it more", **settings))
        return made[-1]

    yield make_service
    for each in made:
        each.close()


def test_one_process_answers_all_calls_and_leaves_nothing(make: Make) -> None:
    answering = make(visible_gpus="3")
    first, second = answering.call({"a": ["汉", None]}), answering.call(2)
    assert first[0] == {"a": ["汉", None]}
    assert first[1:] == second[1:]
    assert second[3] == "3"
    with pytest.raises(BadDataError, match=r"^there: it is bad. Repair it$"):
        answering.call("raise")
    with pytest.raises(JobError, match="ValueError: a bug"):
        answering.call("bug")
    assert answering.call(3)[1] == first[1]
    Path(first[2], "left.py").write_text("")
    answering.close()
    assert not os.path.exists(first[2])


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ("die", NodeDiedError, "the program was killed by SIGKILL. Give it more"),
        ("exit", JobError, "the program ended with exit code 3: last words"),
        ("stop", NodeDiedError, "no sign of life for 10 s"),
        ("hang", NodeDiedError, "has not got on with its work for 2 s"),
    ],
)
def test_what_ends_or_hangs_is_told_and_replaced(make: Make, request_: str, error: type[JobError], words: str) -> None:
    answering = make(silence_s=10, stall_s=2)
    before = answering.call("first")[1]
    with pytest.raises(error, match=words):
        answering.call(request_)
    assert not wait_until_gone([psutil.Process(before)] if psutil.pid_exists(before) else [], PATIENCE_S)
    assert answering.call("next")[1] != before


def test_the_limit_is_for_each_step_of_the_work_not_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    class Working:
        """A process that beats every second, and gets on at some."""

        def __init__(self, *got_on_s: int) -> None:
            self.got_on_s = got_on_s

        def hear(self, limit_s: float) -> dict[str, Any]:
            nonlocal now_s
            now_s += 1
            if now_s > 20:
                return {"answer": {"result": "done"}}
            return {"got_on": True} if now_s in self.got_on_s else {"beat": True}

    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: now_s))
    answering = Service("none", name="the program", if_killed="", stall_s=5)
    assert answering._listen(Working(4, 9, 14, 19)).value() == "done"  # type: ignore[arg-type, union-attr]
    now_s = 0.0
    with pytest.raises(NodeDiedError, match="has not got on with its work for 5 s"):
        answering._listen(Working(4, 9, 16))  # type: ignore[arg-type]
    assert now_s == 15


def test_progress_is_told_once_a_beat_however_often_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, told = 0.0, []
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: now_s))
    got_on = service._telling(SimpleNamespace(say=lambda **message: told.append((now_s, message))))  # type: ignore[arg-type]
    for _ in range(300):
        got_on()
        now_s += 0.01
    assert [message for _, message in told] == [{"got_on": True}] * 3
    assert told[0][0] == 0


def test_an_idle_process_gives_its_memory_back_and_the_next_call_has_another(make: Make) -> None:
    answering = make(idle_s=0.2)
    answer = answering.call(1)
    while psutil.pid_exists(answer[1]) and psutil.Process(answer[1]).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.05)
    assert not os.path.exists(answer[2])
    assert answering.call(2)[1] != answer[1]


def test_it_ends_with_its_caller(make: Make, tmp_path: Path) -> None:
    make()
    caller = """
        import time
        from tfos_job.host.service import Service
        print(*Service("program", name="the program", if_killed="").call(0)[1:3], flush=True)
        time.sleep(3600)
    """
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", textwrap.dedent(caller)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, scratch = process.stdout.readline().split()
        program = psutil.Process(int(pid))
        process.kill()
    assert not wait_until_gone([program], PATIENCE_S)
    assert not os.path.exists(scratch)
