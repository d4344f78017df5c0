"""Time limit for the start of Spark, and the end of its JVM."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tfos_job.errors import JobError, ResourceError
from tfos_job.host import signals
from tfos_job.host.child import end


@contextlib.contextmanager
def time_limit(timeout_s: int | None) -> Iterator[None]:
    """Limits the time of a `with` block: on YARN an application may wait for its queue for ever.

    Nothing but a signal interrupts the wait for an answer of the JVM. On another thread than the main one, which no
    signal reaches, the JVM is ended instead, which ends the wait, unless spark-submit has started it.

    Raises:
      ResourceError: the time limit was exceeded; with the notes of the exception that ended the block.
    """
    rang = False

    def ring(*_: Any) -> None:
        nonlocal rang
        rang = True
        if threading.current_thread() is threading.main_thread():
            raise TimeoutError
        end_jvm()

    with _clock(timeout_s, ring):
        try:
            yield
        except (JobError, TimeoutError) as e:  # py4j and the session convert the TimeoutError into a JobError
            if not rang:
                raise
            end_jvm()
            raise ResourceError(
                "; ".join([f"Spark has not started within {timeout_s:.0f} s", *getattr(e, "__notes__", [])]),
                next_step="Look at what its queue has free and at its diagnostics, or give more --start_timeout",
            ) from e


@contextlib.contextmanager
def _clock(timeout_s: int | None, ring: Callable[..., None]) -> Iterator[None]:
    """Calls `ring` after so many seconds of a `with` block: on its own thread if that is the main one."""
    if threading.current_thread() is not threading.main_thread():
        timer = threading.Timer(timeout_s or 0, ring)
        timer.daemon = True
        if timeout_s:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
        return
    before = signals.install(ring, [signal.SIGALRM])
    signal.alarm(timeout_s or 0)
    try:
        yield
    finally:
        signal.alarm(0)
        signals.restore(before)


def end_jvm() -> None:
    """Ends Spark's JVM if it is a child of this process, so that the next session starts another one."""
    process = getattr(SparkContext._gateway, "proc", None)
    if process is not None:
        end(process, "Spark's JVM")
        SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
        SparkSession._instantiatedSession = None
