"""The rendezvous of one attempt's nodes: its messages, and the nodes' end.

A node registers, and asks until all are there. Each request has one answer, as JSON in a frame of a `Session`: a type
that is checked when it is decoded. A node whose connection is refused, reset, dropped or silent asks again in a new
one; the server takes a registration that comes again for the same.
"""

from __future__ import annotations

import socket
import time
from typing import TypeAlias

import msgspec

from tfos_job.protocol import line, session
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.session import Session

_POLL_S = 0.25


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node's part in the cluster: the number of its Spark task, its role, and the address of its TensorFlow."""

    executor_id: int
    job_name: str
    task_index: int
    host: str
    port: int


class _Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


# A node to the driver:


class Register(_Message, frozen=True):
    """I am there. Its answer: `Nodes`."""

    node: Node


class WhoIsThere(_Message, frozen=True):
    """Its answer: `Nodes`."""


Request: TypeAlias = Register | WhoIsThere


# The driver to a node:


class Nodes(_Message, frozen=True):
    """Those that have come so far; `are_all` if no other is expected."""

    nodes: list[Node]
    are_all: bool


class Over(_Message, frozen=True):
    """The rendezvous has ended before all were there. In place of an answer, or before anything was asked."""


def accepted_session(sock: socket.socket, key: bytes, attempt: int) -> Session:
    """The driver's end of a node's connection; raises as `Session` does."""
    return _session(sock, key, attempt, is_driver=True)


def _session(sock: socket.socket, key: bytes, attempt: int, *, is_driver: bool) -> Session:
    return Session(
        sock,
        key,
        is_driver=is_driver,
        purpose=session.RENDEZVOUS,
        attempt=attempt,
        handshake_s=line.HANDSHAKE_TIMEOUT_S,
        silence_s=line.SILENCE_S,
    )


class Visitor:
    """A node's end of the rendezvous."""

    def __init__(self, address: tuple[str, int], key: bytes, attempt: int) -> None:
        """Connects with the first request.

        Args:
          address: of the rendezvous.
          key: of the attempt.
          attempt: its number.
        """
        self._address, self._key, self._attempt = address, key, attempt
        self._session: Session | None = None

    def nodes(self) -> list[Node]:
        """Those that have come so far. Raises as `register` does."""
        return self._ask(WhoIsThere()).nodes

    def register(self, node: Node) -> None:
        """Raises LineClosed if the driver has not answered in `line.CALL_S`, or the rendezvous is over."""
        self._ask(Register(node))

    def all_nodes(self) -> list[Node]:
        """Waits until all have come. Raises as `register` does."""
        while not (answer := self._ask(WhoIsThere())).are_all:
            time.sleep(_POLL_S)
        return answer.nodes

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _ask(self, request: Request) -> Nodes:
        answer = session.persistently(lambda: self._ask_once(request), self._address, line.CALL_S)
        if isinstance(answer, Over):
            self.close()
            raise LineClosed("the driver has ended the rendezvous")
        return answer

    def _ask_once(self, request: Request) -> Nodes | Over:
        try:
            if self._session is None:
                self._session = session.connected(self._address, self._begin, line.HANDSHAKE_TIMEOUT_S)
            self._session.send(request)
            answer: Nodes | Over = self._session.receive(Nodes | Over)
        except BaseException:
            self.close()
            raise
        return answer

    def _begin(self, sock: socket.socket) -> Session:
        return _session(sock, self._key, self._attempt, is_driver=False)
