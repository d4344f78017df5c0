"""Supervision of spark-submit on Kubernetes and of the driver's pod, which is deleted if the submitter is killed.

spark-submit communicates with the API server. This module reads its log, and asks `spark-submit --status` where Spark
has lost sight of the pod: it then ends with 0, whatever becomes of the pod.
"""

from __future__ import annotations

import itertools
import logging
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tfos_job.errors import InterruptedJobError, JobError, ResourceError
from tfos_job.host.signals import Stopped
from tfos_job.submit import launcher, pod_verdict
from tfos_job.submit.deferred_signals import DeferredSignals
from tfos_job.submit.driver_pod import DriverPod

_POLL_S = 0.5
_KILL_S = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long Kubernetes may take, in seconds.

    Attributes:
      submit_s: until the pod is made; from then until its image is there.
      accept_s: until its container runs.
      ask_every_s: between two questions for a pod that spark-submit has lost sight of.
      away_s: that the API server may be away meanwhile.
    """

    submit_s: float
    accept_s: float
    ask_every_s: float = 5.0
    away_s: float = 900.0


def run(
    line: Sequence[str],
    environment: Mapping[str, str],
    *,
    on_change: Callable[[DriverPod], None],
    patience: Patience,
    detach: bool,
    when_stopped: str,
) -> tuple[DriverPod, int]:
    """Runs spark-submit and follows the driver's pod to its end.

    Args:
      line: from `spark_submit.spark_submit_line`.
      environment: of spark-submit.
      on_change: called with each new phase of the pod.
      patience: its time limits.
      detach: True to return after the submission.
      when_stopped: for the error of a signal: the state that the command leaves, and the effect of its next run.

    Returns:
      The last state of the pod, and the exit code of spark-submit.

    Raises:
      InterruptedJobError: SIGINT or SIGTERM arrived; the pod has been deleted.
      ResourceError: a time limit was exceeded.
      SettingsError: the driver's container cannot be made. The pod has been deleted, as after a time limit.
    """
    pod = DriverPod()
    seen = _Seen(on_change)
    with DeferredSignals() as signals_here:
        try:
            code = _submit(line, environment, pod, signals_here, seen, patience)
            if pod.name and not pod.has_ended and not detach:
                _ask_to_the_end(line, environment, pod, signals_here, seen, patience)
        except (Stopped, _HeldUp) as e:
            left = "No pod was seen; `kubectl get pods -l spark-role=driver` tells if one was made"
            if pod.name and detach:
                left = f"{pod.submission} goes on"
            elif pod.name:
                left = f"{pod.submission} was deleted" if _kill(line, environment, pod) else f"{pod.submission} goes on"
            if isinstance(e, Stopped):
                raise InterruptedJobError(f"stopped by {e}. {left}", next_step=when_stopped, signum=e.signum) from e
            raise e.error from e
    return pod, code


class _HeldUp(Exception):
    """The pod, or spark-submit before it, has waited too long."""

    def __init__(self, error: JobError) -> None:
        super().__init__(str(error))
        self.error = error


class _Seen:
    """Calls `on_change` where the phase of the pod, or the reason for which its container waits, is a new one."""

    def __init__(self, on_change: Callable[[DriverPod], None]) -> None:
        self._on_change = on_change
        self._last: tuple[str, str, bool] = ("", "", False)

    def look(self, pod: DriverPod) -> None:
        driver = pod.driver
        now = (pod.phase, driver.reason if driver else "", pod.is_gone)
        if pod.name and now != self._last:
            self._last = now
            self._on_change(pod)


def _submit(
    line: Sequence[str],
    environment: Mapping[str, str],
    pod: DriverPod,
    signals_here: DeferredSignals,
    seen: _Seen,
    patience: Patience,
) -> int:
    process = _start(line[1:], environment)
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), name="spark-submit", daemon=True)
    reader.start()
    try:
        _follow(lines, pod, signals_here, seen, patience)
        code = process.wait()
    finally:
        launcher.end_all_of(process)
        reader.join(_POLL_S)
        while not lines.empty():  # spark-submit may have made the pod meanwhile
            pod.hear(lines.get() or "")
    return code


def _start(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    # In a session of its own, so that this process handles a terminal's Ctrl-C.
    return subprocess.Popen(
        launcher.command(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=launcher.with_spark_home(environment),
        start_new_session=True,
    )


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout as stdout:
        for line in stdout:
            lines.put(line)
    lines.put(None)


def _follow(
    lines: queue.Queue[str | None], pod: DriverPod, signals_here: DeferredSignals, seen: _Seen, patience: Patience
) -> None:
    began, made = time.monotonic(), None
    while True:
        signals_here.check()
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            line = ""
        if line is None:
            seen.look(pod)
            return
        if line:
            log.debug("%s", line.rstrip())
            pod.hear(line)
        if lines.empty():  # the lines of one state belong together
            seen.look(pod)
        now = time.monotonic()
        if not pod.name:
            if now - began > patience.submit_s:
                raise _HeldUp(_no_answer(pod, patience.submit_s))
            continue
        made = made or now
        error = pod_verdict.held_up(pod, waited_s=now - made, pull_s=patience.submit_s, accept_s=patience.accept_s)
        if error is not None:
            raise _HeldUp(error)


def _no_answer(pod: DriverPod, seconds: float) -> JobError:
    last = next((line.strip() for line in reversed(pod.said.splitlines()) if line.strip()), "spark-submit said nothing")
    return ResourceError(
        f"Kubernetes has not made the driver's pod within {seconds:.0f} s: {last}",
        place="API server",
        next_step="See whether it is up and --master has its address, or give a longer --submit_timeout",
    )


def _ask_to_the_end(
    line: Sequence[str],
    environment: Mapping[str, str],
    pod: DriverPod,
    signals_here: DeferredSignals,
    seen: _Seen,
    patience: Patience,
) -> None:
    """Asks for a pod after spark-submit has ended before it: the connection that it watched was closed.

    Raises:
      _HeldUp: it waits too long.
      ResourceError: the API server has not answered for `patience.away_s`; the pod may still run.
    """
    log.warning("spark-submit has lost sight of %s: Kubernetes itself is asked now", pod.submission)
    began = answered = time.monotonic()
    while not pod.has_ended:
        answer = _ask("--status", line, environment, pod, signals_here)
        now = time.monotonic()
        if "Application status (driver):" in answer or "Application not found." in answer:
            answered = now
            for words in answer.splitlines():
                pod.hear(words)
            seen.look(pod)
        elif now - answered > patience.away_s:
            raise ResourceError(
                f"the API server has not answered for {patience.away_s:.0f} s; the driver may still run",
                place=pod.submission,
                next_step=f"See `kubectl -n {pod.namespace} get pod {pod.name}` before you submit it again",
            )
        error = pod_verdict.held_up(pod, waited_s=now - began, pull_s=patience.submit_s, accept_s=patience.accept_s)
        if error is not None:
            raise _HeldUp(error)
        until = time.monotonic() + patience.ask_every_s
        while not pod.has_ended and time.monotonic() < until:
            signals_here.check()
            time.sleep(_POLL_S)


def _ask(
    what: str,
    line: Sequence[str],
    environment: Mapping[str, str],
    pod: DriverPod,
    signals_here: DeferredSignals | None = None,
) -> str:
    """Returns what `spark-submit --status` or `--kill` prints about the pod; what there is of it after `_KILL_S`."""
    process = _start([what, pod.submission, *_master_and_settings(line)], environment)
    deadline = time.monotonic() + _KILL_S
    try:
        while True:
            if signals_here is not None:
                signals_here.check()
            try:
                return process.communicate(timeout=_POLL_S)[0]
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    return ""
    finally:
        launcher.end_all_of(process)


def _kill(line: Sequence[str], environment: Mapping[str, str], pod: DriverPod) -> bool:
    """Deletes the pod; false, with an error in the log, if it may still run."""
    log.warning("deleting %s", pod.submission)
    said = _ask("--kill", line, environment, pod)
    if "Submitting a request to kill" in said and "Exception" not in said:
        return True
    last = next((words for words in reversed(said.splitlines()) if words.strip()), "no answer")
    log.error(
        "%s may still run (%s): end it with `kubectl -n %s delete pod %s`",
        pod.submission,
        last.strip(),
        pod.namespace,
        pod.name,
    )
    return False


def _master_and_settings(line: Sequence[str]) -> list[str]:
    """Of the spark-submit line, what a question for a pod needs: the master, and how to speak to it."""
    at = line.index("--master")
    words = ["--master", line[at + 1]]
    for flag, value in itertools.pairwise(line):
        if flag == "--conf" and value.startswith("spark.kubernetes.") and ".authenticate." in value:
            words += [flag, value]
        if flag == "--conf" and value.startswith(("spark.kubernetes.context=", "spark.kubernetes.trust.")):
            words += [flag, value]
    return words
