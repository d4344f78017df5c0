"""The driver's end of all lines: it puts their messages and their ends into one queue of events."""

from __future__ import annotations

import queue
import threading

from tfos_job.host import ports
from tfos_job.host.ports import PortRange
from tfos_job.protocol.door import Door, Guest
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure
from tfos_job.protocol.frames import LineClosed, LineSilent
from tfos_job.protocol.line import DRIVER, Line
from tfos_job.protocol.messages import Hello, ToDriver, ToNode
from tfos_job.protocol.topology import Task


class Switchboard:
    """The lines of one attempt, and its queue of events, to which others may add."""

    def __init__(self, host: str, key: bytes, port_range: PortRange | None = None, *, attempt: int = 0) -> None:
        """Listens on `host` alone (not on every interface), on a free port; turns callers of other attempts away.

        Raises:
          ResourceError: there is none.
        """
        self.events: queue.Queue[Joined | Said | Lost | Failure] = queue.Queue()
        self._key = key
        self._attempt = attempt
        self._lines: dict[Task, Line[ToDriver, ToNode]] = {}
        self._lock = threading.Lock()
        listener = ports.listen(host, port_range)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._door = Door("switchboard", listener, self._serve)
        self._door.open()

    def _serve(self, guest: Guest) -> None:
        line, task, hello = self._shake_hands(guest)
        line.start_beating()
        self.events.put(Joined(task, hello))
        try:
            while True:
                self.events.put(Said(task, line.receive()))
        except LineClosed as e:
            lost = Lost(task, str(e), is_silent=isinstance(e, LineSilent))
        finally:
            line.close()
            with self._lock:
                self._lines.pop(task, None)
        self.events.put(lost)  # after the removal: the receiver of `Lost` must find no line

    def _shake_hands(self, guest: Guest) -> tuple[Line[ToDriver, ToNode], Task, Hello]:
        """Makes a line of a connection; raises LineClosed for a peer that is none of this attempt's processes."""
        line = Line(guest.sock, self._key, DRIVER, self._attempt)
        hello = line.receive_any()
        if not isinstance(hello, Hello):
            raise LineClosed("a first message that is no hello")
        if hello.attempt != self._attempt:
            raise LineClosed(f"a process of attempt {hello.attempt}, and this is attempt {self._attempt}")
        task = Task(hello.role, hello.index)
        with self._lock:
            if task in self._lines:
                raise LineClosed(f"a second {task}")
            guest.admit()
            line.beat()  # the first that it hears: nobody else can send before the line is known
            self._lines[task] = line
        return line, task, hello

    def connected(self) -> set[Task]:
        """The tasks that are on the line."""
        with self._lock:
            return set(self._lines)

    def send(self, task: Task, message: ToNode) -> bool:
        """Sends a message; returns False if the task's line has ended, of which a `Lost` is or will be in the queue."""
        with self._lock:
            line = self._lines.get(task)
        if line is None:
            return False
        try:
            line.send(message)
        except LineClosed:
            return False
        return True

    def close(self) -> None:
        """Closes all lines: a node that still runs takes that for the driver's end, and ends itself."""
        self._door.close()
        with self._lock:
            lines = list(self._lines.values())
        for line in lines:
            line.close()
