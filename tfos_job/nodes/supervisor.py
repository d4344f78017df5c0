"""The supervisor of one TensorFlow process, on an executor or on the driver's host. Loads no TensorFlow itself.

It keeps the line to the driver, starts the process, copies the remote shards that the process reads, and ends when the
first of these happens:

* the driver says `Stop`: the process ends, and whoever has made the supervisor cleans up and says `Left`;
* the process ends, falls silent or cannot start, or a copy fails: the node tells the driver its `Failure`;
* the line to the driver breaks or falls silent, or the parent process goes: the process is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from msgspec.structs import replace

from tfos_job.errors import JobError, NodeDiedError, ResourceError
from tfos_job.host import container
from tfos_job.host.child import Child, end_in_words
from tfos_job.host.memory import Meter
from tfos_job.host.server_port import ServerPort
from tfos_job.nodes.account import MemoryAccount, NodeFailed, judged, log_name, report, stacks_of_node, tell
from tfos_job.protocol import failures, messages
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.line import SILENCE_S, NodeLine
from tfos_job.protocol.messages import Admit, Beat, DumpStacks, Notice, Ready, Stop, ToSupervisor, Vitals
from tfos_job.protocol.server import STOP, ServerSpec
from tfos_job.staging.cache_plan import CachePlan
from tfos_job.staging.stager import Staged, Stager

_POLL_S = 0.5
_STOP_S = 2.0
_LOG_FILE = "process.log"
_CACHE_DIR = "tfos_job-shards"


# The events of a supervisor, beside the words of its process:


@dataclass(frozen=True)
class _DriverStopped:
    """The driver has said `Stop`."""


@dataclass(frozen=True)
class _DriverLost:
    """The line to the driver has ended."""

    reason: str


@dataclass(frozen=True)
class _ProcessEnded:
    """The TensorFlow process has ended; the code of one that a signal has ended is negative."""

    exit_code: int


@dataclass(frozen=True)
class _StagingFailed:
    """A shard could not be copied."""

    failure: Failure


_Event = _DriverStopped | Admit | _DriverLost | _ProcessEnded | _StagingFailed | Staged | ToSupervisor


@dataclass(frozen=True, kw_only=True)
class SupervisorSpec:
    """The process that a supervisor starts, and what that process needs.

    Attributes:
      server: the orders of its process.
      attempt: the attempt's number.
      work_dir: the process's working directory, where it finds the shards of `cache_plan`.
      env: the process's environment.
      cache_plan: the remote shards that the process reads; None if there are none.
      start_timeout: seconds for the TensorFlow server to answer.
      parent: the process that has started this one, in words.
      held: the port that the process will serve on.
      require_isolation: fail where other hosts can connect to it.
      other_pids: processes of this node beside the supervisor and its process, whose memory counts as well.
      container_bytes: limit of YARN's container; 0 if it is unknown.
    """

    server: ServerSpec
    attempt: int
    work_dir: str
    env: Mapping[str, str]
    cache_plan: CachePlan | None
    start_timeout: int
    parent: str
    held: ServerPort
    require_isolation: bool = False
    other_pids: tuple[int, ...] = ()
    container_bytes: int = 0

    @property
    def log_path(self) -> str:
        return container.log_file(log_name(self.server.role, self.server.index)) or os.path.join(
            self.work_dir, _LOG_FILE
        )


class Supervisor:
    """Waits for the first end of the driver's line, the process and the parent."""

    def __init__(self, line: NodeLine, spec: SupervisorSpec) -> None:
        """Starts the process, which imports TensorFlow for some seconds, and the stager."""
        self._line = line
        self._spec = spec
        self._parent = os.getppid()
        self._process, self._log_start = _spawn(spec)
        pids = (os.getpid(), self._process.pid, *spec.other_pids)
        self._memory = MemoryAccount(Meter(pids, container_bytes=spec.container_bytes))
        self._events: queue.Queue[_Event] = queue.Queue()
        self._ready: Ready | None = None  # the process's word
        self._are_hosts_known = False
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
            while True:
                match self._line.receive():
                    case DumpStacks():  # not by the thread that may be the one that stands still
                        threading.Thread(target=self._tell_stacks, daemon=True).start()
                    case Admit() as admit:
                        self._events.put(admit)
                    case Stop():
                        self._events.put(_DriverStopped())
                        return
        except LineClosed as e:
            self._events.put(_DriverLost(str(e)))

    def _tell_stacks(self) -> None:
        tell(self._line, stacks_of_node(self._process.pid, self._spec.log_path))

    def _hear_process(self) -> None:
        while (words := self._process.hear()) is not None:
            self._events.put(messages.from_json(words, ToSupervisor))
        self._events.put(_ProcessEnded(self._process.wait()))

    def _stage(self) -> None:
        assert self._spec.cache_plan is not None
        try:
            cache_dir = container.shared_dir(self._spec.work_dir) or self._spec.work_dir
            stager = Stager(
                self._spec.cache_plan, self._spec.work_dir, os.path.join(cache_dir, _CACHE_DIR), self._events.put
            )
            stager.run(self._ended.is_set)
        except Exception as e:  # noqa: BLE001 - whatever it was, the driver must hear of it
            error = e if isinstance(e, JobError) else JobError(f"{type(e).__name__}: {e}")
            self._events.put(_StagingFailed(failures.of_error(error)))

    def run(self) -> None:
        """Raises NodeFailed for every end but the one that the driver has asked for."""
        try:
            while True:
                try:
                    event = self._events.get(timeout=_POLL_S)
                except queue.Empty:
                    pass
                else:
                    if isinstance(event, _DriverStopped):
                        return
                    self._take(event)
                self._check_clock()
        finally:
            self._ended.set()
            self._tell_vitals(self._memory.news())
            self._end_process()
            if self._stager.ident:  # it works in the folder that will be removed
                self._stager.join(_STOP_S)

    def _take(self, event: _Event) -> None:
        try:
            self._handle(event)
        except JobError as error:
            raise self._report(failures.of_error(error)) from error

    def _handle(self, event: _Event) -> None:
        match event:
            case Ready():
                self._ready = event
                self._tell_ready()
            case Admit(addresses):
                self._spec.held.admit(addresses)
                self._are_hosts_known = True
                self._tell_ready()
            case Staged():
                tell(self._line, Notice(f"copied {event}"))
            case Notice():
                tell(self._line, event)
            case _StagingFailed(failure):
                raise self._report(failure)
            case Failure():
                raise self._report(replace(event, detail=self._log_tail()))
            case _ProcessEnded(exit_code):
                self._tell_vitals(self._memory.news(self._process.pid))
                kind = Kind.KILLED if exit_code < 0 else Kind.RAISED
                self._fail(kind, f"its TensorFlow process {self._process.pid} {end_in_words(exit_code)}")
            case _DriverLost(reason):
                self._is_orphaned = True
                raise NodeFailed(f"the line to the driver is gone: {reason}")
        if isinstance(event, Ready | Beat):
            self._deadline = time.monotonic() + SILENCE_S

    def _tell_ready(self) -> None:
        """When the server listens, and the job's hosts alone reach it."""
        if self._ready and self._are_hosts_known:
            self._spec.held.prove()
            if warning := self._spec.held.judge(is_required=self._spec.require_isolation):
                tell(self._line, Notice(warning, is_warning=True))
            tell(self._line, self._ready)

    def _check_clock(self) -> None:
        self._tell_vitals(self._memory.due())
        if os.getppid() != self._parent:
            for pid in self._spec.server.orphaned_pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._fail(Kind.LOST, f"{self._spec.parent} is gone")
        if time.monotonic() > self._deadline:
            if self._ready:
                self._fail(
                    Kind.LOST, f"its TensorFlow process {self._process.pid} has been silent for {SILENCE_S:.0f} s"
                )
            self._fail(Kind.RAISED, "its TensorFlow server did not start in time", ResourceError.exit_code)

    def _fail(self, kind: Kind, cause: str, exit_code: int = NodeDiedError.exit_code) -> NoReturn:
        raise self._report(Failure(kind, cause, exit_code, detail=self._log_tail()))

    def _report(self, failure: Failure) -> NodeFailed:
        self._tell_vitals(self._memory.news())  # the driver knows then whether the kernel has killed for memory
        return report(self._line, judged(failure, (self._spec.work_dir, sys.prefix)))

    def _tell_vitals(self, vitals: Vitals | None) -> None:
        if vitals is not None:
            tell(self._line, vitals)

    def _log_tail(self) -> str:
        """The last lines of the process's log; empty if the log is gone with its folder."""
        with contextlib.suppress(FileNotFoundError), open(self._spec.log_path, errors="replace") as log_file:
            log_file.seek(self._log_start)
            return failures.log_tail(log_file)
        return ""

    def _end_process(self) -> None:
        """Ends the process. Without a driver it gets no `stop` but the end of its line, and removes the node's folders.

        Spark may then kill this process at any moment, but not that one, which has a session of its own.
        """
        if self._is_orphaned:
            self._process.hang_up()
        else:
            self._process.tell(STOP)
        self._process.end(_STOP_S)


def _spawn(spec: SupervisorSpec) -> tuple[Child, int]:
    """Returns the process, and the offset at which its part of the log begins."""
    # A container may see several attempts: each adds to the log that is kept.
    with open(spec.log_path, "ab") as log_file:
        log_start = container.begin_log(log_file, spec.attempt)
        process = Child(
            "tfos_job.training.server_process",
            name=f"the TensorFlow process of {spec.server.role}:{spec.server.index}",
            env=spec.env,
            output=log_file,
            cwd=spec.work_dir,
            pass_fds=(spec.held.fd_to_keep,),
        )
    process.tell(dataclasses.asdict(spec.server))
    return process, log_start
