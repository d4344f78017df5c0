"""Connections of waitress, with what it lacks: errors in JSON, the time of arrival, an end that loses no answer."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import RequestEntityTooLarge

BEGAN_S = "tfos_job.began_s"
"""In WSGI's environment: when the first byte of the request was read, of `time.monotonic`."""
_LINGER_S = 2.0


class Parser(HTTPRequestParser):
    """A request that is being read."""

    def __init__(self, adjustments: Any) -> None:
        super().__init__(adjustments)
        self.began_s = time.monotonic()


class Task(WSGITask):
    """A request that the application answers. Once the server drains, its connection ends with the last one there."""

    def execute(self) -> None:
        is_last = len(self.channel.requests) == 1 and self.channel.request is None
        if self.channel.server.is_draining and is_last:
            self.request.headers["CONNECTION"] = "close"
        super().execute()

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[BEGAN_S] = self.request.began_s
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
        self.channel.server.on_broken(self.channel.addr[0], error.code, self.request.began_s)
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
    has_unread = False
    lingers_until_s: float | None = None

    @property
    def is_busy(self) -> bool:
        """True while a request is read or answered."""
        return bool(self.requests) or self.request is not None or self.total_outbufs_len > 0

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

    def is_overdue(self, now_s: float, limit_s: float) -> bool:
        """True if its request should have come by now, or nothing more is expected of it."""
        if self.lingers_until_s is not None:
            return now_s > self.lingers_until_s
        request = self.request
        return request is not None and not self.requests and now_s > request.began_s + limit_s
