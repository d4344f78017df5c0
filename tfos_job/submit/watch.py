"""Runs spark-submit, follows its application, and kills it where its submitter is killed.

spark-submit itself talks to the ResourceManager (fail-over and Kerberos included); what it logs through
`spark/conf/log4j2-submit.properties` is read here. Killing goes through Hadoop's own client, in a JVM of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError, ResourceError, SettingsError
from tfos_job.host.child import end
from tfos_job.host.signals import Received, Stopped
from tfos_job.submit.verdict import End

_POLL_S = 0.5
_KILL_S = 60.0
_ASK_EVERY_S = 5.0
# A ResourceManager that is started again, or whose place another one takes, answers within minutes.
_AWAY_S = 900.0
_ENDS = ("FINISHED", "FAILED", "KILLED")
_CLI = "org.apache.hadoop.yarn.client.cli.ApplicationCLI"
_ASSIGNED = re.compile(r"Application ID is assigned: (application_\d+_\d+)")
_APPLICATION = re.compile(r"Submitted application (application_\d+_\d+)")
_STATE = re.compile(r"Application report for (application_\d+_\d+) \(state: (\w+)\)")
_DETAIL = re.compile(r"^\s+(diagnostics|final status|tracking URL|queue): (.*)$")
# Of `yarn application -status`, by the names that spark-submit has for the same.
_STATUS = {
    "State": "state",
    "Final-State": "final status",
    "Tracking-URL": "tracking URL",
    "Diagnostics": "diagnostics",
}
_STATUS_LINE = re.compile(r"^\t([A-Z][A-Za-z -]*?) : ?(.*)$")
_UNKNOWN = re.compile(r"doesn't exist in RM|ApplicationNotFoundException")
_LOG_LINE = re.compile(r"^(?:INFO|WARN|ERROR|FATAL|DEBUG) \S+: ")
_TAIL_LINES = 40

log = logging.getLogger(__name__)


@dataclass
class Watched:
    """What is known of the application. Times are of `time.time`, as seen here.

    Attributes:
      assigned: its id, from before it was submitted.
      application: its id, once it was.
    """

    assigned: str = ""
    application: str = ""
    state: str = ""
    details: dict[str, str] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    tail: list[str] = field(default_factory=list)

    def hear(self, line: str, now_s: float) -> None:
        """Takes one line of spark-submit's log."""
        if found := _APPLICATION.search(line):
            self.application = found[1]
            self.times.setdefault("submitted", now_s)
        elif found := _STATE.search(line):
            self.application, self.state = found.groups()
            self.times.setdefault(self.state.lower(), now_s)
        elif found := _DETAIL.match(line):
            self.details[found[1]] = found[2].strip()
        elif found := _ASSIGNED.search(line):
            self.assigned = found[1]
        elif self._goes_on(line):
            self.details["diagnostics"] += "\n" + line.rstrip()
        self.tail = [*self.tail, line.rstrip()][-_TAIL_LINES:]

    def hear_status(self, text: str, now_s: float) -> bool:
        """Takes what `yarn application -status` prints; whether YARN has told of the application."""
        told: dict[str, str] = {}
        name = ""
        for line in text.splitlines():
            if found := _STATUS_LINE.match(line):
                name = _STATUS.get(found[1], "")
                told[name] = found[2].strip()
            elif name == "diagnostics" and line.strip():
                told[name] += "\n" + line.rstrip()
        if not told.get("state"):
            return False
        self.state = told.pop("state")
        self.details |= {key: value for key, value in told.items() if key}
        self.times.setdefault(self.state.lower(), now_s)
        return True

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDS

    def _goes_on(self, line: str) -> bool:
        """Whether the line belongs to diagnostics of several lines, which end at the next detail."""
        return (
            "diagnostics" in self.details
            and not _LOG_LINE.match(line)
            and not line.strip().startswith(("ApplicationMaster", "start time", "user:", "client token", "Exception"))
            and not line.startswith("\tat ")
        )

    def end(self, command: str) -> End:
        words = self.details.get("diagnostics", "") if self.has_ended else ""
        return End(
            application=self.application,
            final_status="KILLED" if self.state == "KILLED" else self.details.get("final status", ""),
            diagnostics=words if words not in ("", "N/A") else "\n".join(_without_frames(self.tail)),
            command=command,
        )


