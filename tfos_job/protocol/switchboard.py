"""The driver's end of all lines: it accepts connections, and puts messages and their ends into one queue of events."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from typing import Any

from tfos_job.host import ports
from tfos_job.host.ports import PortRange
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure
from tfos_job.protocol.frames import LineClosed, LineSilent
from tfos_job.protocol.line import BEAT_S, DRIVER, Line
from tfos_job.protocol.messages import Hello, ToDriver, ToNode
from tfos_job.protocol.topology import Task

log = logging.getLogger(__name__)

MAX_HALF_OPEN = 32
"""Connections at a time whose peers have not proved who they are: each takes a thread."""


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
        self._half_open: dict[socket.socket, None] = {}  # the oldest first
        self._lock = threading.Lock()
        self._closing = False
        self._server = ports.listen(host, port_range)
        self.address: tuple[str, int] = self._server.getsockname()[:2]
        threading.Thread(target=self._accept, name="switchboard", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._server.accept()
            except OSError as e:
                if self._closing:
                    return
                log.warning("Cannot accept a connection: %s", e)  # Too many open files: that may pass.
                time.sleep(BEAT_S)
                continue
            self._make_room_for(sock)
            threading.Thread(target=self._serve, args=(sock, peer), name=f"line-{peer}", daemon=True).start()

    def _make_room_for(self, sock: socket.socket) -> None:
        """Drops the oldest of too many half-open connections: a node's own becomes a line in milliseconds."""
        with self._lock:
            self._half_open[sock] = None
            while len(self._half_open) > MAX_HALF_OPEN:
                oldest = next(iter(self._half_open))
                del self._half_open[oldest]
                _hang_up(oldest)

    def _serve(self, sock: socket.socket, peer: Any) -> None:
        try:
            line, task, hello = self._shake_hands(sock)
        except (LineClosed, OSError) as e:
            log.warning("Turned away a connection from %s: %s", peer, e)
            with self._lock:
                self._half_open.pop(sock, None)
                sock.close()
            return
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

    def _shake_hands(self, sock: socket.socket) -> tuple[Line[ToDriver, ToNode], Task, Hello]:
        """Makes a line of a connection; raises LineClosed for a peer that is none of this attempt's processes."""
        line = Line(sock, self._key, DRIVER, self._attempt)
        hello = line.receive_first()
        if not isinstance(hello, Hello):
            raise LineClosed("a first message that is no hello")
        if hello.attempt != self._attempt:
            raise LineClosed(f"a process of attempt {hello.attempt}, and this is attempt {self._attempt}")
        task = Task(hello.role, hello.index)
        with self._lock:
            if self._closing:
                raise LineClosed("the attempt is over")
            if task in self._lines:
                raise LineClosed(f"a second {task}")
            if sock not in self._half_open:
                raise LineClosed(f"{MAX_HALF_OPEN} others came before it had said who it is")
            line.beat()  # the first that it hears: nobody else can send before the line is known
            del self._half_open[sock]
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
        self._closing = True
        # accept() is woken by shutdown(), not by close().
        _hang_up(self._server)
        self._server.close()
        with self._lock:
            lines = list(self._lines.values())
            for sock in self._half_open:
                _hang_up(sock)
        for line in lines:
            line.close()


def _hang_up(sock: socket.socket) -> None:
    """Ends a connection whose thread closes it: that thread wakes."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
