"""A Python process of ours, seen by the one that has started it: its orders, its words, its end.

The two talk through a socket, which the child finds in the place of its standard input (`parent.py` has its side):
lines of JSON, either way. Its standard output and its standard error are one stream, its log. So whatever a library, a
user's network or the interpreter itself prints, it is never taken for an answer.

No call here waits without an end: orders are sent by a thread, and a process that does not end though it was killed
(one that waits for a disk or a driver of the kernel) is left behind, and said.
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

from tfos_job.host import environment

log = logging.getLogger(__name__)

_STDERR = 2
KILL_WAIT_S = 10.0
"""How long the end of a killed process is waited for: it takes milliseconds, unless the kernel holds it."""


def child_environment(visible_gpus: str) -> dict[str, str]:
    """This process's environment, settled, for a child that sees these GPUs alone.

    The child imports what this process would, and from nowhere else: `python -m` alone would look into the working
    directory first, where a user's `queue.py` may lie.
    """
    found = environment.settled()
    found["PYTHONPATH"] = module_path()
    found["PYTHONSAFEPATH"] = "1"
    found["CUDA_VISIBLE_DEVICES"] = visible_gpus
    found.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    return found


def module_path() -> str:
    """Where this process finds modules, for the PYTHONPATH of another one."""
    return os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)


def end_in_words(code: int) -> str:
    """How a process ended: `was killed by SIGKILL`, `ended with exit code 3`."""
    return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def signal_name(signum: int) -> str:
    """`SIGKILL` for 9; `signal 70` for one without a name."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def end(process: subprocess.Popen[Any], name: str, grace_s: float = 0.0) -> int | None:
    """Ends a process: waits for it, kills it, and gives up where the kernel does not let it go.

    Args:
      process: it may have ended already.
      name: for the log.
      grace_s: how long it may take to end by itself.

    Returns:
      Its exit code; None where it is left behind.
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
    """`python -m MODULE` in a session of its own: a Ctrl-C at the terminal is its parent's to handle."""

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
        """Starts it.

        Args:
          module: takes its orders through `parent.Parent`.
          name: in words, for the log.
          env: from `child_environment`.
          output: where all that it prints goes; None for this process's standard error.
          cwd: its working directory; None for this process's.
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
        """Its exit code; None while it runs."""
        return self.process.poll()

    def wait(self) -> int:
        """Its exit code, at its end; for a thread that has nothing else to do."""
        return self.process.wait()

    def tell(self, message: Any) -> None:
        """Gives it a message of JSON values. Returns at once: whether it reads, and lives, is seen by other signs."""
        self._orders.put(json.dumps(message).encode() + b"\n")
        if self._sender is None:
            self._sender = threading.Thread(target=self._send, name=f"orders of {self.name}", daemon=True)
            self._sender.start()

    def _send(self) -> None:
        try:
            while order := self._orders.get():
                self._socket.sendall(order)
        except OSError:
            pass  # It has ended, or is being ended.

    def hear(self, limit_s: float | None = None) -> Any:
        """Its next message; None where there will be no more.

        Args:
          limit_s: how long to wait; None for ever.

        Raises:
          TimeoutError: there was none by then. Nothing more can be heard after that.
        """
        self._socket.settimeout(limit_s)
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise
        except (OSError, ValueError):  # it has ended with words of ours unread; or the line was ended here
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def hang_up(self) -> None:
        """Lets it know that its parent is gone."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def end(self, grace_s: float = 0.0) -> int | None:
        """Ends it, as the function `end` does, and the line to it."""
        code = end(self.process, self.name, grace_s)
        self._orders.put(b"")
        self.hang_up()
        self._lines.close()
        self._socket.close()
        return code
