"""The authenticated line between the driver and each of its processes (supervisors and coordinator alike).

A line is one TCP connection that carries JSON in the frames of a `Session`. The 32-byte key reaches the nodes inside
Spark's own task and the coordinator through its stdin, never through a log or a command line. JSON, never pickle: bytes
of a peer without the key are thrown away unread.

A caller says hello, and the driver answers with a beat: then the line is established. Until then a caller whose
connection is refused, reset or silent calls again; afterwards each of these is the end of the line. Both ends send a
beat every second. An end that reads nothing for `SILENCE_S` takes the other for dead, a closed connection says so at
once.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tfos_job.protocol import session
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.messages import Beat, Hello, ToDriver, ToNode
from tfos_job.protocol.session import Session

BEAT_S = 1.0
SILENCE_S = 20.0
HANDSHAKE_TIMEOUT_S = 10.0
CALL_S = 30.0
"""Time in which a caller calls again."""

Incoming = TypeVar("Incoming")
Outgoing = TypeVar("Outgoing")


@dataclass(frozen=True)
class End(Generic[Incoming, Outgoing]):
    """One of the two ends of every line.

    Attributes:
      is_driver: True for the driver's, which has accepted the connection.
      accepted: the messages that it understands.
    """

    is_driver: bool
    accepted: Any


DRIVER: End[ToDriver, ToNode] = End(True, ToDriver | Beat)
NODE: End[ToNode, ToDriver] = End(False, ToNode | Beat)


class Line(Generic[Incoming, Outgoing]):
    """One end of an authenticated connection. `send` may be called from any thread, `receive` from one."""

    def __init__(self, sock: socket.socket, key: bytes, end: End[Incoming, Outgoing], attempt: int = 0) -> None:
        self._end = end
        self._session = Session(
            sock,
            key,
            is_driver=end.is_driver,
            purpose=session.LINE,
            attempt=attempt,
            handshake_s=HANDSHAKE_TIMEOUT_S,
            silence_s=SILENCE_S,
        )
        self._closed = threading.Event()

    def start_beating(self) -> None:
        threading.Thread(target=self._beat, name="line-beat", daemon=True).start()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            try:
                self.beat()
            except LineClosed:
                return

    def beat(self) -> None:
        """Raises LineClosed if the other end is gone."""
        self._send(Beat())

    def send(self, message: Outgoing) -> None:
        """Raises LineClosed if the other end is gone."""
        self._send(message)

    def _send(self, message: Any) -> None:
        self._session.send(message)

    def receive(self) -> Incoming:
        """The next message that is no beat. Raises LineClosed, also after `SILENCE_S` without a frame."""
        while True:
            message = self.receive_any()
            if not isinstance(message, Beat):
                return message

    def receive_any(self) -> Incoming | Beat:
        """The next message. Raises as `receive` does; the first one must be there in the handshake's time."""
        message: Incoming | Beat = self._session.receive(self._end.accepted)
        return message

    def close(self) -> None:
        self._closed.set()
        self._session.close()


NodeLine = Line[ToNode, ToDriver]
"""A node's or the coordinator's end."""


def call_driver(address: tuple[str, int], key: bytes, hello: Hello) -> NodeLine:
    """Opens a node's line to the driver, says hello and hears that the driver has understood.

    Raises:
      LineClosed: it has not in `CALL_S`.
    """
    return session.persistently(lambda: _call(address, key, hello), address, CALL_S)


def _call(address: tuple[str, int], key: bytes, hello: Hello) -> NodeLine:
    def say_hello(sock: socket.socket) -> NodeLine:
        line = Line(sock, key, NODE, hello.attempt)
        line.send(hello)
        if not isinstance(line.receive_any(), Beat):
            raise LineClosed("a first message that is no beat")
        return line

    line = session.connected(address, say_hello, HANDSHAKE_TIMEOUT_S)
    line.start_beating()
    return line


def own_address(peer: tuple[str, int]) -> str:
    """The address of the interface that leads to `peer`. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])