def _without_frames(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.startswith(("\tat ", "WARNING: "))]


def spark_home() -> Path:
    """`$SPARK_HOME`, else pyspark's own folder, found without importing it."""
    home = os.environ.get("SPARK_HOME")
    if home:
        return Path(home)
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise SettingsError("no pyspark here", place="SPARK_HOME", next_step="Install this package, or set SPARK_HOME")
    return Path(spec.origin).parent


def run(
    line: Sequence[str],
    environment: Mapping[str, str],
    *,
    on_change: Callable[[Watched], None],
    submit_timeout_s: float,
    accept_timeout_s: float,
    detach: bool,
    when_stopped: str,
) -> Watched:
    """Runs spark-submit, and watches over its application, to the end.

    Args:
      line: from `plan.spark_submit_line`.
      environment: of spark-submit.
      on_change: called with each new state of the application.
      submit_timeout_s: until YARN has the application.
      accept_timeout_s: until its driver has a container.
      detach: whether the application goes on by itself once it is submitted.
      when_stopped: what the command leaves where a signal ends it, and what its next run does.

    Raises:
      InterruptedJobError: SIGINT or SIGTERM; the application has been killed.
      ResourceError: one of the two times was over, and the application has been killed; or YARN has not answered for
        so long that its end was not seen.
    """
    watched = Watched()
    with _Signals() as signals_here:
        try:
            _submit(line, environment, watched, signals_here, on_change, submit_timeout_s, accept_timeout_s)
            if watched.application and not watched.has_ended and not detach:
                _ask_to_the_end(watched, environment, signals_here, on_change)
        except BaseException as e:
            if isinstance(e, JobError) and not isinstance(e, _TimeIsOver):
                raise  # It is out of sight.
            left = "Nothing was submitted"
            if application := watched.application or watched.assigned:
                left = f"{application} goes on"
                if not detach:
                    left = f"{application} was killed" if kill(application, environment) else f"{application} may go on"
            if isinstance(e, Stopped):
                raise InterruptedJobError(f"stopped by {e}. {left}", next_step=when_stopped, signum=e.signum) from e
            raise
    return watched


