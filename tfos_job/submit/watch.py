"""Supervision of spark-submit and its application, which is killed if the submitter is.

spark-submit communicates with the ResourceManager, including fail-over and Kerberos. This module reads its log, as
written by `spark/conf/log4j2-submit.properties`. Hadoop's own client kills an application (`yarn_client.py`).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError, ResourceError
from tfos_job.host.signals import Stopped
from tfos_job.submit import yarn_client
from tfos_job.submit.application_state import Watched, without_frames
from tfos_job.submit.deferred_signals import DeferredSignals
from tfos_job.submit.launcher import SparkSubmit

_POLL_S = 0.5
_ASK_EVERY_S = 5.0
_ATTACHED_ASK_EVERY_S = 15.0  # each time a JVM starts, and it may be for hours
# A ResourceManager that restarts or fails over answers within minutes.
AWAY_S = 900.0
_UNKNOWN = re.compile(r"doesn't exist in RM|ApplicationNotFoundException")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long YARN may take.

    Attributes:
      submit_s: until it has accepted the application.
      accept_s: from then until its driver has a container.
      lack: what an application waits for and its queue lacks; empty if that is not known.
    """

    submit_s: float
    accept_s: float
    lack: Callable[[str], str] = lambda application: ""


def run(
    line: Sequence[str],
    environment: Mapping[str, str],
    *,
    on_change: Callable[[Watched], None],
    patience: Patience,
    detach: bool,
    when_stopped: str,
    on_start: Callable[[int], None] = lambda pid: None,
) -> Watched:
    """Runs spark-submit and follows its application to the end.

    Args:
      line: from `spark_submit.spark_submit_line`.
      environment: of spark-submit.
      on_change: called with each new state of the application.
      patience: its time limits.
      detach: True to return after the submission.
      when_stopped: for the error of a signal: the state that the command leaves, and the effect of its next run.
      on_start: called with spark-submit's process id before spark-submit does anything; if it raises, nothing is done.

    Raises:
      InterruptedJobError: SIGINT or SIGTERM arrived; the application has been killed.
      ResourceError: a time limit was exceeded, and the application has been killed; or YARN has not answered for
        `AWAY_S`, and the application's end is unknown.
    """
    watched = Watched()
    with _killing(watched, environment, detach=detach, when_stopped=when_stopped) as signals_here:
        _submit(line, environment, watched, signals_here, on_change, patience, on_start)
        if watched.application and not watched.has_ended and not detach:
            _say_that_spark_submit_lost(watched)
            _ask_to_the_end(watched, environment, signals_here, on_change, patience, _ASK_EVERY_S)
    return watched


def attach(
    application: str,
    environment: Mapping[str, str],
    *,
    on_change: Callable[[Watched], None],
    patience: Patience,
    when_stopped: str,
) -> Watched:
    """Follows an application that another process has submitted; otherwise as `run`."""
    watched = Watched(application=application)
    with _killing(watched, environment, detach=False, when_stopped=when_stopped) as signals_here:
        _ask_to_the_end(watched, environment, signals_here, on_change, patience, _ATTACHED_ASK_EVERY_S)
    return watched


@contextlib.contextmanager
def _killing(
    watched: Watched, environment: Mapping[str, str], *, detach: bool, when_stopped: str
) -> Iterator[DeferredSignals]:
    """Kills the application if the block ends with a signal or a time limit, and says what is left."""
    with DeferredSignals() as signals_here:
        try:
            yield signals_here
        except BaseException as e:
            if isinstance(e, JobError) and not isinstance(e, _TimeIsOver):
                raise  # the application's state is unknown
            left = "Nothing was submitted"
            if application := watched.application or watched.assigned:
                left = f"{application} goes on"
                if not detach:
                    left = (
                        f"{application} was killed"
                        if yarn_client.kill(application, environment)
                        else f"{application} may go on"
                    )
            if isinstance(e, Stopped):
                raise InterruptedJobError(f"stopped by {e}. {left}", next_step=when_stopped, signum=e.signum) from e
            raise


def _submit(
    line: Sequence[str],
    environment: Mapping[str, str],
    watched: Watched,
    signals_here: DeferredSignals,
    on_change: Callable[[Watched], None],
    patience: Patience,
    on_start: Callable[[int], None],
) -> None:
    process = SparkSubmit(line, environment)
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=process.read, args=(lines,), name="spark-submit", daemon=True)
    reader.start()
    try:
        on_start(process.pid)
        signals_here.check()
        process.let_go()
        _follow(lines, watched, signals_here, on_change, patience)
    finally:
        process.end()
        reader.join(_POLL_S)
        while not lines.empty():  # spark-submit may have submitted the application meanwhile
            watched.hear(lines.get() or "", time.time())


