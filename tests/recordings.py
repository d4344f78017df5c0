"""The bytes that a node with the right key sends, for an attacker who has seen them and sends them again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.attacker import REPLAYED
from tfos_job.driver.reservations import ReservationServer
from tfos_job.protocol.line import call_driver
from tfos_job.protocol.messages import Hello
from tfos_job.protocol.rendezvous import Node, Visitor
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import WORKER

HOST = "127.0.0.1"


@dataclass
class _Tap:
    """A wire between a node and the driver that is listened to.

    Attributes:
      address: that the node calls.
      heard: all that it has sent.
    """

    address: tuple[str, int]
    heard: bytearray = field(default_factory=bytearray)


@contextlib.contextmanager
def tapped(to: tuple[str, int]) -> Iterator[_Tap]:
    """One connection to an address, whose first bytes are heard."""
    with socket.create_server((HOST, 0)) as door:
        tap = _Tap(door.getsockname()[:2])

        def serve() -> None:
            caller, _ = door.accept()
            with caller, socket.create_connection(to) as onward:
                answers = threading.Thread(target=_relay, args=(onward, caller, None), daemon=True)
                answers.start()
                _relay(caller, onward, tap.heard)
                answers.join()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield tap
        thread.join()


def _relay(source: socket.socket, target: socket.socket, heard: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if heard is not None:
                heard += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def line_bytes(key: bytes, attempt: int) -> bytes:
    """A node's call, until the driver has answered."""
    switchboard = Switchboard(HOST, key, attempt=attempt)
    with contextlib.closing(switchboard), tapped(switchboard.address) as tap:
        call_driver(tap.address, key, Hello(WORKER, 7, HOST, 1, attempt=attempt)).close()
    return bytes(tap.heard)


def rendezvous_bytes(key: bytes, attempt: int, ask: Callable[[Visitor], object]) -> bytes:
    """What a node asks the rendezvous, until the driver has answered."""
    server = ReservationServer(key, HOST, None, attempt=attempt)
    server.expect(1).start()
    try:
        with tapped(server.address) as tap, contextlib.closing(Visitor(tap.address, key, attempt)) as visitor:
            ask(visitor)
    finally:
        server.stop()
    return bytes(tap.heard)


def recordings(key: bytes, attempt: int) -> dict[str, bytes]:
    """By what they are: `REPLAYED`.

    Args:
      key: of the attempt.
      attempt: the number of the one that runs.
    """
    node = Node(executor_id=7, job_name=WORKER, task_index=7, host=HOST, port=1)
    found = []
    for number in (attempt, attempt - 1):
        found += [
            line_bytes(key, number),
            rendezvous_bytes(key, number, lambda visitor: visitor.register(node)),
            rendezvous_bytes(key, number, lambda visitor: visitor.nodes()),
        ]
    return dict(zip(REPLAYED, found, strict=True))
