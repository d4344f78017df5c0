"""Bounded waits for a remote file system, and bounded tries of what passes."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tfos_job.errors import JobError
from tfos_job.host.limits import within as within_limit
from tfos_job.storage.backend import T
from tfos_job.storage.error_mapping import is_passing, reason

HDFS_TIMEOUT_S = 120.0  # a NameNode restarts within a minute; hdfs-native alone would wait for ever for a hung one
CLEANUP_TIMEOUT_S = 1.0
_RETRY_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # the last one again and again

_log = logging.getLogger(__name__)
_here = threading.local()  # `limit`: the `_Limit` that this thread is within


@dataclass
class _Limit:
    """What the tries of one `persist`, and all calls within them, share.

    Attributes:
      deadline_s: of calls; it moves on while bytes do.
      retry_until_s: after this nothing is tried again; it moves on when a try gets further than those before.
      furthest_bytes: how far that is.
      is_fixed: nothing moves.
      failure: what ended the try before.
    """

    deadline_s: float
    retry_until_s: float
    furthest_bytes: int = 0
    is_fixed: bool = False
    failure: BaseException | None = None


def persist(attempt: Callable[[], T]) -> T:
    """Makes an attempt, and others while it fails with what passes. Those within it share the outermost one's time."""
    if can_be_repeated():
        return _persist(attempt, _here.limit)
    until_s = time.monotonic() + HDFS_TIMEOUT_S
    with _limited(_Limit(until_s, until_s)) as limit:
        return _persist(attempt, limit)


@contextlib.contextmanager
def within(limit_s: float) -> Iterator[None]:
    """All that this thread asks of HDFS in the `with` shares `limit_s`, instead of `HDFS_TIMEOUT_S` a call."""
    assert not can_be_repeated(), "patience within patience"
    until_s = time.monotonic() + limit_s
    with _limited(_Limit(until_s, until_s, is_fixed=True)):
        yield


@contextlib.contextmanager
def _limited(limit: _Limit) -> Iterator[_Limit]:
    _here.limit = limit
    try:
        yield limit
    finally:
        del _here.limit


def can_be_repeated() -> bool:
    """Whether this thread is within an attempt of `persist`."""
    return hasattr(_here, "limit")


def last_failure() -> BaseException | None:
    """What ended the try before this one; None in the first one."""
    return _here.limit.failure if can_be_repeated() else None


def progressed(position_bytes: int) -> None:
    """Bytes have moved up to here: a file may take longer than the patience, which is for what does not move."""
    if not can_be_repeated() or _here.limit.is_fixed:
        return
    limit, now_s = _here.limit, time.monotonic()
    limit.deadline_s = max(limit.deadline_s, now_s + call_timeout_s())
    if position_bytes > limit.furthest_bytes:
        limit.furthest_bytes = position_bytes
        limit.deadline_s = limit.retry_until_s = now_s + HDFS_TIMEOUT_S


def _persist(attempt: Callable[[], T], limit: _Limit) -> T:
    tries = 0
    while True:
        began_s = time.monotonic()
        try:
            return attempt()
        except (OSError, RuntimeError, JobError) as error:
            pause_s = _RETRY_PAUSES_S[min(tries, len(_RETRY_PAUSES_S) - 1)]
            if time.monotonic() - began_s > pause_s:
                pause_s = _RETRY_PAUSES_S[0]  # it has waited already
            if not is_passing(error) or time.monotonic() + pause_s > limit.retry_until_s:
                raise
            limit.failure = error
            text = f"{error.place}: {error.fact}" if isinstance(error, JobError) else reason(error)
            _log.warning("HDFS: %s; trying again in %g s", text, pause_s)
        tries += 1
        time.sleep(pause_s)


def call_timeout_s() -> float:
    """How long a call on an open file may take.

    Where the whole can be tried again, a call that hangs (a close does, with a DataNode that died unnoticed) must leave
    time for it.
    """
    return HDFS_TIMEOUT_S / (4 if can_be_repeated() else 1)


def bounded(timeout_s: float) -> float:
    """As much of a time as is left within the patience of `persist`."""
    deadline_s = _here.limit.deadline_s if can_be_repeated() else math.inf
    return max(0.0, min(deadline_s - time.monotonic(), timeout_s))


def answer(call: Callable[[], T], timeout_s: float = math.inf) -> T:
    """The result of a call that may never return, waited for in this thread, where Ctrl-C is heard.

    A call that has not returned in time goes on in a thread that ends with the process.
    """
    return within_limit(bounded(min(HDFS_TIMEOUT_S, timeout_s)), call, "hdfs")
