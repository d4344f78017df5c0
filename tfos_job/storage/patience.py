"""Bounded waits for a remote file system, and bounded tries of what passes."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator

from tfos_job.errors import JobError
from tfos_job.storage.backend import T
from tfos_job.storage.failures import is_passing, reason

HDFS_TIMEOUT_S = 120.0  # a NameNode restarts within a minute; hdfs-native alone would wait for ever for a hung one
CLEANUP_TIMEOUT_S = 1.0
_RETRY_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # the last one again and again

_log = logging.getLogger(__name__)
_here = threading.local()  # `deadline_s` of the outermost `persist` of this thread


def persist(attempt: Callable[[], T]) -> T:
    """Makes an attempt, and others while it fails with what passes. Those within it share the outermost one's time."""
    outermost = not can_be_repeated()
    if outermost:
        _here.deadline_s = time.monotonic() + HDFS_TIMEOUT_S
    try:
        return _persist(attempt, _here.deadline_s)
    finally:
        if outermost:
            del _here.deadline_s


@contextlib.contextmanager
def within(limit_s: float) -> Iterator[None]:
    """All that this thread asks of HDFS in the `with` shares `limit_s`, instead of `HDFS_TIMEOUT_S` a call."""
    assert not can_be_repeated(), "patience within patience"
    _here.deadline_s = time.monotonic() + limit_s
    try:
        yield
    finally:
        del _here.deadline_s


def can_be_repeated() -> bool:
    """Whether this thread is within an attempt of `persist`."""
    return hasattr(_here, "deadline_s")


def _persist(attempt: Callable[[], T], deadline_s: float) -> T:
    tries = 0
    while True:
        try:
            return attempt()
        except (OSError, RuntimeError, JobError) as error:
            pause_s = _RETRY_PAUSES_S[min(tries, len(_RETRY_PAUSES_S) - 1)]
            if not is_passing(error) or time.monotonic() + pause_s > deadline_s:
                raise
            text = str(error) if isinstance(error, JobError) else reason(error)
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
    left_s = getattr(_here, "deadline_s", math.inf) - time.monotonic()
    return max(0.0, min(left_s, timeout_s))


def answer(call: Callable[[], T]) -> T:
    """The result of a call that may never return, waited for in this thread, where Ctrl-C is heard.

    A call that has not returned in time goes on in a thread that ends with the process.
    """
    timeout_s = bounded(HDFS_TIMEOUT_S)
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=work, name="hdfs", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer for {timeout_s:.0f} s")
    return results[0]