def _submit(
    line: Sequence[str],
    environment: Mapping[str, str],
    watched: Watched,
    signals_here: _Signals,
    on_change: Callable[[Watched], None],
    submit_timeout_s: float,
    accept_timeout_s: float,
) -> None:
    # A Ctrl-C at the terminal is ours to handle.
    process = _start(line, environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), name="spark-submit", daemon=True)
    reader.start()
    try:
        _follow(lines, watched, signals_here, on_change, submit_timeout_s, accept_timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        end(process, "spark-submit")
        reader.join(_POLL_S)
        while not lines.empty():  # It may have submitted the application a moment ago.
            watched.hear(lines.get() or "", time.time())


def _start(line: Sequence[str], environment: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """spark-submit, with `line`'s arguments and the streams that `options` give it."""
    return subprocess.Popen(
        [str(spark_home() / "bin" / "spark-submit"), *line[1:]],
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env={**environment, "SPARK_HOME": str(spark_home())},
        **options,
    )


def pass_through(line: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Runs spark-submit with its words on stderr: for what is not YARN's.

    Returns:
      Its exit code, and its last words.
    """
    with _start(line, environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said: list[str] = []
        try:
            for words in process.stdout:
                sys.stderr.write(words)
                said = [*said, words.rstrip()][-_TAIL_LINES:]
        except BaseException:
            process.kill()
            raise
    return process.returncode, "\n".join(_without_frames(said))


def _follow(
    lines: queue.Queue[str | None],
    watched: Watched,
    signals_here: _Signals,
    on_change: Callable[[Watched], None],
    submit_timeout_s: float,
    accept_timeout_s: float,
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
            _limit(now - began, submit_timeout_s, "YARN has not taken the application", watched)
        elif "running" not in watched.times:
            accepted = accepted or now
            _limit(now - accepted, accept_timeout_s, "YARN has not given the driver a container", watched)


def _limit(waited_s: float, limit_s: float, fact: str, watched: Watched) -> None:
    if waited_s > limit_s:
        said = watched.details.get("diagnostics") or next((line for line in reversed(watched.tail) if line.strip()), "")
        raise _TimeIsOver(
            f"{fact} for {limit_s:.0f} s" + (f"; it says: {said.strip()}" if said not in ("", "N/A") else ""),
            place=watched.application or "ResourceManager",
            next_step="See whether it is up and the queue has room (`yarn top`), or raise --accept_timeout",
        )


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stderr is not None
    with process.stderr as stderr:
        for line in stderr:
            lines.put(line)
    lines.put(None)


def _ask_to_the_end(
    watched: Watched, environment: Mapping[str, str], signals_here: _Signals, on_change: Callable[[Watched], None]
) -> None:
    """Watches over an application that spark-submit has lost sight of: its ResourceManager was away for too long.

    Raises:
      ResourceError: YARN has not answered for `_AWAY_S`, or does not know the application any more.
    """
    said = [line for line in _without_frames(watched.tail) if line.strip()]
    last = next(iter([*(line for line in said if line.startswith("ERROR ")), *said[-1:]]), "it has ended")
    log.warning("spark-submit has lost sight of %s (%s): YARN itself is asked now", watched.application, last.strip())
    answered_s, seen = time.monotonic(), watched.state
    while not watched.has_ended:
        answer = _status(watched.application, environment, signals_here, answered_s + _AWAY_S)
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


def _status(application: str, environment: Mapping[str, str], signals_here: _Signals, deadline_s: float) -> str:
    """What `yarn application -status` prints, until it ends or the time is over."""
    with subprocess.Popen(
        [*_hadoop_client(environment), _CLI, "application", "-status", application],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(environment),
        start_new_session=True,
    ) as process:
        try:
            while True:
                signals_here.check()
                try:
                    return process.communicate(timeout=_POLL_S)[0]
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline_s:
                        return ""
        finally:
            process.kill()


def kill(application: str, environment: Mapping[str, str]) -> bool:
    """Ends an application; whether that was done, and says so where it was not, since then it goes on."""
    log.warning("killing %s", application)
    try:
        done = subprocess.run(
            [*_hadoop_client(environment), _CLI, "application", "-kill", application],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_KILL_S,
            env=dict(environment),
            start_new_session=True,
            check=False,
        )
        failure = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except (OSError, subprocess.TimeoutExpired) as e:
        failure = str(e)
    if failure:
        log.error("%s may still run (%s): end it with `yarn application -kill %s`", application, failure, application)
    return not failure


def _hadoop_client(environment: Mapping[str, str]) -> list[str]:
    home = environment.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    # YARN_CONF_DIR is the stronger one, as for Spark.
    conf = [environment[name] for name in ("YARN_CONF_DIR", "HADOOP_CONF_DIR") if environment.get(name)]
    return [java, "-cp", ":".join([*conf, f"{spark_home()}/jars/*"])]


class _TimeIsOver(ResourceError):
    """YARN has taken too long: the application is not waited for any more."""


class _Signals:
    """SIGINT and SIGTERM as `Stopped` at a point of our choice; a second one at once."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._received = Received()
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Signals:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _handle(self, signum: int, _: object) -> None:
        if not self._received.is_news(signum):
            return
        if self._signum is not None:
            raise Stopped(signum)
        self._signum = signum

    def check(self) -> None:
        if self._signum is not None:
            raise Stopped(self._signum)
