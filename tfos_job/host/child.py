"""A Python child process as its parent sees it: messages to and from it, and its end.

Both exchange lines of JSON through a socket, which the child has as its standard input (`parent.py` is its side). The
child's standard output and standard error are one stream, its log, so output of a library, a user's network or the
interpreter is never mistaken for a message.

No call waits without a limit: a thread sends the messages, and a process that does not end after SIGKILL (it waits for
a disk or a kernel driver) is abandoned with a warning.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from tfos_job.host import process_environment

log = logging.getLogger(__name__)

_STDERR = 2
KILL_WAIT_S = 10.0
"""Time limit for the end of a killed process: it takes milliseconds, unless the kernel holds the process."""


def child_environment(visible_gpus: str) -> dict[str, str]:
    """Returns this process's environment, adjusted, for a child that sees only these GPUs.

    The child has this process's import path: `python -m` would search the working directory first, which may contain a
    user's `queue.py`.
    """
    found = process_environment.settled()
    found["PYTHONPATH"] = module_path()
    found["PYTHONSAFEPATH"] = "1"
    found["CUDA_VISIBLE_DEVICES"] = visible_gpus
    found.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    return found


def module_path() -> str:
    """Returns this process's import path, for the PYTHONPATH of another one."""
    return os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)


def end_in_words(code: int) -> str:
    """Describes the end of a process: `was killed by SIGKILL`, `ended with exit code 3`."""
    return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def signal_name(signum: int) -> str:
    """Returns `SIGKILL` for 9, and `signal 70` for a signal without a name."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def end(process: subprocess.Popen[Any], name: str, grace_s: float = 0.0) -> int | None:
    """Ends a process: waits for it, kills it, and abandons it if the kernel does not end it.

    Args:
      process: running or ended.
      name: for the log.
      grace_s: time for the process to end by itself.

    Returns:
      Its exit code; None if it is abandoned.
    """
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
    try:
        return process.wait(KILL_WAIT_S)
    except subprocess.TimeoutExpired:
        log.warning("%s (process %d) does not end though it was killed, and is left behind", name, process.pid)
        return None


class Child:
    """A process `python -m MODULE` in a session of its own, so that only its parent receives a terminal's Ctrl-C."""

    def __init__(
        self,
        module: str,
        *,
        name: str,
        env: Mapping[str, str],
        output: IO[Any] | None = None,
        cwd: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Starts the process.

        Args:
          module: receives its messages through `parent.Parent`.
          name: description for the log.
          env: from `child_environment`.
          output: file for its output (default: this process's standard error).
          cwd: its working directory (default: this process's).
          pass_fds: descriptors that it inherits.
        """
        self.name = name
        self._socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=theirs.fileno(),
                stdout=_STDERR if output is None else output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=env,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        self._lines = self._socket.makefile("rb")
        self._orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._sender: threading.Thread | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        """Returns the exit code; None while the process runs."""
        return self.process.poll()

    def wait(self) -> int:
        """Waits for the end and returns the exit code; without a time limit, for a thread of its own."""
        return self.process.wait()

    def tell(self, message: Any) -> None:
        """Sends a message of JSON values. Returns at once, whether or not the process reads it."""
        self._orders.put(json.dumps(message).encode() + b"\n")
        if self._sender is None:
            self._sender = threading.Thread(target=self._send, name=f"orders of {self.name}", daemon=True)
            self._sender.start()

    def _send(self) -> None:
        try:
            while order := self._orders.get():
                self._socket.sendall(order)
        except OSError:
            pass  # the process has ended, or is being ended

    def hear(self, limit_s: float | None = None) -> Any:
        """Returns the next message; None if there are no more.

        Args:
          limit_s: time limit; None: unlimited.

        Raises:
          TimeoutError: no message arrived in time. No further message can be read after that.
        """
        self._socket.settimeout(limit_s)
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise
        except (OSError, ValueError):  # the process ended with unread messages; or the socket was closed here
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def hang_up(self) -> None:
        """Ends the connection: the process then ends as if its parent had ended."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def end(self, grace_s: float = 0.0) -> int | None:
        """Ends the process, as the function `end` does, and closes the socket."""
        code = end(self.process, self.name, grace_s)
        self._orders.put(b"")
        self.hang_up()
        self._lines.close()
        self._socket.close()
        return code
