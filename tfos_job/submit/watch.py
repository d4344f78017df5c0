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
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfos_job.errors import InterruptedJobError, ResourceError, SettingsError
from tfos_job.host.child import end
from tfos_job.submit.verdict import End

_POLL_S = 0.5
_KILL_S = 60.0
_CLI = "org.apache.hadoop.yarn.client.cli.ApplicationCLI"
_APPLICATION = re.compile(r"Submitted application (application_\d+_\d+)")
_STATE = re.compile(r"Application report for (application_\d+_\d+) \(state: (\w+)\)")
_DETAIL = re.compile(r"^\s+(diagnostics|final status|tracking URL|queue): (.*)$")
_LOG_LINE = re.compile(r"^(?:INFO|WARN|ERROR|FATAL|DEBUG) \S+: ")
_TAIL_LINES = 40

log = logging.getLogger(__name__)


@dataclass
class Watched:
    """What is known of the application. Times are of `time.time`, as seen here."""

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
        elif self._goes_on(line):
            self.details["diagnostics"] += "\n" + line.rstrip()
        self.tail = [*self.tail, line.rstrip()][-_TAIL_LINES:]

    def _goes_on(self, line: str) -> bool:
        """Whether the line belongs to diagnostics of several lines, which end at the next detail."""
        return (
            "diagnostics" in self.details
            and not _LOG_LINE.match(line)
            and not line.strip().startswith(("ApplicationMaster", "start time", "user:", "client token", "Exception"))
            and not line.startswith("\tat ")
        )

    def end(self, command: str) -> End:
        words = self.details.get("diagnostics", "") if self.state in ("FINISHED", "FAILED", "KILLED") else ""
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
    keep_on_signal: bool,
) -> Watched:
    """Runs spark-submit to its end.

    Args:
      line: from `plan.spark_submit_line`.
      environment: of spark-submit.
      on_change: called with each new state of the application.
      submit_timeout_s: until YARN has the application.
      accept_timeout_s: until its driver has a container.
      keep_on_signal: whether the application goes on where this process is told to end (`--detach`).

    Raises:
      InterruptedJobError: SIGINT or SIGTERM; the application has been killed.
      ResourceError: one of the two times was over; the application has been killed.
    """
    with _Signals() as signals:
        process = subprocess.Popen(
            [str(spark_home() / "bin" / "spark-submit"), *line[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**environment, "SPARK_HOME": str(spark_home())},
            start_new_session=True,  # A Ctrl-C at the terminal is ours to handle.
        )
        watched = Watched()
        try:
            _follow(process, watched, signals, on_change, submit_timeout_s, accept_timeout_s)
        except BaseException:
            if watched.application and not keep_on_signal:
                kill(watched.application, environment)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            end(process, "spark-submit")
    return watched


def pass_through(line: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs spark-submit with its words on stderr, and returns its exit code: for what is not YARN's."""
    return subprocess.run(
        [str(spark_home() / "bin" / "spark-submit"), *line[1:]],
        stdin=subprocess.DEVNULL,
        stdout=2,
        env={**environment, "SPARK_HOME": str(spark_home())},
        check=False,
    ).returncode


def _follow(
    process: subprocess.Popen[str],
    watched: Watched,
    signals: _Signals,
    on_change: Callable[[Watched], None],
    submit_timeout_s: float,
    accept_timeout_s: float,
) -> None:
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), name="spark-submit", daemon=True).start()
    began = time.monotonic()
    accepted: float | None = None
    seen = ""
    while True:
        signals.check()
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            line = ""
        if line is None:
            process.wait()
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
        raise ResourceError(
            f"{fact} for {limit_s:.0f} s" + (f"; it says: {said.strip()}" if said not in ("", "N/A") else ""),
            place=watched.application or "ResourceManager",
            next_step="See whether it is up and the queue has room (`yarn top`), or raise --accept_timeout",
        )


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        lines.put(line)
    lines.put(None)


def kill(application: str, environment: Mapping[str, str]) -> None:
    """Ends an application; says so where that fails, since then it goes on."""
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


def _hadoop_client(environment: Mapping[str, str]) -> list[str]:
    home = environment.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    # YARN_CONF_DIR is the stronger one, as for Spark.
    conf = [environment[name] for name in ("YARN_CONF_DIR", "HADOOP_CONF_DIR") if environment.get(name)]
    return [java, "-cp", ":".join([*conf, f"{spark_home()}/jars/*"])]


class _Signals:
    """SIGINT and SIGTERM as an exception at a point of our choice; a second one at once."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Signals:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _handle(self, signum: int, _: object) -> None:
        if self._signum is not None:
            raise self._error(signum)
        self._signum = signum

    def check(self) -> None:
        if self._signum is not None:
            raise self._error(self._signum)

    @staticmethod
    def _error(signum: int) -> InterruptedJobError:
        name = signal.Signals(signum).name
        return InterruptedJobError(
            f"stopped by {name}", next_step="Submit it again to go on from the last checkpoint", signum=signum
        )
