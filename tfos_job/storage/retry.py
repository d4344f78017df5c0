"""Time limits for calls to a remote file system, and retries after errors that pass."""

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

HDFS_TIMEOUT_S = 120.0  # a NameNode restarts within a minute; hdfs-native waits for ever for a hung one
CLEANUP_TIMEOUT_S = 1.0
_RETRY_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # the last one repeats

_log = logging.getLogger(__name__)
_here = threading.local()  # `limit`: the `_Limit` of this thread


@dataclass
class _Limit:
    """The time limit that the tries of one `persist`, and all calls within them, share.

    Attributes:
      deadline_s: of calls; extended while bytes arrive.
      retry_until_s: of retries; extended when a try reaches a later byte than those before it.
      furthest_bytes: the last byte reached.
      is_fixed: True if progress extends nothing.
      failure: the error of the previous try.
    """

    deadline_s: float
    retry_until_s: float
    furthest_bytes: int = 0
    is_fixed: bool = False
    failure: BaseException | None = None


def persist(attempt: Callable[[], T]) -> T:
    """Calls `attempt`, and again while it fails with an error that passes. Nested calls share the outermost limit."""
    if can_be_repeated():
        return _persist(attempt, _here.limit)
    until_s = time.monotonic() + HDFS_TIMEOUT_S
    with _limited(_Limit(until_s, until_s)) as limit:
        return _persist(attempt, limit)


@contextlib.contextmanager
def within(limit_s: float) -> Iterator[None]:
    """Limits all HDFS calls of this thread in the `with` block to `limit_s` together, not `HDFS_TIMEOUT_S` each."""
    assert not can_be_repeated(), "a time limit within a time limit"
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
    """True if this thread is within an attempt of `persist`."""
    return hasattr(_here, "limit")


def last_failure() -> BaseException | None:
    """Returns the error of the previous try; None in the first one."""
    return _here.limit.failure if can_be_repeated() else None


def progressed(position_bytes: int) -> None:
    """Extends the limit when a file has progressed to a byte: only a stream without progress runs into the limit."""
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
                pause_s = _RETRY_PAUSES_S[0]  # the attempt itself has waited
            if not is_passing(error) or time.monotonic() + pause_s > limit.retry_until_s:
                raise
            limit.failure = error
            text = error.cause if isinstance(error, JobError) else reason(error)
            _log.warning("HDFS: %s; trying again in %g s", text, pause_s)
        tries += 1
        time.sleep(pause_s)


def call_timeout_s() -> float:
    """Returns the time limit of one call on an open file.

    If the whole attempt can be retried, a call that hangs must leave time for that: a close hangs after a DataNode died
    unnoticed.
    """
    return HDFS_TIMEOUT_S / (4 if can_be_repeated() else 1)


def bounded(timeout_s: float) -> float:
    """Returns a time, cut to the time left within `persist`."""
    deadline_s = _here.limit.deadline_s if can_be_repeated() else math.inf
    return max(0.0, min(deadline_s - time.monotonic(), timeout_s))


def answer(call: Callable[[], T], timeout_s: float = math.inf) -> T:
    """Returns the result of a call that may never return; this thread waits and reacts to Ctrl-C.

    A call that exceeds the limit continues in a thread, which ends with the process.
    """
    return within_limit(bounded(min(HDFS_TIMEOUT_S, timeout_s)), call, "hdfs")
