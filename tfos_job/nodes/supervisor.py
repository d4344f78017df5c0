"""The supervisor of one TensorFlow process, on an executor or beside the driver. Loads no TensorFlow itself.

It keeps the line to the driver, starts the process, brings what the process is to read, and ends when the first of
these happens:

* the driver says `Stop`: the process ends, and whoever has made the supervisor cleans up and says `Left`;
* the process ends, falls silent or cannot start, or a copy fails: the node says `Failed` with the cause;
* the line to the driver breaks or falls silent, or the parent process goes: the process is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfos_job.errors import JobError, NodeDiedError, ResourceError
from tfos_job.host import container
from tfos_job.host.child import Child, end_in_words
from tfos_job.protocol import control, failures
from tfos_job.protocol.server import STOP, ServerSpec
from tfos_job.protocol.topology import Task
from tfos_job.staging.cache_plan import CachePlan
from tfos_job.staging.stager import Staged, Stager

_POLL_S = 0.5
_STOP_S = 2.0
_LOG_FILE = "process.log"
_CACHE_DIR = "tfos_job-shards"


class NodeFailed(Exception):
    """Ends this process or its Spark task; the driver already knows why through the control line."""


@dataclass(frozen=True, kw_only=True)
class SupervisorSpec:
    """The process that a supervisor starts, and what that process needs.

    Attributes:
      server: the orders of its process.
      work_dir: the process's working directory, where it finds what is on `cache_plan`.
      env: the process's environment.
      cache_plan: what the process reads and has to be brought to it; None where there is no such thing.
      start_timeout: seconds for the TensorFlow server to answer.
      parent: in words, whoever started this process.
      held: listens on the port that the process is to serve on, until that takes it.
    """

    server: ServerSpec
    work_dir: str
    env: Mapping[str, str]
    cache_plan: CachePlan | None
    start_timeout: int
    parent: str
    held: socket.socket

    @property
    def log_path(self) -> str:
        return container.log_file(log_name(self.server.role, self.server.index)) or os.path.join(
            self.work_dir, _LOG_FILE
        )


def hello(task: Task, host: str, port: int) -> control.Hello:
    """How the supervisor of `task` introduces itself."""
    url = container.log_url(log_name(task.role, task.index))
    return control.Hello(task.role, task.index, host, os.getpid(), port, container.container_id(), url)


def log_name(role: str, index: int) -> str:
    """What the log of a TensorFlow process is called where YARN keeps it."""
    return f"{role}-{index}.log"


def tell(line: control.Line, message: control.Message) -> None:
    """Tells the driver, if it is still there: whoever listens to it notices its end anyway."""
    try:
        line.send(message)
    except control.LineClosed:
        pass


def report(line: control.Line, failure: control.Failed) -> NodeFailed:
    """Tells the driver; returns what to raise."""
    tell(line, failure)
    return NodeFailed(failure.cause)


class Supervisor:
    """Waits for the first end of: the driver's patience, the process, the parent."""

    def __init__(self, line: control.Line, spec: SupervisorSpec) -> None:
        """Starts the process, which imports TensorFlow for some seconds, and the stager beside it."""
        self._line = line
        self._spec = spec
        self._parent = os.getppid()
        self._process = _spawn(spec)
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._serving = False
        self._is_orphaned = False
        self._ended = threading.Event()
        self._deadline = time.monotonic() + spec.start_timeout
        self._stager = threading.Thread(target=self._stage, daemon=True)
        if spec.cache_plan:
            self._stager.start()
        for target in (self._hear_driver, self._hear_process):
            threading.Thread(target=target, daemon=True).start()

    def _hear_driver(self) -> None:
        try:
            while not isinstance(self._line.receive(), control.Stop):
                pass
            self._events.put(("stop", None))
        except control.LineClosed as e:
            self._events.put(("driver lost", str(e)))

    def _hear_process(self) -> None:
        while (message := self._process.hear()) is not None:
            for kind, value in message.items():
                self._events.put((kind, value))
        self._events.put(("exit", self._process.wait()))

    def _stage(self) -> None:
        def tell_staged(staged: Staged) -> None:
            self._events.put(("staged", staged))

        assert self._spec.cache_plan is not None
        try:
            cache_dir = container.shared_dir(self._spec.work_dir) or self._spec.work_dir
            stager = Stager(
                self._spec.cache_plan, self._spec.work_dir, os.path.join(cache_dir, _CACHE_DIR), tell_staged
            )
            stager.run(self._ended.is_set)
        except Exception as e:  # noqa: BLE001 - whatever it was, the driver must hear of it
            error = e if isinstance(e, JobError) else JobError(f"{type(e).__name__}: {e}")
            self._events.put(("not staged", error))

    def run(self) -> None:
        """Raises NodeFailed for every end but the one that the driver has asked for."""
        try:
            while True:
                try:
                    kind, value = self._events.get(timeout=_POLL_S)
                except queue.Empty:
                    kind, value = "nothing", None
                if kind == "stop":
                    return
                self._handle(kind, value)
                self._check_clock()
        finally:
            self._ended.set()
            self._end_process()
            if self._stager.ident:  # the folder that it works in will go
                self._stager.join(_STOP_S)

    def _handle(self, kind: str, value: Any) -> None:
        if kind == "ready":
            self._serving = True
            tell(self._line, control.Ready(self._process.pid))
        elif kind == "staged":
            tell(self._line, control.Notice(f"copied {value}"))
        elif kind == "warning":
            tell(self._line, control.Notice(value, is_warning=True))
        elif kind == "not staged":
            raise report(self._line, failures.of_error(value))
        elif kind == "failed":
            raise report(self._line, control.Failed(**value, kind=failures.RAISED, detail=self._log_tail()))
        elif kind == "exit":
            cause = f"its TensorFlow process {self._process.pid} {end_in_words(value)}"
            self._fail(failures.KILLED if value < 0 else failures.RAISED, cause, NodeDiedError.exit_code)
        elif kind == "driver lost":
            self._is_orphaned = True
            raise NodeFailed(f"the line to the driver is gone: {value}")
        if kind in ("ready", "beat"):
            self._deadline = time.monotonic() + control.SILENCE_S

    def _check_clock(self) -> None:
        if os.getppid() != self._parent:
            for pid in self._spec.server.orphaned_pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._fail(failures.LOST, f"{self._spec.parent} is gone", NodeDiedError.exit_code)
        if time.monotonic() > self._deadline:
            if self._serving:
                self._fail(
                    failures.LOST,
                    f"its TensorFlow process {self._process.pid} has been silent for {control.SILENCE_S:.0f} s",
                    NodeDiedError.exit_code,
                )
            self._fail(failures.RAISED, "its TensorFlow server did not start in time", ResourceError.exit_code)

    def _fail(self, kind: str, cause: str, exit_code: int) -> None:
        raise report(self._line, control.Failed(kind, cause, exit_code, detail=self._log_tail()))

    def _log_tail(self) -> str:
        with open(self._spec.log_path, errors="replace") as log_file:
            return failures.log_tail(log_file)

    def _end_process(self) -> None:
        """Ends the process; without a driver it takes the node's folders along, since its line ends without a word.

        Spark may kill this one at any moment then, and not that one, which is in a session of its own.
        """
        if self._is_orphaned:
            self._process.hang_up()
        else:
            self._process.tell(STOP)
        self._process.end(_STOP_S)


def _spawn(spec: SupervisorSpec) -> Child:
    # A container may see several attempts: each adds to the log that is kept.
    with open(spec.log_path, "ab") as log_file:
        process = Child(
            "tfos_job.training.server_process",
            name=f"the TensorFlow process of {spec.server.role}:{spec.server.index}",
            env=spec.env,
            output=log_file,
            cwd=spec.work_dir,
            pass_fds=(spec.held.fileno(),),
        )
    process.tell(dataclasses.asdict(spec.server))
    return process
