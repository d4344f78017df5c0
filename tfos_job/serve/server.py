"""waitress behind a signal: it takes connections and answers them on a thread of its own, and drains.

waitress reads requests without a thread each, so that slow callers hold up nobody, but it ends at once or not at all
(docs/decisions/0005-http-server.md). Here its loop is ours, and the application is called between its turns (`hub.py`).
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from tfos_job.errors import ResourceError
from tfos_job.serve.channel import Broken, Channel
from tfos_job.serve.hub import Hub

_BACKLOG = 1024
_TURN_S, _SHORT_TURN_S = 1.0, 0.05
_AWAKE_S = 0.5
_STUCK_S = 2.0  # for which the loop's thread may be in a request when its time is over
_KEPT_S = 1.0  # for which a connection that is kept alive may still ask while the server drains, to be told so
_IDLE_S = 30
_HEAD_BYTES = 16 << 10
_MEMORY_BYTES = 512 << 10  # of a body, before it goes to a file
_NEVER_BYTES = 1 << 62  # of answers that nobody takes, before a thread waits for that: here it is the only one


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
      ResourceError: it is taken, or not this host's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # Python puts the address into the words of all but this one.
        fact = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ResourceError(
            f"cannot listen there: {fact}",
            place=f"{host}:{port}",
            next_step="Give another --port, or --port 0 for any that is free",
        ) from error


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What callers may take.

    Attributes:
      max_connections: open at once; the others wait for the system to take them.
      max_body_bytes: of a request.
      request_s: in which a request must have come, and in which an answer must have been taken.
    """

    max_connections: int
    max_body_bytes: int
    request_s: float


@dataclass(frozen=True)
class _Dispatcher:
    """What has requests answered, instead of waitress' threads."""

    hub: Hub

    def add_task(self, task: Channel) -> None:
        self.hub.start(task.service)


class _Waitress(TcpWSGIServer):
    """waitress' server, and what its connections ask it."""

    channel_class = Channel
    is_draining = False
    on_broken: Callable[[Broken], None]

    def pull_trigger(self) -> None:
        """Nothing: connections call it on the loop's thread, which looks at all of them before it waits."""

    def wake(self) -> None:
        """Ends a turn of the loop; on any thread."""
        self.trigger.pull_trigger()

    def accept_waiting(self) -> None:
        """Takes all connections that the system has made; closing would reset them."""
        for _ in range(_BACKLOG):
            if not self.is_called:
                return
            self.handle_accept()

    @property
    def is_called(self) -> bool:
        """True if somebody waits for a connection."""
        return bool(select.select([self.socket], [], [], 0)[0])


