"""Real sockets throughout: what an honest peer, a dead one and a hostile one can do."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.lines import HELLO, KEY, TASK, event
from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.protocol import line as line_module
from tfos_job.protocol import messages
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import LineClosed, new_key
from tfos_job.protocol.line import DRIVER, NODE, Line, NodeLine, call_driver
from tfos_job.protocol.messages import CheckpointBegun, Ready, Stop, ToDriver, ToNode
from tfos_job.protocol.switchboard import Switchboard


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    board = Switchboard("127.0.0.1", KEY)
    yield board
    board.close()


def test_a_conversation(switchboard: Switchboard) -> None:
    line = call_driver(switchboard.address, KEY, HELLO)
    assert event(switchboard) == Joined(TASK, HELLO)
    line.send(CheckpointBegun(5))
    line.send(Failure(Kind.RAISED, "文字", 70, "detail"))
    assert event(switchboard) == Said(TASK, CheckpointBegun(5))
    assert event(switchboard) == Said(TASK, Failure(Kind.RAISED, "文字", 70, "detail"))
    assert switchboard.send(TASK, Stop())
    assert line.receive() == Stop()
    line.close()
    assert event(switchboard) == Lost(TASK, "connection closed")
    assert not switchboard.send(TASK, Stop())


def test_beats_keep_a_quiet_line_alive(switchboard: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "SILENCE_S", 1.0)
    monkeypatch.setattr(line_module, "BEAT_S", 0.1)
    decode = messages.decode
    heard_s: list[float] = []  # when the driver has heard something, be it a beat

    def note(data: bytes, kind: Any) -> Any:
        heard_s.append(time.monotonic())
        return decode(data, kind)

    monkeypatch.setattr(messages, "decode", note)
    while True:
        heard_s.clear()
        line = call_driver(switchboard.address, KEY, HELLO)
        assert event(switchboard) == Joined(TASK, HELLO)
        while switchboard.events.empty() and heard_s[-1] - heard_s[0] < 2 * line_module.SILENCE_S:
            time.sleep(0.05)
        if switchboard.events.empty():
            break
        assert event(switchboard) == Lost(TASK, "silent for 1 s", is_silent=True)
        gaps_s = [later - earlier for earlier, later in itertools.pairwise([*heard_s, time.monotonic()])]
        assert max(gaps_s) >= line_module.SILENCE_S, "lost, though there were beats"
        line.close()  # this machine has stood still for a second: once more
    line.send(Ready(1))
    assert event(switchboard) == Said(TASK, Ready(1))
    line.close()


def test_a_silent_peer_is_taken_for_dead(switchboard: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "SILENCE_S", 0.2)
    sock = socket.create_connection(switchboard.address)
    line = Line(sock, KEY, NODE)
    line.send(HELLO)  # and no beat after it
    assert event(switchboard) == Joined(TASK, HELLO)
    assert event(switchboard) == Lost(TASK, "silent for 0 s", is_silent=True)
    line.close()


def test_the_driver_hanging_up_is_heard(switchboard: Switchboard) -> None:
    line = call_driver(switchboard.address, KEY, HELLO)
    event(switchboard)
    switchboard.close()
    with pytest.raises(LineClosed):
        line.receive()
    line.close()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os.environ['EXPLODED'] = '1'",)


@pytest.mark.parametrize(
    "payload",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        struct.pack(">I", 2**31) + b"x" * 100,
        struct.pack(">I", 100) + b"\0" * 32 + pickle.dumps(Bomb()).ljust(100),
        b"",
    ],
    ids=["http", "huge frame", "pickle", "nothing"],
)
def test_garbage_is_turned_away_and_harms_nobody(switchboard: Switchboard, payload: bytes) -> None:
    with socket.create_connection(switchboard.address) as sock:
        sock.sendall(b"n" * 16 + payload)
        with contextlib.suppress(OSError):  # the other end may have hung up by now
            sock.shutdown(socket.SHUT_WR)
        sock.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionResetError):  # that is an answer, too
            while sock.recv(1024):
                pass
    assert "EXPLODED" not in os.environ
    line = call_driver(switchboard.address, KEY, HELLO)
    assert event(switchboard) == Joined(TASK, HELLO)
    line.close()


def test_a_dribble_does_not_hold_a_caller_place(switchboard: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in good time, and the frame does not: at this pace it would take ten times as long."""
    monkeypatch.setattr(line_module, "HANDSHAKE_TIMEOUT_S", 0.5)
    num_bytes = 100
    frame = struct.pack(">I", num_bytes) + bytes(32 + num_bytes)
    with socket.create_connection(switchboard.address) as sock:
        sock.sendall(b"n" * 16)
        sock.settimeout(0.05)
        num_sent = 0
        with contextlib.suppress(ConnectionError):  # it hangs up
            for num_sent in range(len(frame)):
                sock.sendall(frame[num_sent : num_sent + 1])
                with contextlib.suppress(TimeoutError):
                    while data := sock.recv(1024):
                        assert len(data) == 16  # its nonce
                    break
        assert num_sent < len(frame) - 1


