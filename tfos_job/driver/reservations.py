"""The rendezvous of one attempt's nodes: TFoS's reservation server, in our own words.

TFoS's own one cannot be closed: its thread selects for a minute at a time, and holds its port that long. This one has
the port from the start, serves one attempt's key alone, and is gone at once when it is closed.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from tfos_job.errors import ResourceError
from tfos_job.host import ports
from tfos_job.host.ports import PortRange
from tfos_job.nodes import tfos
from tfos_job.protocol import rendezvous
from tfos_job.protocol.door import Door, Guest
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.rendezvous import Node, Nodes, Over, Register, Request


class ReservationServer:
    """What `TFCluster.run` calls a `reservation.Server`; its nodes are TFoS's own clients (`nodes/tfos.py`)."""

    def __init__(self, key: bytes, host: str, port_range: PortRange | None, *, attempt: int = 0) -> None:
        """Takes the port, on `host` alone; serves nobody yet.

        Raises:
          ResourceError: there is no free port.
        """
        self._key = key
        self._attempt = attempt
        listener = ports.listen(host, port_range)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._door = Door("rendezvous", listener, self._serve)
        self._num_expected = 0
        self._nodes: dict[int, Node] = {}  # by their Spark tasks
        self._changed = threading.Condition()
        self._is_closed = False

    def expect(self, num_nodes: int) -> ReservationServer:
        """Takes the place of the constructor of TFoS's own."""
        self._num_expected = num_nodes
        return self

    def start(self) -> tuple[str, int]:
        """Serves on threads of its own; returns the address for the nodes.

        Raises:
          ResourceError: it is closed already.
        """
        self._require_open()
        self._door.open()
        return self.address

    def await_reservations(self, sc: Any, status: Any, timeout: int) -> list[Any]:
        """Waits until all nodes have come; the attempt, which knows whom it misses, has the time limit.

        Args:
          sc: unused, as are `status` and `timeout`: TFoS would stop the context and the process on an error.

        Raises:
          ResourceError: the server was closed before.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._is_complete())
            if not self._is_complete():
                self._require_open()
            return [tfos.reservation(node) for node in self._nodes.values()]

    def stop(self) -> None:
        """Closes the port and every connection. May be called again, and from any thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._door.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ResourceError("the rendezvous was closed before all nodes had come")

    def _is_complete(self) -> bool:
        return len(self._nodes) >= self._num_expected > 0

    def _serve(self, guest: Guest) -> None:
        session = rendezvous.accepted_session(guest.sock, self._key, self._attempt)
        request = session.receive(Request)
        guest.admit()
        try:
            while not self._is_closed:
                session.send(self._answer_to(request))
                request = session.receive(Request)
        finally:
            if self._is_closed:
                with contextlib.suppress(LineClosed):
                    session.send(Over())

    def _answer_to(self, request: Request) -> Nodes:
        with self._changed:
            if isinstance(request, Register):
                known = self._nodes.setdefault(request.node.executor_id, request.node)
                if known != request.node:  # an equal one has asked again, since it had no answer
                    raise LineClosed(f"{request.node} in place of {known}")
                self._changed.notify_all()
            return Nodes(list(self._nodes.values()), self._is_complete())
