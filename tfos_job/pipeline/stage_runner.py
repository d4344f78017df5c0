"""How a stage is done: the interface, and its form on this host, where each stage is a process of its own.

A process that dies takes no more than its stage with it. A signal to the pipeline reaches it, and if the pipeline is
killed, the kernel sends it SIGTERM (`host/with_parent.py`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

from tfos_job.errors import BusyError
from tfos_job.host import process_identity, with_parent
from tfos_job.host.child import module_path
from tfos_job.host.signals import Stopped

_READ_BYTES = 1 << 16
_DRAIN_S = 10.0  # for what is still in the pipes when a process has ended; a JVM that outlives it may hold them open
_POLL_S = 0.2
_STDERR = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StageEnd:
    """The end of a stage: its exit code, its JSON results, and the last line that it has logged."""

    exit_code: int
    results: tuple[Any, ...]
    last_line: str

    @property
    def result(self) -> Any:
        """The last one, which a command ends with; None without any."""
        return self.results[-1] if self.results else None


class StageRunner(Protocol):
    """Does stages, one at a time."""

    def settle(self, at_work: Mapping[str, Any]) -> None:
        """Waits for the end of a stage that a run which was killed has left at work, or ends it.

        Args:
          at_work: what `run` has told about it.

        Raises:
          BusyError: it does not end.
        """

    def run(self, command: Sequence[str], work_id: str, begun: Callable[[dict[str, Any]], None]) -> StageEnd:
        """Does a stage.

        Args:
          command: its command line, without the program.
          work_id: name of this piece of work. A command after a kill gives the same one, so that a runner which has
            started it elsewhere can find it; another piece of work never has it, be it of the same words.
          begun: called with JSON values that tell where it works, once or more often.

        Raises:
          Stopped: a signal has come; the stage has ended by then.
        """


class LocalStages:
    """Processes on this host.

    Args:
      program: the words before a stage's own.
      settle_s: seconds to wait for a process that a killed run has left; it was sent SIGTERM by then.
    """

    def __init__(self, program: Sequence[str] = (sys.executable, "-m", "tfos_job"), settle_s: float = 120.0) -> None:
        self._program = list(program)
        self._settle_s = settle_s

    def program_of(self, command: Sequence[str], work_id: str) -> list[str]:
        """The program that does a stage, with its words."""
        return [*self._program, *command]

    def settle(self, at_work: Mapping[str, Any]) -> None:
        """As `StageRunner.settle`; a process of another host has ended with its stage's lock, or holds it."""
        deadline_s = time.monotonic() + self._settle_s
        said = False
        while _is_here(at_work) and not process_identity.is_gone(at_work):
            if time.monotonic() > deadline_s:
                raise BusyError(
                    f"process {at_work.get('pid')}, a stage of the run before, has not ended in {self._settle_s:g} s",
                    place=str(at_work.get("host")),
                    next_step="Run it again later",
                )
            if not said:
                _log.info("Waiting for process %s, a stage of the run before, to end", at_work.get("pid"))
                said = True
            time.sleep(_POLL_S)

    def run(self, command: Sequence[str], work_id: str, begun: Callable[[dict[str, Any]], None]) -> StageEnd:
        """As `StageRunner.run`. A process that was killed by a signal has 128 more than its number as exit code."""
        program = self.program_of(command, work_id)
        words = [sys.executable, with_parent.__file__, str(os.getpid()), *program]
        environment = {**os.environ, "PYTHONPATH": module_path(), "PYTHONSAFEPATH": "1"}
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        out, log = _Pipe(process.stdout), _Pipe(process.stderr, _STDERR)
        try:
            with _ended(process):
                begun(_identity(process.pid))
                code = process.wait()
        finally:
            out.drain()
            log.drain()
        return StageEnd(
            exit_code=code if code >= 0 else 128 - code,
            results=tuple(_json_lines(out.data)),
            last_line=_last_line(log.data),
        )


def _is_here(at_work: Mapping[str, Any]) -> bool:
    here = process_identity.this_process()
    same = ("host", "pid_namespace")
    return bool(at_work.get("process_started")) and all(at_work.get(name) == here[name] for name in same)


def _identity(pid: int) -> dict[str, Any]:
    started = process_identity.process_started(pid)
    return {**process_identity.this_process(), "pid": pid, "process_started": started}


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Lets no process go on behind the end of the `with` block: a signal is passed on to it, and its end waited for."""
    try:
        yield
    except BaseException as error:
        signum = error.signum if isinstance(error, Stopped) else signal.SIGTERM
        while process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signum)
            try:
                process.wait()
            except Stopped as again:
                signum = again.signum
        raise


class _Pipe:
    """Reads a pipe to its end on a thread, and copies it to a descriptor, if one is given."""

    _KEPT_BYTES = 64 << 20

    def __init__(self, stream: IO[bytes] | None, copy_to: int | None = None) -> None:
        assert stream is not None
        self.data = b""
        self._stream, self._copy_to = stream, copy_to
        self._thread = threading.Thread(target=self._read, name="a stage's output", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Waits until all is read, or for some seconds if another process keeps the pipe open."""
        self._thread.join(_DRAIN_S)

    def _read(self) -> None:
        with self._stream, contextlib.suppress(OSError):
            while data := os.read(self._stream.fileno(), _READ_BYTES):
                # Of a log the last line is wanted; results are few.
                self.data = (self.data + data)[-(_READ_BYTES if self._copy_to is not None else self._KEPT_BYTES) :]
                if self._copy_to is not None:
                    _copy(data, self._copy_to)


def _copy(data: bytes, descriptor: int) -> None:
    with contextlib.suppress(OSError):  # nobody reads the log: the stage goes on
        while data:
            data = data[os.write(descriptor, data) :]


def _json_lines(data: bytes) -> Iterator[Any]:
    for line in data.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            yield json.loads(line)


def _last_line(data: bytes) -> str:
    """The last line of a log; of a JSON log its message."""
    lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        return ""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(lines[-1])
        if isinstance(value, dict) and isinstance(value.get("message"), str):
            return str(value["message"])
    return lines[-1].strip()
