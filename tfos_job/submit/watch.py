"""Supervision of spark-submit and its application, which is killed if the submitter is.

spark-submit communicates with the ResourceManager, including fail-over and Kerberos. This module reads its log, as
written by `spark/conf/log4j2-submit.properties`. Hadoop's own client kills an application (`yarn_client.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError, ResourceError
from tfos_job.host import jvm_output
from tfos_job.host.child import end
from tfos_job.host.signals import Stopped
from tfos_job.submit import yarn_client
from tfos_job.submit.application_state import TAIL_LINES, Watched, without_frames
from tfos_job.submit.deferred_signals import DeferredSignals

_POLL_S = 0.5
_ASK_EVERY_S = 5.0
# A ResourceManager that restarts or fails over answers within minutes.
_AWAY_S = 900.0
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
) -> Watched:
    """Runs spark-submit and follows its application to the end.

    Args:
      line: from `spark_submit.spark_submit_line`.
      environment: of spark-submit.
      on_change: called with each new state of the application.
      patience: its time limits.
      detach: True to return after the submission.
      when_stopped: for the error of a signal: the state that the command leaves, and the effect of its next run.

    Raises:
      InterruptedJobError: SIGINT or SIGTERM arrived; the application has been killed.
      ResourceError: a time limit was exceeded, and the application has been killed; or YARN has not answered for
        `_AWAY_S`, and the application's end is unknown.
    """
    watched = Watched()
    with DeferredSignals() as signals_here:
        try:
            _submit(line, environment, watched, signals_here, on_change, patience)
            if watched.application and not watched.has_ended and not detach:
                _ask_to_the_end(watched, environment, signals_here, on_change)
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
    return watched


def _submit(
    line: Sequence[str],
    environment: Mapping[str, str],
    watched: Watched,
    signals_here: DeferredSignals,
    on_change: Callable[[Watched], None],
    patience: Patience,
) -> None:
    # In a session of its own, so that this process handles a terminal's Ctrl-C.
    process = _start(line, environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), name="spark-submit", daemon=True)
    reader.start()
    try:
        _follow(lines, watched, signals_here, on_change, patience)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        end(process, "spark-submit")
        reader.join(_POLL_S)
        while not lines.empty():  # spark-submit may have submitted the application meanwhile
            watched.hear(lines.get() or "", time.time())


def _start(line: Sequence[str], environment: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """Starts spark-submit with the arguments of `line`; `options` are those of Popen."""
    return subprocess.Popen(
        [str(yarn_client.spark_home() / "bin" / "spark-submit"), *line[1:]],
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env={**environment, "SPARK_HOME": str(yarn_client.spark_home())},
        **options,
    )


def pass_through(line: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Runs spark-submit with its output on stderr, for other cluster managers than YARN.

    Returns:
      Its exit code, and its last lines of output.
    """
    with _start(line, environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said: list[str] = []
        try:
            for words in process.stdout:
                if not jvm_output.is_launchers_own(words):
                    sys.stderr.write(words)
                said = [*said, words.rstrip()][-TAIL_LINES:]
        except BaseException:
            process.kill()
            raise
    return process.returncode, "\n".join(without_frames(said))


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
        if line is None:
            return
        if line:
            watched.hear(line, time.time())
        state = watched.state or ("SUBMITTED" if watched.application else "")
        if state != seen and lines.empty():
            seen = state
            on_change(watched)
        now = time.monotonic()
        if not watched.application:
            if now - began > patience.submit_s:
                fact = f"YARN has not taken the application for {patience.submit_s:.0f} s"
                raise _time_is_over(fact, watched, "raise --submit_timeout")
        elif "running" not in watched.times:
            accepted = accepted or now
            if now - accepted > patience.accept_s:
                fact = f"YARN has not given the driver a container for {patience.accept_s:.0f} s"
                queue_name = watched.details.get("queue", "").rpartition(".")[2]
                lack = patience.lack(watched.application) or (f"it waits in queue {queue_name}" if queue_name else "")
                fact += f"; {lack}" if lack else ""
                raise _time_is_over(fact, watched, "raise --accept_timeout (of train: --deadlines application=…)")


def _time_is_over(fact: str, watched: Watched, longer: str) -> _TimeIsOver:
    said = watched.details.get("diagnostics") or next((line for line in reversed(watched.tail) if line.strip()), "")
    return _TimeIsOver(
        fact + (f"; it says: {said.strip()}" if said not in ("", "N/A") else ""),
        place=watched.application or "ResourceManager",
        next_step=f"See whether it is up and the queue has room (`yarn top`), or {longer}",
    )


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stderr is not None
    with process.stderr as stderr:
        for line in stderr:
            lines.put(line)
    lines.put(None)


def _ask_to_the_end(
    watched: Watched,
    environment: Mapping[str, str],
    signals_here: DeferredSignals,
    on_change: Callable[[Watched], None],
) -> None:
    """Polls YARN for an application after spark-submit gave up: its ResourceManager was away for too long.

    Raises:
      NodeDiedError: YARN does not know the application any more.
      ResourceError: YARN has not answered for `_AWAY_S`.
    """
    said = [line for line in without_frames(watched.tail) if line.strip()]
    last = next(iter([*(line for line in said if line.startswith("ERROR ")), *said[-1:]]), "it has ended")
    log.warning("spark-submit has lost sight of %s (%s): YARN itself is asked now", watched.application, last.strip())
    answered_s, seen = time.monotonic(), watched.state
    while not watched.has_ended:
        answer = yarn_client.status(watched.application, environment, signals_here.check, answered_s + _AWAY_S)
        if watched.hear_status(answer, time.time()):
            answered_s = time.monotonic()
            if watched.state != seen:
                seen = watched.state
                on_change(watched)
        elif _UNKNOWN.search(answer):
            raise NodeDiedError(
                "YARN does not know the application any more: its ResourceManager was started again without recovery",
                place=watched.application,
                next_step="Submit it again (yarn.resourcemanager.recovery.enabled keeps applications)",
            )
        elif time.monotonic() - answered_s > _AWAY_S:
            raise ResourceError(
                f"YARN has not answered for {_AWAY_S:.0f} s; the application may still run",
                place=watched.application,
                next_step=f"See `yarn application -status {watched.application}` before you submit it again",
            )
        until_s = time.monotonic() + _ASK_EVERY_S
        while not watched.has_ended and time.monotonic() < until_s:
            signals_here.check()
            time.sleep(_POLL_S)


class _TimeIsOver(ResourceError):
    """YARN exceeded a time limit; the application is given up."""