def test_a_wrong_key_gets_no_line(switchboard: Switchboard) -> None:
    line = Line(socket.create_connection(switchboard.address), new_key(), NODE)
    line.send(HELLO)
    with pytest.raises(LineClosed):
        line.receive()
    line.close()
    assert switchboard.events.empty()


@pytest.mark.parametrize("said", [1, 2])
def test_a_caller_of_another_attempt_gets_no_line(caplog: pytest.LogCaptureFixture, said: int) -> None:
    """Not with the key of its own attempt, and not with words of it that this attempt's key has signed."""
    board = Switchboard("127.0.0.1", KEY, attempt=2)
    line = Line(socket.create_connection(board.address), KEY, NODE, said)
    line.send(replace(HELLO, attempt=1))
    with pytest.raises(LineClosed):
        line.receive()
    line.close()
    reason = {1: "a frame with a wrong signature", 2: "a process of attempt 1, and this is attempt 2"}[said]
    wait_until(lambda: reason in caplog.text)
    honest = call_driver(board.address, KEY, replace(HELLO, attempt=2))
    assert event(board) == Joined(TASK, replace(HELLO, attempt=2))
    honest.close()
    board.close()


def test_a_second_caller_for_a_task_is_turned_away(switchboard: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call_driver(switchboard.address, KEY, HELLO)
    assert event(switchboard) == Joined(TASK, HELLO)
    monkeypatch.setattr(line_module, "CALL_S", 0.0)
    with pytest.raises(LineClosed, match=r"cannot reach the driver at 127\.0\.0\.1:"):
        call_driver(switchboard.address, KEY, HELLO)
    first.send(Ready(1))
    assert event(switchboard) == Said(TASK, Ready(1))
    first.close()


def pair() -> tuple[Line[ToDriver, ToNode], NodeLine, socket.socket, socket.socket]:
    """Two ends of one line, and the sockets below them."""
    server = socket.create_server(("127.0.0.1", 0))
    node_sock = socket.create_connection(server.getsockname())
    driver_sock, _ = server.accept()
    server.close()
    driver: list[Line[ToDriver, ToNode]] = []
    other = threading.Thread(target=lambda: driver.append(Line(driver_sock, KEY, DRIVER)))
    other.start()
    node = Line(node_sock, KEY, NODE)
    other.join()
    return driver[0], node, driver_sock, node_sock


def test_a_silent_driver_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "SILENCE_S", 0.2)
    driver, node, _, _ = pair()
    driver.send(Stop())
    assert node.receive() == Stop()
    with pytest.raises(LineClosed, match="silent for 0 s"):
        node.receive()
    driver.close()
    node.close()


@pytest.mark.parametrize("attack", ["replayed", "reflected", "altered"])
def test_a_frame_counts_once_in_its_direction_and_whole(attack: str) -> None:
    driver, node, driver_sock, node_sock = pair()
    node.send(Ready(1))
    frame = driver_sock.recv(4096)
    assert b'"Ready"' in frame
    if attack == "altered":
        node_sock.sendall(frame.replace(b"1", b"2"))
    else:
        node_sock.sendall(frame)
    if attack == "reflected":
        driver_sock.sendall(frame)
        with pytest.raises(LineClosed, match="wrong signature"):
            node.receive()
    elif attack == "replayed":
        assert driver.receive() == Ready(1)
        node_sock.sendall(frame)
        with pytest.raises(LineClosed, match="wrong signature"):
            driver.receive()
    else:
        with pytest.raises(LineClosed, match="wrong signature"):
            driver.receive()
    driver.close()
    node.close()


def test_what_is_no_message_for_the_driver_closes_its_line() -> None:
    driver, node, _, _ = pair()
    node._send(Stop())
    with pytest.raises(LineClosed, match="none of this version's"):
        driver.receive()
    driver.close()
    node.close()