def _follow(
    lines: queue.Queue[str | None],
    watched: Watched,
    signals_here: DeferredSignals,
    on_change: Callable[[Watched], None],
    patience: Patience,
) -> None:
    began = time.monotonic()
    accepted: float | None = None
    seen = ""
    while True:
        signals_here.check()
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            line = ""
        if line:
            watched.hear(line, time.time())
        state = watched.state or ("SUBMITTED" if watched.application else "")
        if state != seen and (line is None or lines.empty()):  # the lines of one state belong together
            seen = state
            on_change(watched)
        if line is None:
            return
        now = time.monotonic()
        if not watched.application:
            if now - began > patience.submit_s:
                fact = f"YARN has not taken the application for {patience.submit_s:.0f} s"
                raise _time_is_over(fact, watched, "raise --submit_timeout")
        elif "running" not in watched.times:
            accepted = accepted or now
            if now - accepted > patience.accept_s:
                raise _no_container(watched, patience)


def _no_container(watched: Watched, patience: Patience) -> _TimeIsOver:
    fact = f"YARN has not given the driver a container for {patience.accept_s:.0f} s"
    queue_name = watched.details.get("queue", "").rpartition(".")[2]
    lack = patience.lack(watched.application) or (f"it waits in queue {queue_name}" if queue_name else "")
    fact += f"; {lack}" if lack else ""
    return _time_is_over(fact, watched, "raise --accept_timeout (of train: --deadlines application=…)")


def _time_is_over(fact: str, watched: Watched, longer: str) -> _TimeIsOver:
    said = watched.details.get("diagnostics") or next((line for line in reversed(watched.tail) if line.strip()), "")
    return _TimeIsOver(
        fact + (f"; it says: {said.strip()}" if said not in ("", "N/A") else ""),
        place=watched.application or "ResourceManager",
        next_step=f"See whether it is up and the queue has room (`yarn top`), or {longer}",
    )


def _say_that_spark_submit_lost(watched: Watched) -> None:
    said = [line for line in without_frames(watched.tail) if line.strip()]
    last = next(iter([*(line for line in said if line.startswith("ERROR ")), *said[-1:]]), "it has ended")
    log.warning("spark-submit has lost sight of %s (%s): YARN itself is asked now", watched.application, last.strip())


def _ask_to_the_end(
    watched: Watched,
    environment: Mapping[str, str],
    signals_here: DeferredSignals,
    on_change: Callable[[Watched], None],
    patience: Patience,
    every_s: float,
) -> None:
    """Polls YARN for an application whose spark-submit is not there, or has given up a ResourceManager that was away.

    Raises:
      NodeDiedError: YARN does not know the application any more.
      ResourceError: YARN has not answered for `AWAY_S`.
    """
    began_s, seen = time.monotonic(), watched.state
    while not watched.has_ended:
        if not look(watched, environment, signals_here.check):
            raise NodeDiedError(
                "YARN does not know the application any more: its ResourceManager was started again without recovery",
                place=watched.application,
                next_step="Submit it again (yarn.resourcemanager.recovery.enabled keeps applications)",
            )
        if watched.state != seen:
            seen = watched.state
            on_change(watched)
        is_waiting = not watched.has_ended and "running" not in watched.times
        if is_waiting and time.monotonic() - began_s > patience.accept_s:
            raise _no_container(watched, patience)
        until_s = time.monotonic() + every_s
        while not watched.has_ended and time.monotonic() < until_s:
            signals_here.check()
            time.sleep(_POLL_S)


def look(watched: Watched, environment: Mapping[str, str], check_signals: Callable[[], None]) -> bool:
    """Asks YARN for an application's state, until it answers; false if YARN does not know the application.

    Raises:
      ResourceError: YARN has not answered for `AWAY_S`.
    """
    began_s = time.monotonic()
    while True:
        answer = yarn_client.status(watched.application, environment, check_signals, began_s + AWAY_S)
        if watched.hear_status(answer, time.time()):
            return True
        if _UNKNOWN.search(answer):
            return False
        if time.monotonic() - began_s > AWAY_S:
            raise ResourceError(
                f"YARN has not answered for {AWAY_S:.0f} s; the application may still run",
                place=watched.application,
                next_step=f"See `yarn application -status {watched.application}` before you submit it again",
            )
        until_s = time.monotonic() + _ASK_EVERY_S
        while time.monotonic() < until_s:
            check_signals()
            time.sleep(_POLL_S)


class _TimeIsOver(ResourceError):
    """YARN exceeded a time limit; the application is given up."""
