"""SIGINT and SIGTERM end a command at once, whatever it is waiting for, and nothing on the way takes that for an error.

A library that catches `Exception`, as py4j does around each call of Spark's JVM, would make an error of its own of the
signal. So `Stopped` is a KeyboardInterrupt, for which py4j also closes the connection that still waits for an answer. A
signal to the whole process group ends the JVM as well, and which of both this process notices first is chance: so
whoever judges an error asks here first whether a signal has come.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError, ResourceError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `timeout` sends its signal to the process and then to the group that it is in: both are one.
_SAME_S = 1.0
# Whoever signals all processes of a job does it one by one.
_LATE_S = 0.5
_POLL_S = 0.01


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM has come; not an `Exception`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Received:
    """The last signal that came, and when, in seconds of `time.monotonic`."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._at_s = 0.0

    def is_news(self, signum: int) -> bool:
        """Takes note of a signal; False where it is the last one once more."""
        now_s = time.monotonic()
        if self.signum == signum and now_s - self._at_s < _SAME_S:
            return False
        self.signum, self._at_s = signum, now_s
        return True


_received = Received()  # while they are raised


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Has the main thread raise `Stopped` at a signal, for the length of a `with`.

    SIGINT stays ignored where whoever started this process had it so, as a shell does for what runs in the background.
    """
    _received.signum = None
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    for signum, handler in before.items():
        # Under spark-submit that is how SIGINT is kept from its JVM (docs/training.md).
        if handler is not signal.SIG_IGN or "PYSPARK_GATEWAY_PORT" in os.environ:
            signal.signal(signum, _handle)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _handle(signum: int, _: Any) -> None:
    if _received.is_news(signum):
        raise Stopped(signum)


def interruption(error: BaseException, next_step: str) -> InterruptedJobError | None:
    """What ended a command as the signal that is behind it; None where none is.

    Args:
      error: what the command raised, within `raised`.
      next_step: what is left, and what the next run does.
    """
    if isinstance(error, InterruptedJobError):
        return error  # in words of its own
    signum = error.signum if isinstance(error, Stopped) else _signal_behind(error)
    if signum is None:
        return None
    return InterruptedJobError(f"stopped by {signal.Signals(signum).name}", next_step=next_step, signum=signum)


def _signal_behind(error: BaseException) -> int | None:
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    of_a_lost_process = not isinstance(error, JobError) or isinstance(error, NodeDiedError | ResourceError)
    deadline_s = time.monotonic() + (_LATE_S if of_a_lost_process else 0.0)
    try:
        while _received.signum is None and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
    except Stopped as late:
        return late.signum
    return _received.signum
