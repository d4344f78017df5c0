"""The memory that the bodies of all requests take together, from the reading of each to its answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Request

from tfos_job.serve.refusals import Full, WrongType

LIGHT_BYTES = 1 << 16
"""Of a body, or of a picture's file, that is read in next to no time."""
_MAX_BYTES = 512 << 20
_COPIES = 2  # of a body: what is read, and the parts of it, or what base64 stands for
_PER_VALUE_BYTES, _PER_KEY_BYTES = 64, 256  # of JSON: an empty list of three bytes takes sixty
_WIDEST_TEXT = 8  # bytes of memory for one of the body: an emoji makes all of a text four bytes wide, and its part, too


def is_light(request: Request) -> bool:
    """True for a body so small that whoever reads it may hold up others for that long."""
    return (request.content_length or 0) <= LIGHT_BYTES


class Bodies:
    """A budget of bytes. Threads may share it; who does not get what they need is refused and does not wait.

    Args:
      max_bytes: of all requests together. A request that is alone gets what it needs.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Of all shares."""
        return self._num_bytes

    @contextmanager
    def share(self) -> Iterator[Share]:
        """The share of one request, which is given back at the end of a `with` block."""
        share = Share(self)
        try:
            yield share
        finally:
            self._add(-share.num_bytes)

    def _add(self, num_bytes: int) -> None:
        with self._lock:
            self._num_bytes += num_bytes

    def _take(self, num_bytes: int, own_bytes: int) -> None:
        with self._lock:
            others_bytes = self._num_bytes - own_bytes
            if others_bytes and self._num_bytes + num_bytes > self._max_bytes:
                raise Full("the bodies of other requests take all the memory that there is for them", retry_after_s=1)
            self._num_bytes += num_bytes


class Share:
    """What one request has of the budget."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Takes more.

        Raises:
          Full: the requests of others have it.
        """
        self._bodies._take(num_bytes, self.num_bytes)
        self.num_bytes += num_bytes

    def take_request(self, request: Request) -> None:
        """Takes what the body of a request needs before it is looked into.

        Raises:
          Full: the requests of others have it.
          WrongType: it is compressed.
        """
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", ""):
            raise WrongType(f"a body in Content-Encoding {encoding[:80]!r} is not read. Send it as it is")
        self.take(_COPIES * (request.content_length or 0))

    def take_json(self, body: bytes, num_values: int) -> None:
        """Takes what the values of a JSON may need, of which the body has so many.

        Raises:
          Full: the requests of others have it.
        """
        is_narrow = body.isascii() and b"\\u" not in body
        text_bytes = len(body) * (_COPIES if is_narrow else _WIDEST_TEXT)
        self.take(text_bytes + num_values * _PER_VALUE_BYTES + body.count(b":") * _PER_KEY_BYTES)
