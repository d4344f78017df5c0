"""Threads that have tasks served."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field

import pytest

from tfos_job.serve.workers import Workers


@dataclass
class Task:
    """A task that ends when it is let."""

    go: threading.Event = field(default_factory=threading.Event)
    began: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    ended: threading.Event = field(default_factory=threading.Event)
    fault: bool = False
    is_cancelled: bool = False

    def service(self) -> None:
        self.began.put(threading.get_ident())
        self.go.wait()
        self.ended.set()
        if self.fault:
            raise ValueError

    def cancel(self) -> None:
        self.is_cancelled = True


def idle(workers: Workers, number: int) -> None:
    while len(workers._idle) < number:
        pass


def test_threads_are_born_when_they_are_needed_and_the_last_at_work_is_the_next() -> None:
    workers = Workers(max_threads=8)
    first, second = Task(), Task(fault=True)
    for task in (first, second):
        workers.add_task(task)
    threads = [first.began.get(), second.began.get()]
    assert threads[0] != threads[1]
    first.go.set()
    idle(workers, 1)
    second.go.set()
    idle(workers, 2)
    for _ in range(3):
        task = Task()
        task.go.set()
        workers.add_task(task)
        assert task.began.get() == threads[1]  # alive after its fault
        idle(workers, 2)
    assert workers._num_threads == 2
    workers.close()


def test_what_is_too_much_waits_in_order_and_is_cancelled_at_the_end() -> None:
    workers = Workers(max_threads=1)
    tasks = [Task() for _ in range(4)]
    for task in tasks:
        workers.add_task(task)
    for task in tasks[:2]:
        task.began.get()
        assert not tasks[2].ended.is_set()
        task.go.set()
    tasks[2].began.get()
    workers.close()
    assert [task.is_cancelled for task in tasks] == [False, False, False, True]
    tasks[2].go.set()
    tasks[2].ended.wait()


def test_a_thread_that_cannot_be_started_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task waits for another one; without any, its connection is closed."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = Workers(max_threads=2)
    lost, first, second, third = (Task() for _ in range(4))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        workers.add_task(lost)
    assert (lost.is_cancelled, workers._num_threads) == (True, 0)
    workers.add_task(first)
    thread = first.began.get()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        workers.add_task(second)
    assert (second.is_cancelled, workers._num_threads) == (False, 1)
    first.go.set()
    assert second.began.get() == thread
    workers.add_task(third)
    assert third.began.get() != thread
    for task in (second, third):
        task.go.set()
        task.ended.wait()
    workers.close()
