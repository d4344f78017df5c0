"""A node, the key of its lines, and the driver's end of them, as tests of lines use them."""

from __future__ import annotations

from typing import Any

from tests.unit.waits import PATIENCE_S
from tfos_job.protocol.frames import new_key
from tfos_job.protocol.messages import Hello
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import WORKER, Task

KEY = new_key()
HELLO = Hello(WORKER, 0, "127.0.0.1", 42, 4242)
TASK = Task(WORKER, 0)


def event(board: Switchboard) -> Any:
    return board.events.get(timeout=PATIENCE_S)
