"""Calls that do not come through at once, and callers that never say who they are: real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ports import free_port_range
from tests.unit.lines import HELLO, KEY, TASK, event
from tests.unit.relay import Relay
from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.protocol import line as line_module
from tfos_job.protocol.door import MAX_HALF_OPEN
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.line import NodeLine, call_driver
from tfos_job.protocol.messages import Ready
from tfos_job.protocol.switchboard import Switchboard


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    board = Switchboard("127.0.0.1", KEY)
    yield board
    board.close()


def test_a_connection_that_is_reset_before_it_is_a_line_is_made_again(
    switchboard: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, within the nonce, after it, and within the hello: the driver hears of one line in the end."""
    monkeypatch.setattr(line_module, "CALL_S", PATIENCE_S)
    relay = Relay(switchboard.address, cuts=[0, 5, 16, 40])
    line = call_driver(relay.address, KEY, HELLO)
    assert relay.num_calls == 5
    assert event(switchboard) == Joined(TASK, HELLO)
    line.send(Ready(1))
    assert event(switchboard) == Said(TASK, Ready(1))
    assert switchboard.events.empty()
    line.close()
    relay.close()


def test_an_established_line_that_is_reset_is_lost(switchboard: Switchboard) -> None:
    relay = Relay(switchboard.address, cuts=[])
    line = call_driver(relay.address, KEY, HELLO)
    assert event(switchboard) == Joined(TASK, HELLO)
    relay.cut()
    with pytest.raises(LineClosed):
        line.receive()
    lost = event(switchboard)
    assert isinstance(lost, Lost)
    assert lost.task == TASK
    assert (relay.num_calls, switchboard.connected()) == (1, set())
    line.close()
    relay.close()


def test_a_driver_that_listens_a_moment_later_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, call = [], line_module._call

    def counted(*arguments: Any) -> NodeLine:
        calls.append(arguments)
        return call(*arguments)

    monkeypatch.setattr(line_module, "CALL_S", PATIENCE_S)
    monkeypatch.setattr(line_module, "_call", counted)
    port, _ = free_port_range(1)
    lines: list[NodeLine] = []
    caller = threading.Thread(target=lambda: lines.append(call_driver(("127.0.0.1", port), KEY, HELLO)))
    caller.start()
    wait_until(lambda: len(calls) == 2)  # the first was refused
    board = Switchboard("127.0.0.1", KEY, (port, port))
    caller.join()
    assert event(board) == Joined(TASK, HELLO)
    lines[0].close()
    board.close()


def test_many_that_say_nothing_take_no_place_and_no_threads_without_end(switchboard: Switchboard) -> None:
    """The oldest go, each time one comes; who proves who it is gets its line among them."""

    def threads() -> int:
        return sum(thread.name.startswith("switchboard-('127.0.0.1'") for thread in threading.enumerate())

    before = threads()
    num_more = 5
    silent = [socket.create_connection(switchboard.address) for _ in range(MAX_HALF_OPEN + num_more)]
    for sock in silent[:num_more]:
        sock.settimeout(PATIENCE_S)
        while sock.recv(1024):  # its nonce, then the end
            pass
    wait_until(lambda: threads() - before <= MAX_HALF_OPEN)
    line = call_driver(switchboard.address, KEY, HELLO)
    assert event(switchboard) == Joined(TASK, HELLO)
    silent[-1].settimeout(PATIENCE_S)
    assert len(silent[-1].recv(1024)) == 16  # this one may still say who it is
    silent[-1].settimeout(0.1)
    with pytest.raises(TimeoutError):
        silent[-1].recv(1024)
    for sock in silent:
        sock.close()
    line.close()


def test_a_switchboard_that_closes_keeps_no_thread_for_the_half_open(switchboard: Switchboard) -> None:
    with socket.create_connection(switchboard.address) as silent:
        silent.settimeout(PATIENCE_S)
        assert len(silent.recv(1024)) == 16
        switchboard.close()
        assert silent.recv(1024) == b""
