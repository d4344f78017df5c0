"""What never answers: a JVM that is stopped, a disk that is gone. Nobody waits for it for ever."""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.driver import launch, scheduler_backend, tasks
from tfos_job.driver.launch import NodeJob
from tfos_job.host.limits import within
from tfos_job.nodes.node import NodeArgs
from tfos_job.protocol.frames import new_key
from tfos_job.protocol.topology import Topology


def test_a_call_that_ends_is_like_any_other() -> None:
    assert within(PATIENCE_S, lambda: 3, "three") == 3
    with pytest.raises(ZeroDivisionError):
        within(PATIENCE_S, lambda: 1 // 0, "none")


class Stopped:
    """A SparkContext whose JVM does not answer. Whatever is asked of it waits."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    @property
    def _jsc(self) -> None:
        assert self.goes_on.wait(PATIENCE_S)


def test_an_attempt_ends_though_the_jvm_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (launch, scheduler_backend):
        monkeypatch.setattr(module, "JVM_S", 0.1)
    context = Stopped()
    args = NodeArgs(
        driver=("127.0.0.1", 1),
        key=new_key(),
        attempt=1,
        driver_host_tasks={},
        inputs=(),
        num_gpus=0,
        local=True,
        start_timeout=600,
    )
    job = NodeJob(context, Topology(1, 1), args, queue.Queue())
    assert job.ask("") is None
    job.close(0)
    context.goes_on.set()
    assert "Spark's JVM does not answer: its job is not cancelled" in caplog.text


@pytest.fixture
def jvm() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "3600"])
    yield process
    process.kill()
    process.wait()


def test_a_jvm_that_answers_no_more_is_ended(
    jvm: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "_GUARD_POLL_S", 0.01)
    looks = 0

    class Answers(threading.Event):
        """One for every 100 looks, and after 500 none."""

        def is_set(self) -> bool:
            nonlocal looks
            looks += 1
            return looks <= 500 and looks % 100 == 0

    tasks.end_if_silent(jvm, threading.main_thread(), Answers(), threading.Event(), silence_s=1.0)
    assert looks == 600
    assert jvm.wait(PATIENCE_S) == -signal.SIGKILL
    assert f"Spark's JVM (process {jvm.pid}) has not answered for 1 s: it is ended" in caplog.text


def test_a_jvm_that_nobody_asks_any_more_lives_on(
    jvm: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_GUARD_POLL_S", 0.01)
    ended = threading.Event()
    watcher = threading.Thread(target=lambda: None)  # as one that has found Spark gone
    watcher.start()
    wait_until(lambda: not watcher.is_alive())
    tasks.end_if_silent(jvm, watcher, threading.Event(), ended, silence_s=0.0)
    ended.set()
    tasks.end_if_silent(jvm, threading.main_thread(), threading.Event(), ended, silence_s=0.0)
    assert jvm.poll() is None
