"""The rendezvous of nodes: what an honest one gets on a bad network, and what no other one gets. Real sockets."""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.ports import free_port_range
from tests.unit.lines import HELLO, KEY
from tests.unit.relay import Relay
from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.driver.reservations import ReservationServer
from tfos_job.protocol import line as line_module
from tfos_job.protocol import messages, session
from tfos_job.protocol.frames import LineClosed, new_key, seal
from tfos_job.protocol.line import call_driver
from tfos_job.protocol.rendezvous import Node, Nodes, Register, Visitor
from tfos_job.protocol.session import STRANGERS_BYTES, Session
from tfos_job.protocol.switchboard import Switchboard

HOST = "127.0.0.1"
ATTEMPT = 2
FIRST, SECOND = Node(0, "ps", 0, "a", 4000), Node(1, "worker", 0, "b", 4001)


@pytest.fixture
def server() -> Iterator[ReservationServer]:
    server = ReservationServer(KEY, HOST, None, attempt=ATTEMPT).expect(2)
    server.start()
    yield server
    server.stop()


def visitor(server: ReservationServer | Relay, key: bytes = KEY, attempt: int = ATTEMPT) -> Visitor:
    return Visitor(server.address, key, attempt)


def registered(server: ReservationServer, attempt: int = ATTEMPT) -> list[Node]:
    with contextlib.closing(visitor(server, attempt=attempt)) as node:
        return node.nodes()


def node_session(sock: socket.socket, purpose: bytes = session.RENDEZVOUS) -> Session:
    return Session(
        sock, KEY, is_driver=False, purpose=purpose, attempt=ATTEMPT, handshake_s=PATIENCE_S, silence_s=PATIENCE_S
    )


def end_of(sock: socket.socket) -> bytes:
    """What comes until the other end hangs up."""
    sock.settimeout(PATIENCE_S)
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1024):
            heard += data
    return heard


def test_nodes_register_and_wait_for_each_other(server: ReservationServer) -> None:
    first, second = visitor(server), visitor(server)
    assert first.nodes() == []
    first.register(FIRST)
    assert second.nodes() == [FIRST]
    second.register(SECOND)
    assert first.all_nodes() == second.all_nodes() == [FIRST, SECOND]
    assert [node["executor_id"] for node in server.await_reservations(None, None, 0)] == [0, 1]
    first.close()
    second.close()


def test_a_node_whose_connection_is_reset_asks_again(
    server: ReservationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, within the nonce, after it and within its first request; and later, between two requests."""
    monkeypatch.setattr(line_module, "CALL_S", PATIENCE_S)
    monkeypatch.setattr(session, "_LONGEST_PAUSE_S", 0.1)
    whole = 16 + 4 + 32 + len(messages.encode(Register(FIRST)))
    relay = Relay(server.address, cuts=[0, 5, 16, 40, whole - 1])
    node = visitor(relay)
    node.register(FIRST)
    assert relay.num_calls == 6
    relay.cut()
    node.register(FIRST)
    assert relay.num_calls == 7
    relay.cut()
    assert node.nodes() == [FIRST]
    relay.close()
    node.close()


def test_a_node_that_has_had_no_answer_is_registered_once(server: ReservationServer) -> None:
    """What has been lost is the answer: the driver has heard it."""
    with socket.create_connection(server.address) as sock:
        lost = node_session(sock)
        lost.send(Register(FIRST))
        assert lost.receive(Nodes) == Nodes([FIRST], False)
    again = visitor(server)
    again.register(FIRST)
    assert again.nodes() == [FIRST]
    again.close()


def test_no_other_node_takes_the_place_of_one(server: ReservationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "CALL_S", 0.0)
    node = visitor(server)
    node.register(FIRST)
    with pytest.raises(LineClosed, match="cannot reach the driver"):
        node.register(replace(FIRST, host="mallory"))
    assert node.nodes() == [FIRST]
    node.close()


def test_a_node_that_waits_does_not_go_on_asking_when_the_rendezvous_is_over(
    server: ReservationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt may need its ports. So it is also where it is told between two requests."""
    monkeypatch.setattr(line_module, "CALL_S", PATIENCE_S)
    waiting, later = visitor(server), visitor(server)
    waiting.register(FIRST)
    assert later.nodes() == [FIRST]
    ended: list[str] = []

    def wait() -> None:
        with pytest.raises(LineClosed, match="the driver has ended the rendezvous"):
            waiting.all_nodes()
        ended.append("in good order")

    thread = threading.Thread(target=wait)
    thread.start()
    server.stop()
    thread.join(PATIENCE_S)
    assert ended
    with pytest.raises(LineClosed, match="the driver has ended the rendezvous"):
        later.nodes()


def test_a_driver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "CALL_S", 0.0)
    port, _ = free_port_range(1)
    with pytest.raises(LineClosed, match=rf"cannot reach the driver at 127\.0\.0\.1:{port}: .*refused"):
        Visitor((HOST, port), KEY, ATTEMPT).nodes()
    monkeypatch.setattr(line_module, "HANDSHAKE_TIMEOUT_S", 0.1)
    with socket.create_server((HOST, 0)) as silent, pytest.raises(LineClosed, match="timed out"):
        Visitor(silent.getsockname(), KEY, ATTEMPT).nodes()


