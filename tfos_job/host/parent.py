"""The parent process as its child sees it; `child.py` is the other side."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import threading
import time
from typing import Any

BEAT_S = 1.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def go_on_without_parent() -> None:
    """Lets the kernel continue this process, if it is stopped, when its parent ends.

    A stopped process (SIGSTOP) would not see that end, and would keep its ports and its memory. Continued, it sees it
    and cleans up as any other, which it could not do if the kernel killed it. "Parent" is the thread that started this
    process, which may end before its process does: SIGCONT does nothing to a process that runs.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


class Parent:
    """The connection to the parent. Create it once, at the start: it takes the socket from standard input.

    Standard input is empty from then on. If the parent ends, this process goes on, even if it was stopped.
    """

    def __init__(self) -> None:
        go_on_without_parent()
        self._socket = socket.socket(fileno=os.dup(0))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._lines = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def hear(self) -> Any:
        """Returns the next message; None if the parent has ended."""
        try:
            line = self._lines.readline()
        except OSError:
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def say(self, **message: Any) -> bool:
        """Sends JSON values; False if the parent has ended."""
        data = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError:
            return False
        return True

    def beat(self) -> None:
        """Starts a thread that sends `beat` every second, as a sign of life during long work."""

        def beat() -> None:
            while self.say(beat=True):
                time.sleep(BEAT_S)

        threading.Thread(target=beat, name="beat", daemon=True).start()
