"""The parent process as its child sees it; `child.py` is the other side."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import Any

BEAT_S = 1.0


class Parent:
    """The connection to the parent. Create it once, at the start: it takes the socket from standard input.

    Standard input is empty from then on.
    """

    def __init__(self) -> None:
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
