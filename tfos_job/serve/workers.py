"""The threads that have requests answered, instead of waitress' own: as few as the load needs, the warmest first."""

from __future__ import annotations

import collections
import logging
import queue
import threading
from typing import Protocol

_log = logging.getLogger(__name__)


class Task(Protocol):
    """A connection with a request, of waitress."""

    def service(self) -> None: ...

    def cancel(self) -> None: ...


class Workers:
    """Threads, started when there is work for one more, up to a number; then work waits.

    waitress has its threads take turns. Here the one that was last at work is the next: what it has touched is still in
    the caches, and threads that only a crowd needs stay unborn.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._num_threads = 0
        self._idle: list[queue.SimpleQueue[Task | None]] = []
        self._waiting: collections.deque[Task] = collections.deque()
        self._is_closed = False
        self._lock = threading.Lock()

    def add_task(self, task: Task) -> None:
        """Has a thread serve a task; called by waitress."""
        with self._lock:
            if self._idle:
                self._idle.pop().put(task)
                return
            if self._num_threads >= self._max_threads:
                self._waiting.append(task)
                return
            self._num_threads += 1
        try:
            threading.Thread(target=self._run, args=(task,), name="worker", daemon=True).start()
        except RuntimeError:  # the system has no more threads or memory
            self._do_without(task)

    def _do_without(self, task: Task) -> None:
        """Has a task wait for a thread that is there; without any, its caller has to come again."""
        with self._lock:
            self._num_threads -= 1
            is_alone = not self._num_threads
            if not is_alone and self._idle:
                self._idle.pop().put(task)
            elif not is_alone:
                self._waiting.append(task)
        if is_alone:
            _log.error("A connection is closed: the system starts no thread")
            task.cancel()

    def close(self) -> None:
        """Ends the threads that are idle, and others after their task; what waits is cancelled."""
        with self._lock:
            self._is_closed = True
            idle, waiting = self._idle[:], list(self._waiting)
            self._idle.clear()
            self._waiting.clear()
        for inbox in idle:
            inbox.put(None)
        for task in waiting:
            task.cancel()

    def _run(self, task: Task | None) -> None:
        inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        while task is not None:
            try:
                task.service()
            except Exception:  # noqa: BLE001 - of waitress: the application's own are answers
                _log.exception("A connection has failed")
            with self._lock:
                if self._waiting:
                    task = self._waiting.popleft()
                    continue
                if self._is_closed:
                    return
                self._idle.append(inbox)
            task = inbox.get()
