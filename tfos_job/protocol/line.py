"""The authenticated line between the driver and each of its processes (supervisors and coordinator alike).

A line is one TCP connection that carries JSON frames. The 32-byte key reaches the nodes inside Spark's own task and the
coordinator through its stdin, never through a log or a command line. Each side contributes a nonce to the key of the
session, which the attempt's number is in as well, and each frame's HMAC covers its direction and number, so that a
frame can be neither forged, replayed nor turned around, and none of another attempt is read. JSON, never pickle: bytes
of a peer without the key are thrown away unread.

A caller says hello, and the driver answers with a beat: then the line is established. Until then a caller whose
connection is refused, reset or silent calls again; afterwards each of these is the end of the line. Both ends send a
beat every second. An end that reads nothing for `SILENCE_S` takes the other for dead, a closed connection says so at
once.
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
from tfos_job.protocol.frames import LineClosed, LineSilent, read_exactly, seal, unseal
from tfos_job.protocol.messages import Beat, Hello, ToDriver, ToNode

BEAT_S = 1.0
SILENCE_S = 20.0
HANDSHAKE_TIMEOUT_S = 10.0
CALL_S = 30.0
"""Time in which a caller calls again."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_NONCE_BYTES = 16
_LEAST_S = 1e-3

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
        self._deadline = time.monotonic() + HANDSHAKE_TIMEOUT_S  # of the handshake
        sock.settimeout(HANDSHAKE_TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mine = secrets.token_bytes(_NONCE_BYTES)
        sock.sendall(mine)
        theirs = read_exactly(sock, _NONCE_BYTES, self._deadline)
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
        with self._send_lock:
            try:
                context = self._end.outgoing + self._num_sent.to_bytes(8, "big")
                self._sock.sendall(seal(self._key, context, messages.encode(message)))
            except OSError as e:
                raise LineClosed(str(e) or type(e).__name__) from e
            self._num_sent += 1

    def receive(self) -> Incoming:
        """The next message that is no beat. Raises LineClosed, also after `SILENCE_S` without a frame."""
        while True:
            message = self._receive(None)
            if not isinstance(message, Beat):
                return message

    def receive_first(self) -> Incoming | Beat:
        """The first message of a peer that has not proved who it is: it must be there in the handshake's time."""
        message = self._receive(max(self._deadline - time.monotonic(), _LEAST_S))
        self._sock.settimeout(SILENCE_S)
        return message

    def _receive(self, limit_s: float | None) -> Incoming | Beat:
        context = self._end.incoming + self._num_received.to_bytes(8, "big")
        try:
            payload = unseal(self._key, context, self._sock, limit_s)
        except TimeoutError as e:
            raise LineSilent(f"silent for {HANDSHAKE_TIMEOUT_S if limit_s else SILENCE_S:.0f} s") from e
        except OSError as e:
            raise LineClosed(str(e) or type(e).__name__) from e
        self._num_received += 1
        try:
            message: Incoming | Beat = messages.decode(payload, self._end.accepted)
        except ValueError as e:
            raise LineClosed(f"a message that is none of this version's: {payload[:80]!r}") from e
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
    """Opens a node's line to the driver, says hello and hears that the driver has understood.

    Raises:
      LineClosed: it has not in `CALL_S`.
    """
    deadline = time.monotonic() + CALL_S
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return _call(address, key, hello)
        except (LineClosed, OSError) as e:
            if time.monotonic() + pause_s > deadline:
                raise LineClosed(f"cannot reach the driver at {address[0]}:{address[1]}: {e}") from e
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _call(address: tuple[str, int], key: bytes, hello: Hello) -> NodeLine:
    sock = socket.create_connection(address, timeout=HANDSHAKE_TIMEOUT_S)
    try:
        line = Line(sock, key, NODE, hello.attempt)
        line.send(hello)
        if not isinstance(line.receive_first(), Beat):
            raise LineClosed("a first message that is no beat")
    except BaseException:
        sock.close()
        raise
    line.start_beating()
    return line


def own_address(peer: tuple[str, int]) -> str:
    """The address of the interface that leads to `peer`. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])
