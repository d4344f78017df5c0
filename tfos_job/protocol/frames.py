"""Frames on a socket: length, HMAC-SHA256, payload. Nothing in a payload is parsed before its HMAC is verified."""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
import time

KEY_BYTES = 32
MAX_FRAME_BYTES = 16 << 20
_LENGTH = struct.Struct(">I")
_MAC_BYTES = 32


class LineClosed(Exception):
    """The other end is gone, silent, or not who it claims to be."""


class LineSilent(LineClosed):
    """Nothing was heard of the other end for so long that its host may be cut off."""


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def read_exactly(sock: socket.socket, num_bytes: int, deadline: float | None = None) -> bytes:
    """Reads `size` bytes from a socket.

    Args:
      sock: its own timeout holds for each part that arrives.
      num_bytes: how many.
      deadline: of `time.monotonic`, for the whole: a byte now and then does not put it off.

    Raises:
      LineClosed: the end of the stream.
      TimeoutError: one of the two times is over.
    """
    parts = bytearray()
    while len(parts) < num_bytes:
        if deadline is not None:
            sock.settimeout(max(deadline - time.monotonic(), 1e-3))
        chunk = sock.recv(min(num_bytes - len(parts), 1 << 16))
        if not chunk:
            raise LineClosed("connection closed")
        parts += chunk
    return bytes(parts)


def seal(key: bytes, context: bytes, payload: bytes) -> bytes:
    """One frame; its HMAC covers context and payload."""
    return _LENGTH.pack(len(payload)) + hmac.digest(key, context + payload, "sha256") + payload


def unseal(
    key: bytes,
    context: bytes,
    sock: socket.socket,
    limit_s: float | None = None,
    max_bytes: int = MAX_FRAME_BYTES,
) -> bytes:
    """Reads one frame and returns its payload; raises LineClosed unless its HMAC is right.

    `limit_s` is for the whole frame, and stays the socket's timeout. A payload of more than `max_bytes` is not read.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s
    (length,) = _LENGTH.unpack(read_exactly(sock, _LENGTH.size, deadline))
    if length > max_bytes:
        raise LineClosed(f"a frame of {length} bytes")
    mac = read_exactly(sock, _MAC_BYTES, deadline)
    payload = read_exactly(sock, length, deadline)
    if not hmac.compare_digest(mac, hmac.digest(key, context + payload, "sha256")):
        raise LineClosed("a frame with a wrong signature")
    return payload
