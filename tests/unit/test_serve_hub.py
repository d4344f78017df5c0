"""Greenlets that take turns on a thread, and what goes aside."""

from __future__ import annotations

import contextvars
import gc
import math
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import greenlet
import pytest

from tfos_job.serve import hub
from tfos_job.serve.hub import Hub, Latch, aside
from tfos_job.serve.refusals import Unavailable


class Looped:
    """A hub on this thread, which a test runs."""

    def __init__(self) -> None:
        self.wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.hub = Hub(lambda: self.wakes.put(None))
        self.said: list[str] = []

    def start(self, *functions: Callable[[], None]) -> None:
        for function in functions:
            self.hub.start(function)
        self.hub.run()

    def run_when_woken(self) -> None:
        self.wakes.get()
        self.hub.run()


@pytest.fixture
def looped() -> Iterator[Looped]:
    made = Looped()
    yield made
    made.hub.close()


def test_while_one_waits_the_others_go_on(looped: Looped) -> None:
    latch = Latch()

    def wait() -> None:
        looped.said.append("waits")
        assert latch.wait()
        looped.said.append("goes on")

    looped.start(wait, wait, lambda: looped.said.append("another"))
    assert (looped.said, looped.hub.has_pauses) == (["waits", "waits", "another"], True)
    looped.hub.run()
    assert len(looped.said) == 3
    latch.set()
    looped.start(lambda: looped.said.append("a new one"))
    assert (looped.said[3:], looped.hub.has_pauses) == (["goes on", "goes on", "a new one"], False)
    assert looped.wakes.qsize() == 1  # for both
    assert latch.wait()
    assert latch.wait(0.0)


def test_it_is_woken_from_another_thread(looped: Looped) -> None:
    latch = Latch()
    looped.start(lambda: looped.said.append(str(latch.wait())))
    threading.Thread(target=latch.set).start()
    looped.run_when_woken()
    assert looped.said == ["True"]


def test_a_wait_ends_with_its_time_and_is_ended_once(looped: Looped) -> None:
    latch = Latch()
    now_s = time.monotonic()
    looped.start(lambda: looped.said.append(str(latch.wait(now_s + 600))))
    looped.hub.give_up(now_s + 599)
    looped.hub.run()
    assert looped.said == []
    looped.hub.give_up(now_s + 600)
    latch.set()  # late: the pause is over, and only its greenlet has not seen that yet
    looped.hub.run()
    assert looped.said == ["True"]
    assert not Latch().wait(now_s)  # on a thread as well


def test_a_fault_is_that_of_its_own_greenlet(looped: Looped, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("a fault")

    looped.start(fail, lambda: looped.said.append("the next"))
    assert looped.said == ["the next"]
    assert "A connection has failed" in caplog.text


def test_many_that_are_there_let_others_come_between(looped: Looped) -> None:
    """A run ends after some time, and those that have waited go first in the next."""
    latch = Latch()

    def work() -> None:
        time.sleep(2 * hub._RUN_S)
        looped.said.append("work")

    def wait() -> None:
        latch.wait()
        looped.said.append("waited")

    looped.start(wait, work, work)
    assert (looped.said, looped.hub.has_work) == (["work"], True)
    latch.set()
    looped.hub.run()
    assert (looped.said, looped.hub.has_work) == (["work", "waited", "work"], False)


def test_an_error_from_aside_keeps_nothing_of_what_it_was_about(looped: Looped) -> None:
    class Body:
        pass

    bodies: list[weakref.ref[Body]] = []

    def fail() -> None:
        body = Body()
        bodies.append(weakref.ref(body))
        raise ValueError

    def ask() -> None:
        with pytest.raises(ValueError, match=r"^$"):
            aside(fail)
        looped.said.append("failed")

    gc.disable()  # it would find a ring, some time
    try:
        looped.start(ask)
        looped.run_when_woken()
        while bodies[0]() is not None:
            time.sleep(0.01)  # the thread may be about to let go
    finally:
        gc.enable()
    assert looped.said == ["failed"]


def test_what_takes_long_goes_aside_in_the_context_of_its_caller(looped: Looped) -> None:
    variable = contextvars.ContextVar("variable", default="none")
    go, here = threading.Event(), threading.get_ident()

    def long() -> str:
        assert go.wait(600)
        assert aside(threading.get_ident) == threading.get_ident() != here
        return variable.get()

    def ask() -> None:
        variable.set("the caller's")
        looped.said.append(aside(long))

    def fail() -> None:
        with pytest.raises(ZeroDivisionError):
            aside(lambda: 1 // 0)
        looped.said.append("failed")

    looped.start(ask, lambda: looped.said.append(variable.get()))
    assert looped.said == ["none"]
    go.set()
    looped.run_when_woken()
    assert looped.said == ["none", "the caller's"]
    looped.start(fail)
    looped.run_when_woken()
    assert looped.said[2:] == ["failed"]
    looped.start(lambda: looped.said.append(str(aside(threading.get_ident, unless=True) == here)))
    assert looped.said[3:] == ["True"]
    assert aside(threading.get_ident) == here  # without a hub


def test_what_has_no_turn_in_time_is_not_begun(looped: Looped) -> None:
    go, began = threading.Event(), queue.SimpleQueue[int]()
    num_threads = len(os.sched_getaffinity(0))

    def hold(number: int) -> int:
        began.put(number)
        go.wait()
        return number

    def ask(number: int, until_s: float) -> None:
        try:
            looped.said.append(str(aside(lambda: hold(number), until_s)))
        except Unavailable:
            looped.said.append("too late")

    now_s = time.monotonic()
    looped.start(*(lambda number=number: ask(number, now_s) for number in range(num_threads)))  # type: ignore[misc]
    for _ in range(num_threads):
        began.get()
    looped.start(lambda: ask(-1, now_s), lambda: ask(-2, math.inf))
    looped.hub.give_up(now_s)
    looped.hub.run()
    assert looped.said == ["too late"]  # those that have begun are waited for
    go.set()
    while looped.hub.has_pauses:
        looped.run_when_woken()
    assert sorted(looped.said[1:]) == sorted(map(str, [*range(num_threads), -2]))
    assert sorted(began.get() for _ in range(began.qsize())) == [-2]


def test_at_the_end_whoever_waits_is_cleaned_up(looped: Looped) -> None:
    def wait() -> None:
        try:
            Latch().wait()
        except greenlet.GreenletExit:
            looped.said.append("left")
            raise

    looped.start(wait, wait)
    looped.hub.start(lambda: looped.said.append("never"))
    looped.hub.close()
    assert (looped.said, looped.hub.has_pauses) == (["left", "left"], False)
