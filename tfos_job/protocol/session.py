"""One end of an authenticated connection: messages that count once, in one direction, for one purpose, in one attempt.

Each end contributes a nonce. Purpose, attempt and both nonces make the session's key of the attempt's key, and each
frame's HMAC covers its direction and number. So a frame can be neither forged, replayed in this connection or another
one, nor turned around; none of another attempt is read, and none of the control line at the rendezvous or the other
way round.

Until its first frame has proved right the other end is a stranger: that frame has to be there in the handshake's time,
and the end that listens reads no long one.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tfos_job.protocol import messages
from tfos_job.protocol.frames import MAX_FRAME_BYTES, LineClosed, LineSilent, read_exactly, seal, unseal

LINE = b"line"
RENDEZVOUS = b"rendezvous"
STRANGERS_BYTES = 64 << 10
"""The longest first frame that the driver reads."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_NONCE_BYTES = 16
_LEAST_S = 1e-3
_DRIVERS, _NODES = b"d", b"n"  # whose frame it is

Called = TypeVar("Called")


class Session:
    """One end of an authenticated connection. `send` may be called from any thread, `receive` from one."""

    def __init__(
        self,
        sock: socket.socket,
        key: bytes,
        *,
        is_driver: bool,
        purpose: bytes,
        attempt: int,
        handshake_s: float,
        silence_s: float,
    ) -> None:
        """Exchanges the nonces. The socket is the session's from now on.

        Args:
          sock: the connection.
          key: of the attempt.
          is_driver: True for the end that has accepted the connection.
          purpose: `LINE` or `RENDEZVOUS`.
          attempt: its number.
          handshake_s: in which the other end's nonce and its first frame must have come.
          silence_s: the longest time between two parts of what it sends later.

        Raises:
          LineClosed: the end of the stream.
          OSError: the connection is reset, or the time is over.
        """
        self._sock = sock
        self._sending, self._receiving = (_DRIVERS, _NODES) if is_driver else (_NODES, _DRIVERS)
        self._handshake_s, self._silence_s = handshake_s, silence_s
        self._deadline = time.monotonic() + handshake_s
        sock.settimeout(handshake_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mine = secrets.token_bytes(_NONCE_BYTES)
        sock.sendall(mine)
        theirs = read_exactly(sock, _NONCE_BYTES, self._deadline)
        nonces = mine + theirs if is_driver else theirs + mine
        context = len(purpose).to_bytes(1, "big") + purpose + attempt.to_bytes(8, "big") + nonces
        self._key = hmac.digest(key, context, "sha256")
        self._num_sent = self._num_received = 0
        self._send_lock = threading.Lock()
        sock.settimeout(silence_s)

    def send(self, message: Any) -> None:
        """Sends a message of `messages.py`, or one like it; raises LineClosed if the other end is gone."""
        payload = messages.encode(message)
        with self._send_lock:
            try:
                context = self._sending + self._num_sent.to_bytes(8, "big")
                self._sock.sendall(seal(self._key, context, payload))
            except OSError as e:
                raise LineClosed(str(e) or type(e).__name__) from e
            self._num_sent += 1

    def receive(self, accepted: Any) -> Any:
        """The next message.

        Args:
          accepted: the class, or the union of the classes, that the other end may send.

        Raises:
          LineClosed: the other end is gone, or not who it claims to be.
          LineSilent: it has said nothing for too long.
        """
        is_first = not self._num_received
        limit_s = max(self._deadline - time.monotonic(), _LEAST_S) if is_first else None
        max_bytes = STRANGERS_BYTES if is_first and self._receiving == _NODES else MAX_FRAME_BYTES
        try:
            context = self._receiving + self._num_received.to_bytes(8, "big")
            payload = unseal(self._key, context, self._sock, limit_s, max_bytes)
            if is_first:
                self._sock.settimeout(self._silence_s)
        except TimeoutError as e:
            raise LineSilent(f"silent for {self._handshake_s if is_first else self._silence_s:.0f} s") from e
        except OSError as e:
            raise LineClosed(str(e) or type(e).__name__) from e
        self._num_received += 1
        try:
            return messages.decode(payload, accepted)
        except (ValueError, RecursionError) as e:
            raise LineClosed(f"a message that is none of this version's: {payload[:80]!r}") from e

    def close(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The other end was faster.
        self._sock.close()


def connected(address: tuple[str, int], make: Callable[[socket.socket], Called], timeout_s: float) -> Called:
    """What `make` makes of a new connection, which is closed if it fails.

    Raises:
      OSError: there is no connection in `timeout_s`.
    """
    sock = socket.create_connection(address, timeout=timeout_s)
    try:
        return make(sock)
    except BaseException:
        sock.close()
        raise


def persistently(call: Callable[[], Called], address: tuple[str, int], limit_s: float) -> Called:
    """Calls the driver again while the connection is refused, reset, dropped or silent.

    Args:
      call: raises LineClosed or OSError where another call may go well.
      address: of the driver, for the error.
      limit_s: in which it calls again.

    Raises:
      LineClosed: that time is over.
    """
    deadline = time.monotonic() + limit_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return call()
        except (LineClosed, OSError) as e:
            if time.monotonic() + pause_s > deadline:
                raise LineClosed(f"cannot reach the driver at {address[0]}:{address[1]}: {e}") from e
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
