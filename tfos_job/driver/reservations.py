"""The rendezvous of one attempt's nodes: TFoS's reservation server, in our own words.

TFoS's own one cannot be closed: its thread selects for a minute at a time, and holds its port that long. This one has
the port from the start, serves one attempt's key alone, and is gone at once when it is closed.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import threading
from typing import Any

from tfos_job.errors import ResourceError
from tfos_job.host import ports
from tfos_job.host.ports import PortRange
from tfos_job.nodes import tfos
from tfos_job.protocol.frames import LineClosed

log = logging.getLogger(__name__)

_REQUEST_LIMIT_S = 1.0  # one thread serves all, so a peer that sends slowly is disconnected


class ReservationServer:
    """What `TFCluster.run` calls a `reservation.Server`; its nodes are TFoS's own clients (`nodes/tfos.py`)."""

    def __init__(self, key: bytes, host: str, port_range: PortRange | None) -> None:
        """Takes the port, on `host` alone; serves nobody yet.

        Raises:
          ResourceError: there is no free port.
        """
        self._key = key
        self._listener = ports.listen(host, port_range)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._num_expected = 0
        self._reservations: list[Any] = []
        self._changed = threading.Condition()
        self._is_closed = False

    def expect(self, num_nodes: int) -> ReservationServer:
        """Takes the place of the constructor of TFoS's own."""
        self._num_expected = num_nodes
        return self

    def start(self) -> tuple[str, int]:
        """Serves on a thread of its own; returns the address for the nodes.

        Raises:
          ResourceError: it is closed already.
        """
        self._require_open()
        threading.Thread(target=self._serve, name="reservations", daemon=True).start()
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
            return list(self._reservations)

    def stop(self) -> None:
        """Closes the port and every connection. May be called again, and from any thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        ports.release(self._listener)  # which also wakes the thread that serves

    def _require_open(self) -> None:
        if self._is_closed:
            raise ResourceError("the rendezvous was closed before all nodes had come")

    def _is_complete(self) -> bool:
        return len(self._reservations) >= self._num_expected > 0

    def _serve(self) -> None:
        # Not by epoll, which forgets a socket that another thread closes, and would never return.
        with contextlib.ExitStack() as clients, selectors.PollSelector() as selector:
            with contextlib.suppress(ValueError):  # closed before
                selector.register(self._listener, selectors.EVENT_READ)
            while not self._is_closed:
                for found, _ in selector.select():
                    if found.fileobj is self._listener:
                        self._accept(selector, clients)
                    else:
                        self._answer(selector, found.fileobj)

    def _accept(self, selector: selectors.BaseSelector, clients: contextlib.ExitStack) -> None:
        with contextlib.suppress(OSError):  # closed, or the caller has gone again
            client, _ = self._listener.accept()
            clients.callback(client.close)
            selector.register(client, selectors.EVENT_READ)

    def _answer(self, selector: selectors.BaseSelector, client: Any) -> None:
        try:
            request = tfos.receive(self._key, client, _REQUEST_LIMIT_S)
            tfos.send(self._key, client, self._answer_to(request))
        except (LineClosed, OSError) as error:
            log.debug("the rendezvous turns away a connection: %s", error)
            selector.unregister(client)
            client.close()

    def _answer_to(self, request: dict[str, Any]) -> Any:
        with self._changed:
            match request["type"]:
                case "REG":
                    self._reservations.append(request["data"])
                    self._changed.notify_all()
                    return "OK"
                case "QUERY":
                    return self._is_complete()
                case "QINFO":
                    return list(self._reservations)
        return "ERR"
