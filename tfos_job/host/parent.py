"""The one that has started this Python process, seen by it: `child.py` has the other side."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import Any

BEAT_S = 1.0


class Parent:
    """The line to the parent. To be made once, before anything else: it takes the place of standard input.

    From then on standard input is empty, for whoever reads it.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(0))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._lines = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def hear(self) -> Any:
        """The next message; None where the parent is gone."""
        try:
            line = self._lines.readline()
        except OSError:
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def say(self, **message: Any) -> bool:
        """Sends JSON values; False where the parent is gone."""
        data = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError:
            return False
        return True

    def beat(self) -> None:
        """From now on says `beat` every second: a sign of life during work that takes as long as it takes."""

        def beat() -> None:
            while self.say(beat=True):
                time.sleep(BEAT_S)

        threading.Thread(target=beat, name="beat", daemon=True).start()
