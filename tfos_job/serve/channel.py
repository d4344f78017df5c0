"""Connections of waitress, with what it lacks: errors in JSON, the time of arrival, an end that loses no answer.

waitress 3.0 also closes the connection, or waits for what never comes, where a request is odd in a way that it has no
error for. Here each of them gets an answer.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.receiver import ChunkedReceiver
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import BadRequest, Error, RequestEntityTooLarge

BEGAN_S = "tfos_job.began_s"
"""In WSGI's environment: when the first byte of the request was read, of `time.monotonic`."""
_LINGER_S = 2.0
_FRAME_BYTES = 16 << 10  # of a line or a trailer between the chunks of a body, which waitress copies at every byte


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A request that never reached the application; method and path are empty as far as they did not come."""

    client: str
    method: str
    path: str
    status: int
    began_s: float


class TooSlow(Error):
    """A request that did not come in time."""

    code, reason = 408, "Request Timeout"


class Parser(HTTPRequestParser):
    """A request that is being read."""

    command = path = ""  # which waitress names in its log, also of a request that has none

    def __init__(self, adjustments: Any) -> None:
        super().__init__(adjustments)
        self.began_s = time.monotonic()

    def received(self, data: bytes) -> int:
        """Takes bytes, and returns how many; of a request that cannot be understood all."""
        try:
            consumed: int = super().received(data)
        except ValueError as error:  # a number of thousands of digits, a URL with half an address
            self._fail(str(error).partition(";")[0])
            return len(data)
        body = self.body_rcv
        if isinstance(body, ChunkedReceiver) and len(body.control_line) + len(body.trailer) > _FRAME_BYTES:
            self._fail(f"more than {_FRAME_BYTES} bytes between chunks")
            return len(data)
        return consumed

    def _fail(self, fact: str) -> None:
        self.error, self.completed = BadRequest(fact), True


class Task(WSGITask):
    """A request that the application answers. Once the server drains, its connection ends with the last one there."""

    wrote_header = False

    def execute(self) -> None:
        is_last = len(self.channel.requests) == 1 and self.channel.request is None
        if self.channel.server.is_draining and is_last:
            self.request.headers["CONNECTION"] = "close"
        super().execute()

    def write(self, data: bytes) -> None:
        """Writes a part of the body; all of it goes with its head, in one packet: each write costs a system call."""
        if self.wrote_header or not self.complete or not self.has_body or not data or self.content_length != len(data):
            super().write(data)
            return
        head: bytes = self.build_response_header()
        self.wrote_header, self.content_bytes_written = True, len(data)
        self.channel.write_soon(head + data)

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[BEGAN_S] = self.request.began_s
        # Of HTTP/1.0, which knows no such header: the body was read by its length.
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return environ


class BrokenRequest(ErrorTask):
    """A request that is no HTTP, or too large: it never reaches the application."""

    def execute(self) -> None:
        error = self.request.error
        fact = f"{error.reason}: {error.body}"
        if isinstance(error, RequestEntityTooLarge):
            fact = f"the body is larger than {self.channel.adj.max_request_body_size - 1} bytes"
        body = json.dumps({"error": fact}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.channel.has_unread = True
        self.channel.server.on_broken(
            Broken(
                client=self.channel.addr[0],
                method=self.request.command,
                path=self.request.path,
                status=error.code,
                began_s=self.request.began_s,
            )
        )
        self.write(body)


class Channel(HTTPChannel):
    """A connection.

    A request may be refused before all of it is read. To close the connection then would reset it, and the caller,
    still writing, would never see why. So what still comes is read and thrown away for some time.

    Attributes:
      has_unread: whether a request was refused that may not have come in full.
      lingers_until_s: when the rest is no longer waited for, of `time.monotonic`; None as long as the connection is
        used.
    """

    parser_class = Parser
    task_class = Task
    error_task_class = BrokenRequest
    request: Any
    has_unread = False
    lingers_until_s: float | None = None
    _untaken_since_s: float | None = None

    @property
    def is_busy(self) -> bool:
        """True while a request is read or answered."""
        return bool(self.requests) or self.request is not None or self.total_outbufs_len > 0

    @property
    def is_awaited(self) -> bool:
        """True while nothing is done for it but to wait for what the caller sends."""
        return not self.requests and not self.total_outbufs_len and self.lingers_until_s is None

    def readable(self) -> bool:
        return self.lingers_until_s is not None or bool(super().readable())

    def writable(self) -> bool:
        return self.lingers_until_s is None and bool(super().writable())

    def handle_read(self) -> None:
        if self.lingers_until_s is None:
            super().handle_read()
            return
        try:
            self.recv(self.adj.recv_bytes)
        except OSError:
            self.handle_close()

    def handle_close(self) -> None:
        if self.has_unread and self.connected and self.lingers_until_s is None and not self.total_outbufs_len:
            self.lingers_until_s = time.monotonic() + _LINGER_S
            try:
                self.socket.shutdown(socket.SHUT_WR)
                return
            except OSError:
                pass  # the caller is gone
        super().handle_close()

    def send_continue(self) -> None:
        """Asks for the body, of whoever waits to be asked; not for one that is refused, or that has none."""
        if not self.request.completed:
            super().send_continue()

    def keep_house(self, now_s: float, limit_s: float) -> None:
        """Refuses a request that should have come by now, and ends a connection of which nothing is to be expected."""
        if self.lingers_until_s is not None:
            if now_s > self.lingers_until_s:
                self._end()
        elif self.requests:
            self._untaken_since_s = None
        elif self.total_outbufs_len:
            self._untaken_since_s = now_s if self._untaken_since_s is None else self._untaken_since_s
            if now_s > self._untaken_since_s + limit_s:  # its answer is read too slowly
                self._end()
        else:
            self._untaken_since_s = None
            request = self.request
            if request is not None and now_s > request.began_s + limit_s:
                self._refuse_slow(request, f"the request has not come within {limit_s:g} s")

    def _end(self) -> None:
        self.has_unread = False
        self.handle_close()

    def make_room(self) -> None:
        """Ends a connection that `is_awaited`; whoever has sent half a request is told."""
        if self.request is None:
            self.handle_close()
        else:
            self._refuse_slow(self.request, "others wait for a connection, and the request has not come yet")

    def _refuse_slow(self, request: Any, fact: str) -> None:
        request.error, request.completed = TooSlow(fact), True
        with self.requests_lock:
            self.requests.append(request)
            self.request = None
        self.server.add_task(self)
