"""The bytes that a node with the right key sends, for an attacker who has seen them and sends them again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.attacker import REPLAYED
from tfos_job.driver.reservations import ReservationServer
from tfos_job.nodes import tfos
from tfos_job.protocol.line import call_driver
from tfos_job.protocol.messages import Hello
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


def rendezvous_bytes(key: bytes, ask: Callable[[Any], object]) -> bytes:
    """What a node asks the rendezvous."""
    server = ReservationServer(key, HOST, None)
    server.expect(1).start()
    modules = tfos.import_tfos()
    speech = modules.reservation.MessageSocket
    before = speech.send, speech.receive
    tfos.secure_reservations(modules, key)
    try:
        with tapped(server.address) as tap:
            client = modules.reservation.Client(tap.address)
            ask(client)
            client.close()
    finally:
        speech.send, speech.receive = before
        server.stop()
    return bytes(tap.heard)


def recordings(key: bytes) -> dict[str, bytes]:
    """By what they are; the run's first attempt is the one that runs."""
    node = {"executor_id": 7, "host": HOST, "job_name": WORKER, "task_index": 7, "port": 1, "tb_pid": 0, "tb_port": 0}
    heard = (
        line_bytes(key, 1),
        line_bytes(key, 0),
        rendezvous_bytes(key, lambda client: client.get_reservations()),
        rendezvous_bytes(key, lambda client: client.register(node)),
    )
    return dict(zip(REPLAYED, heard, strict=True))
