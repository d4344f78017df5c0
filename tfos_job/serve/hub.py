"""Requests on one thread, each in a greenlet: where one would wait, the thread goes on with another.

With a thread for each, requests hand the interpreter's lock on again and again, which costs more than their work does
(docs/decisions/0005-http-server.md). The price: who computes for long, or waits for anything but a `Latch`, holds up
all the others. So such work goes `aside`, to another thread.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import greenlet

from tfos_job.serve.refusals import too_late

T = TypeVar("T")

_RUN_S = 0.02  # for which requests that are there may hold up those that are coming

_of_thread = threading.local()
_log = logging.getLogger(__name__)


class Latch:
    """Something that happens once. Threads may wait for it, and greenlets of a `Hub`, whose thread then goes on."""

    def __init__(self) -> None:
        self.is_set = False
        self._wakers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        with self._lock:
            self.is_set = True
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def wait(self, until_s: float = math.inf) -> bool:
        """Waits for it; false if it has not happened until then, of `time.monotonic`."""
        hub = _hub_here()
        pause = _Blocked(until_s) if hub is None else _Paused(hub, until_s)
        with self._lock:
            if self.is_set:
                return True
            self._wakers.append(pause.end)
        pause.wait()
        return self.is_set


def aside(function: Callable[[], T], until_s: float = math.inf, *, unless: bool = False) -> T:
    """Calls a function. On the thread of a hub another thread does, as many at a time as there are processors.

    Args:
      function: runs in the context of the caller, as `contextvars` has it.
      until_s: when it must have begun, of `time.monotonic`.
      unless: it takes so little time that it may hold up the others; then it is called at once.

    Raises:
      Unavailable: it has not begun until then, and will not.
      Exception: what the function raises.
    """
    hub = None if unless else _hub_here()
    if hub is None:
        return function()
    ended = Latch()
    future = hub.threads.submit(functools.partial(contextvars.copy_context().run, function))
    future.add_done_callback(lambda _: ended.set())
    if not ended.wait(until_s) and future.cancel():
        raise too_late()
    ended.wait()
    try:
        return future.result()
    finally:
        del future  # else an error, whose traceback has this frame, would keep itself and all that it was about


class Hub:
    """The greenlets of a thread, the one that calls `run`.

    Args:
      wake: has that thread call `run` soon; called on any thread.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.threads = _Threads(len(os.sched_getaffinity(0)))
        self._wake = wake
        self._is_woken = False
        self._begun: collections.deque[Callable[[], None]] = collections.deque()
        self._ended: collections.deque[_Paused] = collections.deque()
        self._pauses: set[_Paused] = set()

    @property
    def has_pauses(self) -> bool:
        """True while a greenlet waits."""
        return bool(self._pauses)

    @property
    def has_work(self) -> bool:
        """True while a greenlet could go on."""
        return bool(self._ended or self._begun)

    def start(self, function: Callable[[], None]) -> None:
        """Has a function called in a greenlet, by the next `run`; on the hub's thread."""
        self._begun.append(function)

    def run(self) -> None:
        """Goes on with the greenlets that can, those that have waited first, until all wait or some time is over."""
        self._is_woken = False
        _of_thread.hub, self.greenlet = self, greenlet.getcurrent()
        until_s = time.monotonic() + _RUN_S
        try:
            while self.has_work:
                if self._ended:
                    self._ended.popleft().go_on()
                else:
                    greenlet.greenlet(functools.partial(_logged, self._begun.popleft())).switch()
                if time.monotonic() > until_s:
                    return
        finally:
            _of_thread.hub = None

    def give_up(self, now_s: float) -> None:
        """Ends the pauses whose time is over."""
        for pause in [each for each in self._pauses if each.until_s <= now_s]:
            pause.end()

    def close(self) -> None:
        """Ends the greenlets that wait, as by an exception, and the threads; on the hub's thread."""
        self._begun.clear()
        for pause in list(self._pauses):
            pause.greenlet.throw()
        self.threads.close()


class _Threads:
    """So many threads that call functions.

    Those of `concurrent.futures` would be waited for at the end of the process, however long they take.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        for _ in range(number):
            threading.Thread(target=self._run, name="aside", daemon=True).start()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._calls.put((future, function))
        return future

    def close(self) -> None:
        """Ends each thread behind the calls that wait."""
        for _ in range(self._number):
            self._calls.put(None)

    def _run(self) -> None:
        while call := self._calls.get():
            _settle(*call)
            del call  # with its pictures, while this thread waits


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
            del future  # as in `aside`


class _Paused:
    """A greenlet that waits."""

    def __init__(self, hub: Hub, until_s: float) -> None:
        self._hub = hub
        self.until_s = until_s
        self.greenlet = greenlet.getcurrent()

    def wait(self) -> None:
        self._hub._pauses.add(self)
        try:
            self._hub.greenlet.switch()
        finally:
            self._hub._pauses.remove(self)

    def end(self) -> None:
        """Has the greenlet go on soon; on any thread, and more than once, as when its time is over first."""
        hub = self._hub
        hub._ended.append(self)
        if not hub._is_woken:
            hub._is_woken = True
            hub._wake()

    def go_on(self) -> None:
        if self in self._hub._pauses:
            self.greenlet.switch()


class _Blocked:
    """A thread that waits."""

    def __init__(self, until_s: float) -> None:
        self._until_s = until_s
        self._lock = threading.Lock()  # a fifth of what an Event costs
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire(timeout=min(max(0.0, self._until_s - time.monotonic()), threading.TIMEOUT_MAX))

    def end(self) -> None:
        self._lock.release()


def _hub_here() -> Hub | None:
    """The hub whose greenlet calls; None on other threads, and in what is no greenlet."""
    return getattr(_of_thread, "hub", None)


def _logged(function: Callable[[], None]) -> None:
    try:
        function()
    except greenlet.GreenletExit:
        raise
    except BaseException:  # noqa: BLE001 - of waitress: the application's own are answers
        _log.exception("A connection has failed")