class Server:
    """An application behind a socket, from the beginning to `stop`.

    Args:
      application: WSGI.
      listener: it is closed by `stop`.
      limits: what callers may take.
      on_broken: is told of requests that never reach the application.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        listener: socket.socket,
        limits: ServerLimits,
        on_broken: Callable[[Broken], None] = lambda broken: None,
    ) -> None:
        self._limits = limits
        self._map: dict[int, Any] = {}
        self._hub = Hub(self._wake)
        address = listener.getsockname()
        self._server = _Waitress(
            application,
            map=self._map,
            _sock=listener,
            dispatcher=_Dispatcher(self._hub),
            adj=_adjustments(listener, limits),
            bind_socket=False,
            sockinfo=(listener.family, listener.type, listener.proto, address),
        )
        self._server.on_broken = on_broken
        self._ends_at_s: float | None = None
        self._drained_at_s = self._house_due_s = 0.0
        self._num_lost = 0
        self._may_wake = True
        self._waking = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="http", daemon=True).start()

    def wait(self) -> None:
        """Waits for the end; a signal interrupts it."""
        self._has_ended(math.inf)

    def _has_ended(self, until_s: float) -> bool:
        """Waits for the end as well, but not for longer than that, of `time.monotonic`.

        Not by `Thread.join`: Python 3.11 takes a thread for ended whose `join` is left by an exception. And not without
        a pause: the kernel may give a signal to any thread, which does not wake the one that Python has handle it.
        """
        while not self._ended.wait(_AWAKE_S) and time.monotonic() < until_s:
            pass
        return self._ended.is_set()

    def stop(self, timeout_s: float) -> int:
        """Takes no more connections, and ends when all requests that are there are answered.

        Args:
          timeout_s: after which it ends anyway.

        Returns:
          The number of requests without an answer.
        """
        if self._ended.is_set():
            return self._num_lost
        self._ends_at_s = time.monotonic() + timeout_s
        self._server.is_draining = True
        self._wake()
        if not self._has_ended(self._ends_at_s + _STUCK_S):
            return sum(channel.is_busy for channel in self._channels())
        return self._num_lost

    def _wake(self) -> None:
        with self._waking:
            if self._may_wake:
                self._server.wake()

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            with self._waking:  # the number of the pipe that is closed may soon be another file's
                self._may_wake = False
            wasyncore.close_all(self._map, ignore_all=True)
            self._ended.set()

    def _serve(self) -> None:
        while not self._is_over(time.monotonic()):
            is_due = self._server.is_draining or self._hub.has_pauses
            turn_s = 0.0 if self._hub.has_work else _SHORT_TURN_S if is_due else _TURN_S
            wasyncore.loop(turn_s, use_poll=True, map=self._map, count=1)
            self._hub.run()
            now_s = time.monotonic()
            # A turn is as short as an event, and limits are in seconds. Who waits for a connection waits for nothing.
            if now_s >= self._house_due_s or len(self._server.active_channels) >= self._limits.max_connections:
                self._house_due_s = now_s + _SHORT_TURN_S
                self._keep_house(now_s)
        self._num_lost = sum(channel.is_busy for channel in self._channels())
        self._hub.close()

    def _channels(self) -> list[Channel]:
        return list(self._server.active_channels.values())

    def _is_over(self, now_s: float) -> bool:
        if not self._server.is_draining:
            return False
        if self._server.accepting:
            self._server.accept_waiting()
            self._server.accepting = False
            self._server.del_channel(self._map)
            self._server.socket.close()
            self._drained_at_s = now_s
        assert self._ends_at_s is not None
        if now_s >= self._ends_at_s:
            return True
        channels = self._channels()
        is_kept = bool(channels) and now_s < self._drained_at_s + _KEPT_S
        return not is_kept and not any(channel.is_busy for channel in channels)

    def _keep_house(self, now_s: float) -> None:
        """Ends what takes too long, and the connections that were silent for longest when others wait for one.

        Whoever has just come is the last of them: a crowd that sends nothing, or half a request, shuts nobody out.
        """
        self._hub.give_up(now_s)
        channels = self._channels()
        for channel in channels:
            channel.keep_house(now_s, self._limits.request_s)
        if len(channels) >= self._limits.max_connections and self._server.accepting and self._server.is_called:
            silent = sorted((channel for channel in channels if channel.is_awaited), key=lambda one: one.last_activity)
            for channel in silent[: 1 + len(silent) // 8]:
                channel.make_room()


def _adjustments(listener: socket.socket, limits: ServerLimits) -> Adjustments:
    return Adjustments(
        sockets=[listener],
        backlog=_BACKLOG,
        connection_limit=limits.max_connections + 2,  # waitress counts the listener and its own pipe
        channel_timeout=_IDLE_S,
        cleanup_interval=5,
        max_request_body_size=limits.max_body_bytes + 1,  # waitress refuses that very size
        max_request_header_size=_HEAD_BYTES,
        inbuf_overflow=_MEMORY_BYTES,
        outbuf_high_watermark=_NEVER_BYTES,
        clear_untrusted_proxy_headers=False,  # nobody reads them
        ident=None,
        log_socket_errors=False,
        asyncore_use_poll=True,
    )
