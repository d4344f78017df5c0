"""The authenticated line between the driver and each of its processes (supervisors and coordinator alike).

A line is one TCP connection that carries JSON frames. The 32-byte key reaches the nodes inside Spark's own task and the
coordinator through its stdin, never through a log or a command line. Each side contributes a nonce to the key of the
session, which the attempt's number is in as well, and each frame's HMAC covers its direction and number, so that a
frame can be neither forged, replayed nor turned around, and none of another attempt is read. JSON, never pickle: bytes
of a peer without the key are thrown away unread.

Both ends send a beat every second. An end that reads nothing for `SILENCE_S` takes the other for dead, a closed
connection says so at once.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tfos_job.protocol import messages
from tfos_job.protocol.frames import LineClosed, read_exactly, seal, unseal
from tfos_job.protocol.messages import Beat, Hello, ToDriver, ToNode

BEAT_S = 1.0
SILENCE_S = 20.0
HANDSHAKE_TIMEOUT_S = 10.0
_NONCE_BYTES = 16

Incoming = TypeVar("Incoming")
Outgoing = TypeVar("Outgoing")


@dataclass(frozen=True)
class End(Generic[Incoming, Outgoing]):
    """One of the two ends of every line.

    Attributes:
      outgoing: marks the direction of the frames that it sends.
      incoming: marks the direction of those that it reads.
      accepted: the messages that it understands.
    """

    outgoing: bytes
    incoming: bytes
    accepted: Any


DRIVER: End[ToDriver, ToNode] = End(b"d", b"n", ToDriver | Beat)
NODE: End[ToNode, ToDriver] = End(b"n", b"d", ToNode | Beat)


class Line(Generic[Incoming, Outgoing]):
    """One end of an authenticated connection. `send` may be called from any thread, `receive` from one."""

    def __init__(self, sock: socket.socket, key: bytes, end: End[Incoming, Outgoing], attempt: int = 0) -> None:
        self._sock = sock
        self._end = end
        sock.settimeout(HANDSHAKE_TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mine = secrets.token_bytes(_NONCE_BYTES)
        sock.sendall(mine)
        theirs = read_exactly(sock, _NONCE_BYTES, time.monotonic() + HANDSHAKE_TIMEOUT_S)
        is_driver = end.outgoing == DRIVER.outgoing
        nonces = mine + theirs if is_driver else theirs + mine
        self._key = hmac.digest(key, attempt.to_bytes(8, "big") + nonces, "sha256")
        self._num_sent = self._num_received = 0
        self._send_lock = threading.Lock()
        self._closed = threading.Event()
        sock.settimeout(SILENCE_S)

    def start_beating(self) -> None:
        threading.Thread(target=self._beat, name="line-beat", daemon=True).start()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            try:
                self._send(Beat())
            except LineClosed:
                return

    def send(self, message: Outgoing) -> None:
        """Raises LineClosed if the other end is gone."""
        self._send(message)

    def _send(self, message: Any) -> None:
        with self._send_lock:
            try:
                context = self._end.outgoing + self._num_sent.to_bytes(8, "big")
                self._sock.sendall(seal(self._key, context, messages.encode(message)))
            except OSError as e:
                raise LineClosed(str(e) or type(e).__name__) from e
            self._num_sent += 1

    def receive(self) -> Incoming:
        """The next message that is no beat. Raises LineClosed, also after `SILENCE_S` without a frame."""
        return self._receive(None)

    def receive_first(self) -> Incoming:
        """The first message of a peer that has not proved who it is: its whole frame must be there in time."""
        return self._receive(HANDSHAKE_TIMEOUT_S)

    def _receive(self, limit_s: float | None) -> Incoming:
        while True:
            context = self._end.incoming + self._num_received.to_bytes(8, "big")
            try:
                payload = unseal(self._key, context, self._sock, limit_s)
            except TimeoutError as e:
                raise LineClosed(f"silent for {limit_s or SILENCE_S:.0f} s") from e
            except OSError as e:
                raise LineClosed(str(e) or type(e).__name__) from e
            if limit_s is not None:
                self._sock.settimeout(SILENCE_S)
            self._num_received += 1
            try:
                message = messages.decode(payload, self._end.accepted)
            except ValueError as e:
                raise LineClosed(f"a message that is none of this version's: {payload[:80]!r}") from e
            if not isinstance(message, Beat):
                return message

    def close(self) -> None:
        self._closed.set()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The other end was faster.
        self._sock.close()


NodeLine = Line[ToNode, ToDriver]
"""A node's or the coordinator's end."""


def call_driver(address: tuple[str, int], key: bytes, hello: Hello) -> NodeLine:
    """Opens a node's line to the driver and says hello."""
    line = Line(socket.create_connection(address, timeout=HANDSHAKE_TIMEOUT_S), key, NODE, hello.attempt)
    line.send(hello)
    line.start_beating()
    return line


def own_address(peer: tuple[str, int]) -> str:
    """The address of the interface that leads to `peer`. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])
