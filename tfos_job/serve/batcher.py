"""Pictures of many requests, in batches of one network. Threads and latches alone: nothing of HTTP or TensorFlow.

A request reserves its places in the queue before its pictures are decoded, so that one for which there is no room
costs nothing. A place is free again when its picture goes into a batch. A batch begins when it is full, when no other
picture is on its way, or when its first request has waited for `max_latency_s` since it arrived; while the network is
busy, the next batch grows.
"""

from __future__ import annotations

import collections
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tfos_job.serve.hub import Latch
from tfos_job.serve.refusals import Failed, Full, Unavailable, too_late

Network = Callable[[Sequence[Any]], Sequence[Any]]
"""From what is to be computed of some pictures to a result for each."""

_DEAD = "the thread that computes has ended"
_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """What is told of the batches, for metrics; called on the batcher's thread."""

    def began(self, waits_s: Sequence[float]) -> None: ...

    def ended(self, took_s: float) -> None: ...


class Ticket:
    """The pictures of one request, and what the network says about them, once it does.

    Args:
      arrived_s: when the request arrived, of `time.monotonic`.
      number: of its pictures.

    Attributes:
      is_abandoned: nobody waits for the answer any more.
    """

    def __init__(self, arrived_s: float, number: int) -> None:
        self.arrived_s = arrived_s
        self.is_abandoned = False
        self._results: list[Any] = [None] * number
        self._num_missing = number
        self._error: Exception | None = None
        self._done = Latch()

    @property
    def is_done(self) -> bool:
        return self._done.is_set

    def wait(self, until_s: float) -> list[Any]:
        """The results, in the order of the pictures; `until_s` is of `time.monotonic`.

        Raises:
          Unavailable: they were not computed in time; they will not be computed any more.
          Failed: the network has failed.
        """
        if not self._done.wait(until_s):
            self.is_abandoned = True
            raise too_late()
        if self._error is not None:
            raise self._error
        return self._results

    def give(self, position: int, result: Any) -> None:
        self._results[position] = result
        self._num_missing -= 1
        if not self._num_missing and not self.is_done:
            self._done.set()

    def fail(self, error: Exception) -> None:
        """Gives up the pictures that have no result; nothing happens if all have."""
        if not self.is_done:
            self._error = error
            self._done.set()


@dataclass(frozen=True)
class _Picture:
    ticket: Ticket
    position: int
    content: Any


class Places:
    """The places that one request holds in the queue, for pictures that are on their way."""

    def __init__(self, batcher: Batcher, number: int) -> None:
        self._batcher = batcher
        self.number = number

    def put(self, contents: Sequence[Any], arrived_s: float) -> Ticket:
        """Queues what is to be computed of pictures, at most as many as there are places.

        Raises:
          Failed: the batcher's thread has died.
          Unavailable: the batcher is closed.
        """
        assert 0 < len(contents) <= self.number
        ticket = Ticket(arrived_s, len(contents))
        self._batcher._put([_Picture(ticket, at, content) for at, content in enumerate(contents)])
        self.number -= len(contents)
        return ticket