def test_a_registration_that_is_sent_again_by_somebody_else_is_refused(
    server: ReservationServer, caplog: pytest.LogCaptureFixture
) -> None:
    """By one who has heard all of it, in this attempt, and in a later one (though that has another key as well)."""
    relay = Relay(server.address, cuts=[])
    honest = visitor(relay)
    honest.register(FIRST)
    honest.close()
    later = ReservationServer(KEY, HOST, None, attempt=ATTEMPT + 1).expect(1)
    later.start()
    for number, each in enumerate((server, later), 1):
        with socket.create_connection(each.address) as sock:
            sock.sendall(relay.heard)
            assert len(end_of(sock)) <= 16  # its nonce
        wait_until(lambda number=number: caplog.text.count("a frame with a wrong signature") == number)  # type: ignore[misc]
    assert registered(later, ATTEMPT + 1) == []
    assert registered(server) == [FIRST]
    later.stop()
    relay.close()


@pytest.mark.parametrize(
    ("key", "attempt"), [(KEY, 1), (KEY, 3), (new_key(), ATTEMPT)], ids=["earlier", "later", "key"]
)
def test_a_node_of_another_attempt_is_refused(
    server: ReservationServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    key: bytes,
    attempt: int,
) -> None:
    monkeypatch.setattr(line_module, "CALL_S", 0.0)
    with pytest.raises(LineClosed):
        visitor(server, key, attempt).register(FIRST)
    wait_until(lambda: "a frame with a wrong signature" in caplog.text)
    assert registered(server) == []


def test_the_frames_of_line_and_rendezvous_are_not_each_others(
    server: ReservationServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(line_module, "CALL_S", 0.0)
    board = Switchboard(HOST, KEY, attempt=ATTEMPT)
    with pytest.raises(LineClosed):
        call_driver(server.address, KEY, replace(HELLO, attempt=ATTEMPT))
    wait_until(lambda: "Rendezvous turned away a connection" in caplog.text)
    with pytest.raises(LineClosed):
        Visitor(board.address, KEY, ATTEMPT).nodes()
    wait_until(lambda: "Switchboard turned away a connection" in caplog.text)
    assert caplog.text.count("a frame with a wrong signature") == 2  # and not for the words in them
    board.close()


class Bomb:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_a_pickle_is_not_read_even_under_the_key(server: ReservationServer, tmp_path: Path) -> None:
    path = tmp_path / "exploded"
    bomb = pickle.dumps({"type": "REG", "data": Bomb(path)})
    with socket.create_connection(server.address) as sock:
        insider = node_session(sock)
        sock.sendall(seal(insider._key, b"n" + bytes(8), bomb))
        assert end_of(sock) == b""
    assert not path.exists()
    pickle.loads(bomb)
    assert path.exists()  # it was one


@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"Register","node":{"executor_id":0,"job_name":"ps","task_index":0,"host":"a","port":"4"}}',
        b'{"type":"Register","node":{"executor_id":0,"job_name":"ps","task_index":0,"host":"a","port":4,"more":1}}',
        b'{"type":"Stop"}',
        b"[" * 100_000,
        b"\xff",
        b" " * (STRANGERS_BYTES + 1),
    ],
    ids=["type", "field", "message", "depth", "text", "length"],
)
def test_what_is_no_request_ends_the_connection(server: ReservationServer, payload: bytes) -> None:
    """Even of one that has the key."""
    with socket.create_connection(server.address) as sock:
        insider = node_session(sock)
        with contextlib.suppress(ConnectionError):  # it reads no more than it must
            sock.sendall(seal(insider._key, b"n" + bytes(8), payload))
        assert end_of(sock) == b""
    assert registered(server) == []


def test_slow_and_silent_callers_do_not_hold_up_a_node(server: ReservationServer) -> None:
    """The half of a nonce, of a length, of a frame: nobody waits for the rest."""
    with contextlib.ExitStack() as callers:
        for num_bytes in (0, 8, 16, 18, 50):
            sock = callers.enter_context(socket.create_connection(server.address))
            sock.sendall((bytes(16) + b"\0\0\1\0" + bytes(60))[:num_bytes])
        node = visitor(server)
        node.register(FIRST)
        node.close()


def test_a_byte_now_and_then_does_not_hold_a_place(server: ReservationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "HANDSHAKE_TIMEOUT_S", 0.3)
    frame = bytes(16) + b"\0\0\1\0" + bytes(32 + 256)
    with socket.create_connection(server.address) as sock:
        sock.settimeout(0.05)  # at this pace all of it would take fifty times as long
        num_sent, is_over = 0, False
        while not is_over:
            assert num_sent < len(frame) - 1
            with contextlib.suppress(TimeoutError):
                try:
                    sock.sendall(frame[num_sent : num_sent + 1])
                    num_sent += 1
                    while heard := sock.recv(1024):
                        assert len(heard) == 16  # its nonce
                    is_over = True
                except ConnectionError:
                    is_over = True
