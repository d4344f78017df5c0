"""A listener's door: it takes connections, each on a thread of its own, and bounds them in number.

A connection is half open until its peer has proved who it is (`Guest.admit`). Of too many half-open ones the oldest
goes, of the address that has the most of them: a crowd from one host pushes out its own, and a node, which needs
milliseconds, gets in between. The time of the half-open is bounded by their sessions (`session.py`). Nothing that a
connection does, and no lack of descriptors or threads, ends the taking of others.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from tfos_job.host import ports
from tfos_job.protocol.frames import LineClosed

log = logging.getLogger(__name__)

MAX_HALF_OPEN = 32
"""Connections at a time whose peers have not proved who they are: each takes a thread."""
MAX_ADMITTED = 4096
"""Connections at a time whose peers have: more than a job has processes."""
_LEAVE_S = 1.0  # for which a crowd waits in the kernel, while threads of its first ones end
_PAUSE_S = 0.1  # without descriptors or threads: that may pass
_MAX_ADDRESSES = 256  # whose refusals are counted each; those of all others together


class Guest:
    """A connection that a door has taken."""

    def __init__(self, door: Door, sock: socket.socket, peer: Any) -> None:
        self.sock = sock
        self.peer = peer
        self._door = door

    def admit(self) -> None:
        """Its peer has proved who it is.

        Raises:
          LineClosed: too many others came before it had, too many have been admitted, or the door is closed.
        """
        self._door._admit(self)

    @property
    def host(self) -> str:
        return str(self.peer[0])

    def hang_up(self, how: int = socket.SHUT_RDWR) -> None:
        """Ends the connection, which its thread closes: that thread wakes."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(how)


class Door:
    """Takes the connections of a listener from `open` to `close`."""

    def __init__(self, name: str, listener: socket.socket, serve: Callable[[Guest], None]) -> None:
        """Takes the listener over, which admits nobody yet.

        Args:
          name: of its threads, and in the log.
          listener: it is closed by `close`.
          serve: speaks with a guest, on a thread of its own, and admits it; the connection is closed afterwards. What
            it raises before that, LineClosed or OSError, is logged: the first one of an address, the second, the
            fourth, and so on.
        """
        self._name = name
        self._listener = listener
        self._serve = serve
        self._half_open: dict[Guest, None] = {}  # the oldest first
        self._leaving: set[Guest] = set()  # those that had to go, until their threads end
        self._admitted: set[Guest] = set()
        self._num_refused: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._closed = threading.Event()

    def open(self) -> None:
        """Begins to take connections, on a thread of its own."""
        threading.Thread(target=self._accept, name=self._name, daemon=True).start()

    def close(self) -> None:
        """Frees the port at once, and ends all connections. May be called again, and from any thread.

        Nothing more is read of those that were admitted, and their threads may send a last word.
        """
        self._closed.set()
        ports.release(self._listener)  # which also wakes the thread that accepts
        with self._lock:
            for guest in self._half_open:
                guest.hang_up()
            for guest in self._admitted:
                guest.hang_up(socket.SHUT_RD)
            self._left.notify_all()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                sock, peer = self._listener.accept()
            except OSError as error:
                self._cannot("accept a connection", error)
                continue
            guest = Guest(self, sock, peer)
            if not self._make_room_for(guest):
                sock.close()
                continue
            try:
                threading.Thread(target=self._receive, args=(guest,), name=f"{self._name}-{peer}", daemon=True).start()
            except RuntimeError as error:  # no more threads
                self._forget(guest)
                self._cannot(f"serve {peer}", error)

    def _cannot(self, what: str, error: Exception) -> None:
        if not self._closed.is_set():
            self._warn("", f"cannot {what}: {error}")
            self._closed.wait(_PAUSE_S)

    def _make_room_for(self, guest: Guest) -> bool:
        """False if the door is closed."""
        with self._lock:
            self._left.wait_for(lambda: self._closed.is_set() or len(self._leaving) < MAX_HALF_OPEN, _LEAVE_S)
            if self._closed.is_set():
                return False
            self._half_open[guest] = None
            while len(self._half_open) > MAX_HALF_OPEN:
                ((host, _),) = collections.Counter(each.host for each in self._half_open).most_common(1)
                oldest = next(each for each in self._half_open if each.host == host)
                del self._half_open[oldest]
                self._leaving.add(oldest)
                oldest.hang_up()
        return True

    def _admit(self, guest: Guest) -> None:
        with self._lock:
            if self._closed.is_set():
                raise LineClosed("nobody is expected any more")
            if guest not in self._half_open:
                raise LineClosed(f"{MAX_HALF_OPEN} others came before it had said who it is")
            if len(self._admitted) >= MAX_ADMITTED:
                raise LineClosed(f"{MAX_ADMITTED} others are connected")
            del self._half_open[guest]
            self._admitted.add(guest)

    def _receive(self, guest: Guest) -> None:
        try:
            self._serve(guest)
        except (LineClosed, OSError) as error:
            if guest in self._admitted or self._closed.is_set():
                log.debug("%s: the connection of %s has ended: %s", self._name, guest.peer, error)
            else:
                self._warn(guest.host, f"turned away a connection from {guest.peer}: {error}")
        finally:
            self._forget(guest)

    def _forget(self, guest: Guest) -> None:
        with self._lock:  # which keeps `close` from a descriptor that is another connection's by then
            self._half_open.pop(guest, None)
            self._admitted.discard(guest)
            self._leaving.discard(guest)
            self._left.notify_all()
            guest.sock.close()

    def _warn(self, host: str, fact: str) -> None:
        """Logs a refusal if as many of that address have been as a power of two has: the log does not drown in them."""
        with self._lock:
            if host not in self._num_refused and len(self._num_refused) >= _MAX_ADDRESSES:
                host = "others"
            self._num_refused[host] += 1
            count = self._num_refused[host]
        is_told = count & (count - 1) == 0
        so_far = f" ({count} so far)" if count > 1 else ""
        log.log(logging.WARNING if is_told else logging.DEBUG, "%s %s%s", self._name.capitalize(), fact, so_far)
