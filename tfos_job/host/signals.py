"""Handling of SIGINT and SIGTERM: they end a command at once, and libraries do not turn them into errors.

A library that catches `Exception`, as py4j does around each call of Spark's JVM, would turn a signal into an error of
its own. So `Stopped` is a KeyboardInterrupt, on which py4j also closes the connection that waits for an answer. A
signal to the whole process group also ends the JVM, and this process may notice that first. So `interruption` checks
for a signal before an error is reported.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError, ResourceError
from tfos_job.host.container import under_spark_submit

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `timeout` sends its signal to the process and then to its group: both count as one.
_SAME_S = 1.0
# A signal to all processes of a job reaches them one by one.
_LATE_S = 0.5
_POLL_S = 0.01


class Stopped(KeyboardInterrupt):
    """The arrival of SIGINT or SIGTERM; not an `Exception`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Received:
    """The last signal received, and its time in seconds of `time.monotonic`."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._at_s = 0.0

    def is_news(self, signum: int) -> bool:
        """Records a signal; False if it repeats the last one."""
        now_s = time.monotonic()
        if self.signum == signum and now_s - self._at_s < _SAME_S:
            return False
        self.signum, self._at_s = signum, now_s
        return True


def install(handler: Callable[[int, Any], None], signums: Iterable[int] = SIGNALS) -> Mapping[int, Any]:
    """Has signals handled from now on; returns what handled them before, for `restore`.

    Python handles signals on its main thread alone, and lets no other thread change that. So nothing is changed, and
    nothing returned, on another thread: there signals are those of the program whose thread it is.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {signum: signal.signal(signum, handler) for signum in signums}


def restore(before: Mapping[int, Any]) -> None:
    """Undoes `install`."""
    for signum, handler in before.items():
        # None: a library's own handler, of which Python knows nothing, was there; it cannot be given back.
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)


_received = Received()  # while they are raised


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Lets signals raise `Stopped` in the main thread during a `with` block.

    SIGINT stays ignored if it was at the start of this process: a shell does that for background jobs.
    """
    _received.signum = None
    # spark-submit's JVM is protected from SIGINT in this way (docs/training.md).
    heard = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN or under_spark_submit()]
    before = install(_handle, heard)
    try:
        yield
    finally:
        restore(before)


def _handle(signum: int, _: Any) -> None:
    if _received.is_news(signum):
        raise Stopped(signum)


def interruption(error: BaseException, next_step: str) -> InterruptedJobError | None:
    """Returns the error for the signal that ended a command; None if no signal did.

    Args:
      error: exception of the command, within `raised`.
      next_step: the state that the command leaves, and the effect of the next run.
    """
    if isinstance(error, InterruptedJobError):
        return error  # it has its own message
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
