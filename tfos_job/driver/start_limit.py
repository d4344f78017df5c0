"""Time limit for the start of Spark, and the end of its JVM."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from pyspark import SparkContext

from tfos_job.errors import JobError, ResourceError
from tfos_job.host.child import end


@contextlib.contextmanager
def time_limit(timeout_s: int | None) -> Iterator[None]:
    """Limits the time of a `with` block: on YARN an application may wait for its queue for ever.

    Uses a signal, since nothing else interrupts the wait for an answer of the JVM. Runs on the main thread.

    Raises:
      ResourceError: the time limit was exceeded.
    """
    rang = False

    def ring(signum: int, frame: Any) -> None:
        nonlocal rang
        rang = True
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(timeout_s or 0)
    try:
        yield
    except (JobError, TimeoutError) as e:  # py4j and the session convert the TimeoutError into a JobError
        if not rang:
            raise
        end_jvm()
        raise ResourceError(
            f"Spark has not started within {timeout_s} s",
            next_step="Look at what its queue has free and at its diagnostics, or give more --start_timeout",
        ) from e
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def end_jvm() -> None:
    """Ends Spark's JVM if it is a child of this process."""
    process = getattr(SparkContext._gateway, "proc", None)
    if process is not None:
        end(process, "Spark's JVM")