class Batcher:
    """The queue before a network, and the thread that empties it, from the beginning to `close`.

    Args:
      network: what is computed; on one thread.
      max_batch_size: pictures that it is given at once.
      max_latency_s: for which a batch waits at most for pictures that are on their way, from the arrival of its first
        request.
      max_queue: pictures that wait, or are decoded to wait.
      watcher: is told of the batches.
    """

    def __init__(
        self, network: Network, *, max_batch_size: int, max_latency_s: float, max_queue: int, watcher: Watcher | None
    ) -> None:
        self._network = network
        self._max_batch_size = max_batch_size
        self._max_latency_s = max_latency_s
        self._max_queue = max_queue
        self._watcher = watcher
        self._queue: collections.deque[_Picture] = collections.deque()
        self._num_reserved = 0  # places that have no picture yet
        self._first_s = math.inf  # when the first request of the queue arrived
        self._computing: list[_Picture] = []
        self._last_batch_s = 0.0
        self._is_closed = self._has_died = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """False once its thread has ended, be it by `close`."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Pictures in the queue, and places for those on their way."""
        return len(self._queue) + self._num_reserved

    @contextmanager
    def reserved(self, number: int) -> Iterator[Places]:
        """Places in the queue during a `with` block; those that have no picture at its end are given back.

        Raises:
          Full: there are not so many.
        """
        with self._changed:
            if self.num_waiting + number > self._max_queue:
                batches = 1 + self.num_waiting / self._max_batch_size
                fact = f"{self.num_waiting} pictures wait already, and there is room for {self._max_queue}"
                raise Full(fact, retry_after_s=batches * self._last_batch_s)
            self._num_reserved += number
        places = Places(self, number)
        try:
            yield places
        finally:
            if places.number:
                with self._changed:
                    self._num_reserved -= places.number
                    if not self._num_reserved:
                        self._changed.notify()

    def close(self, timeout_s: float) -> bool:
        """Ends the thread when the queue is empty; false if it has not ended after `timeout_s`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _put(self, pictures: Sequence[_Picture]) -> None:
        with self._changed:
            if self._has_died:
                raise Failed(_DEAD)
            if self._is_closed:
                raise Unavailable("the network is being replaced", retry_after_s=1)
            before, arrived_s = len(self._queue), pictures[0].ticket.arrived_s
            self._queue.extend(pictures)
            self._num_reserved -= len(pictures)
            # The thread knows when the next batch is due: only who changes that wakes it. Who arrived first need not be
            # the first in the queue: another picture may have been decoded sooner.
            is_first, is_full = arrived_s < self._first_s, before < self._max_batch_size <= len(self._queue)
            self._first_s = min(arrived_s, self._first_s)
            if is_first or is_full or not self._num_reserved:
                self._changed.notify()

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._compute(batch)
        finally:
            with self._changed:
                left = [*self._computing, *self._queue]
                self._queue.clear()
                self._has_died = not self._is_closed or bool(left)
            for picture in left:
                picture.ticket.fail(Failed(_DEAD))

    def _next(self) -> list[_Picture]:
        """Waits for the next batch; empty once the batcher is closed."""
        with self._changed:
            while True:
                due_in_s = self._due_in_s(time.monotonic())
                if due_in_s is None and self._is_closed:
                    return []
                if due_in_s is None or due_in_s > 0:
                    self._changed.wait(due_in_s)
                elif batch := self._taken():
                    return batch

    def _due_in_s(self, now_s: float) -> float | None:
        """Seconds until the next batch begins; None while no picture waits."""
        if not self._queue:
            return None
        if self._is_closed or not self._num_reserved or len(self._queue) >= self._max_batch_size:
            return 0.0
        return self._first_s + self._max_latency_s - now_s

    def _taken(self) -> list[_Picture]:
        """The next batch, out of the queue; not those whose callers are gone: nobody would see their answers."""
        self._computing = []
        while self._queue and len(self._computing) < self._max_batch_size:
            picture = self._queue.popleft()
            if not picture.ticket.is_abandoned:
                self._computing.append(picture)
        self._first_s = min((picture.ticket.arrived_s for picture in self._queue), default=math.inf)
        return self._computing

    def _compute(self, batch: list[_Picture]) -> None:
        began_s = time.monotonic()
        if self._watcher is not None:
            self._watcher.began([began_s - picture.ticket.arrived_s for picture in batch])
        try:
            results = self._network([picture.content for picture in batch])
            for picture, result in zip(batch, results, strict=True):
                picture.ticket.give(picture.position, result)
        except Exception as error:  # noqa: BLE001 - of any network; it is that of these pictures alone
            _log.exception("The network has failed on %d pictures", len(batch))
            for picture in batch:
                picture.ticket.fail(Failed(f"the network has failed: {type(error).__name__}"))
        self._last_batch_s = time.monotonic() - began_s
        if self._watcher is not None:
            self._watcher.ended(self._last_batch_s)
        self._computing = []
