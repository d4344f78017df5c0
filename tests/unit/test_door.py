"""The door of a listener: crowds, and a process that has no descriptors or threads left. Real sockets."""

from __future__ import annotations

import collections
import errno
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.lines import HELLO, KEY, TASK, event
from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.host import ports
from tfos_job.protocol import door as door_module
from tfos_job.protocol import line as line_module
from tfos_job.protocol import session
from tfos_job.protocol.door import MAX_HALF_OPEN, Door, Guest
from tfos_job.protocol.events import Joined
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.line import NODE, Line
from tfos_job.protocol.messages import Beat
from tfos_job.protocol.switchboard import Switchboard

HOST, STRANGER = "127.0.0.1", "127.0.0.2"
NUM_STRANGERS = 2000

OpenDoor = Callable[..., tuple[str, int]]


def echo(guest: Guest) -> None:
    """Admits who sends a word, and says it to him until he has enough."""
    while word := guest.sock.recv(100):
        if word == b"hello":
            guest.admit()
        guest.sock.sendall(word)


@pytest.fixture
def open_door() -> Iterator[OpenDoor]:
    doors: list[Door] = []

    def begin(serve: Callable[[Guest], None] = echo, listener: Any = None) -> tuple[str, int]:
        listener = listener or ports.listen(HOST)
        address: tuple[str, int] = listener.getsockname()
        doors.append(Door("door", listener, serve))
        doors[-1].open()
        return address

    yield begin
    for door in doors:
        door.close()


def connect(address: tuple[str, int], host: str = HOST) -> socket.socket:
    sock = socket.create_connection(address, source_address=(host, 0))
    sock.settimeout(PATIENCE_S)
    return sock


def greet(sock: socket.socket) -> bytes:
    sock.sendall(b"hello")
    return sock.recv(100)


def num_threads() -> int:
    return sum(thread.name.startswith("switchboard-(") for thread in threading.enumerate())


def test_a_crowd_of_one_address_does_not_push_out_a_caller_of_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller was there first, is slow, and has its line after 2,000 strangers: of all, it was the oldest."""
    monkeypatch.setattr(line_module, "HANDSHAKE_TIMEOUT_S", PATIENCE_S)
    board = Switchboard(HOST, KEY)
    before = num_threads()
    caller = connect(board.address)
    assert len(caller.recv(16, socket.MSG_PEEK)) == 16  # the driver's nonce: it is in
    strangers: collections.deque[socket.socket] = collections.deque()
    most = 0
    for _ in range(NUM_STRANGERS):
        strangers.append(connect(board.address, STRANGER))
        strangers[-1].recv(16)
        most = max(most, num_threads() - before)
        if len(strangers) > 2 * MAX_HALF_OPEN:
            strangers.popleft().close()
    line = Line(caller, KEY, NODE)
    line.send(HELLO)
    assert isinstance(line.receive_any(), Beat)
    assert event(board) == Joined(TASK, HELLO)
    assert most <= 2 * MAX_HALF_OPEN + 1
    for sock in strangers:
        sock.close()
    line.close()
    board.close()
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(told) <= 11  # 1, 2, 4 … 1,024 of them
    assert told[-1].getMessage().startswith(f"Switchboard turned away a connection from ('{STRANGER}'")


def test_each_address_has_warnings_of_its_own(open_door: OpenDoor, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: Guest) -> None:
        raise LineClosed("no")

    address = open_door(refuse)
    for host in [STRANGER] * 5 + [HOST]:
        with connect(address, host) as sock:
            assert sock.recv(1) == b""
    wait_until(lambda: f"from ('{HOST}'" in caplog.text)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text.partition(": ")[2] for text in told] == ["no", "no (2 so far)", "no (4 so far)", "no"]


class PoorListener:
    """A listener of a process that has no descriptors left for a time."""

    def __init__(self) -> None:
        self._sock = ports.listen(HOST)
        self._num_left = 3

    def accept(self) -> Any:
        if self._num_left:
            self._num_left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_a_lack_of_descriptors_passes(open_door: OpenDoor, caplog: pytest.LogCaptureFixture) -> None:
    with connect(open_door(listener=PoorListener())) as sock:
        assert greet(sock) == b"hello"
    assert "Door cannot accept a connection: [Errno 24] Too many open files" in caplog.text


def test_a_lack_of_threads_passes(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = open_door()
    start, failed = threading.Thread.start, threading.Event()

    def fail_once(thread: threading.Thread) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_once)
    with connect(address) as sock:
        assert sock.recv(1) == b""
    with connect(address) as sock:
        assert greet(sock) == b"hello"
    assert "can't start new thread" in caplog.text


def test_the_admitted_are_bounded_too(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door_module, "MAX_ADMITTED", 1)
    address = open_door()
    with connect(address) as first, connect(address) as second:
        assert greet(first) == b"hello"
        assert greet(second) == b""
        assert "1 others are connected" in caplog.text
    with connect(address) as third:  # the first has gone

        def is_admitted() -> bool:
            nonlocal third
            if greet(third) == b"hello":
                return True
            third.close()
            third = connect(address)
            return False

        wait_until(is_admitted)
        third.close()


def test_a_bug_in_one_conversation_ends_no_other(open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: died.set())

    def fail(guest: Guest) -> None:
        if guest.sock.recv(100) == b"fail":
            raise ZeroDivisionError
        guest.sock.sendall(b"served")

    address = open_door(fail)
    with connect(address) as sock:
        sock.sendall(b"fail")
        assert sock.recv(1) == b""
    assert died.wait(PATIENCE_S)
    with connect(address) as sock:
        assert greet(sock) == b"served"


def test_a_door_that_closes_ends_all_conversations() -> None:
    door = Door("door", ports.listen(HOST), echo)
    address = door._listener.getsockname()
    door.open()
    with connect(address) as admitted, connect(address) as half_open:
        assert greet(admitted) == b"hello"
        half_open.sendall(b"?")
        assert half_open.recv(1) == b"?"
        door.close()
        door.close()
        assert (admitted.recv(1), half_open.recv(1)) == (b"", b"")
    ports.listen(HOST, (address[1], address[1])).close()


def test_a_call_that_is_no_use_is_not_made_for_ever() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise ConnectionRefusedError("refused")

    with pytest.raises(LineClosed, match="cannot reach the driver at a:1: refused"):
        session.persistently(fail, ("a", 1), 0.0)
    assert calls == [1]
