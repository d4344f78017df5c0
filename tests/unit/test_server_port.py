"""Real sockets: who can connect to the port of a TensorFlow server, for which a socket that shares the port stands."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest

from tests.ports import free_port_range
from tests.unit.waits import PATIENCE_S
from tfos_job.errors import ResourceError, SettingsError
from tfos_job.host import packet_filter, server_port
from tfos_job.host.addresses import own_addresses
from tfos_job.host.packet_filter import Instruction
from tfos_job.host.server_port import ServerPort

HOST, STRANGER = "127.0.0.1", "127.0.0.2"
_NO_ANSWER_S = 0.3  # the answer of this host is there as soon as the question was sent
_ALWAYS_TENSORFLOW = (Instruction(0x06, 1),)


@pytest.fixture
def held() -> Iterator[ServerPort]:
    with server_port.hold(HOST) as port:
        if port.why_open:
            pytest.skip(port.why_open)
        yield port


@contextlib.contextmanager
def tensorflow(held: ServerPort) -> Iterator[socket.socket]:
    """Listens as gRPC does where TF_GRPC_REUSE_PORT is set: on every interface, and for IPv4 in the same socket."""
    assert held.environment == {"TF_GRPC_REUSE_PORT": "1"}
    with socket.socket(held._holder.family) as server:
        if server.family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("", held.port))
        server.listen(64)
        yield server


def answers(port: int, source: str, to: str = HOST) -> bool:
    """Whether somebody takes a connection from that address."""
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET) as caller:
        caller.bind((source, 0))
        caller.setblocking(False)
        caller.connect_ex((to, port))
        _, is_answered, _ = select.select([], [caller], [], _NO_ANSWER_S)
        return bool(is_answered) and caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_a_port_answers_the_hosts_that_were_admitted_and_no_others(held: ServerPort) -> None:
    held.admit([HOST])
    assert not answers(held.port, HOST)  # nobody serves there yet
    with tensorflow(held) as server:
        assert [answers(held.port, source) for source in (HOST, STRANGER, "127.0.0.3")] == [True, False, False]
        held.admit([STRANGER, "127.0.0.3"])
        assert [answers(held.port, source) for source in (HOST, STRANGER, "127.0.0.3")] == [False, True, True]
        server.settimeout(PATIENCE_S)
        for source in (HOST, STRANGER, "127.0.0.3"):  # each has come to TensorFlow, and nobody else has
            connection, peer = server.accept()
            connection.close()
            assert peer[0].removeprefix("::ffff:") == source


def test_a_port_answers_nobody_before_a_host_was_admitted(held: ServerPort) -> None:
    with tensorflow(held):
        assert not answers(held.port, HOST)
        held.prove()
        assert held.why_open == ""


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
def test_nobody_comes_by_ipv6(held: ServerPort) -> None:
    held.admit([HOST])
    with tensorflow(held):
        assert answers(held.port, HOST)
        assert not answers(held.port, "::1", to="::1")


def test_many_hosts_may_be_admitted_and_too_many_are_an_error(held: ServerPort) -> None:
    with tensorflow(held):
        held.admit([*(f"10.1.{i // 250}.{i % 250}" for i in range(500)), HOST])
        assert [answers(held.port, source) for source in (HOST, STRANGER)] == [True, False]
        with pytest.raises(ResourceError, match="a list of 5000 addresses") as caught:
            held.admit([f"10.1.{i // 250}.{i % 250}" for i in range(5000)])
        assert HOST in caught.value.place
        assert [answers(held.port, source) for source in (HOST, STRANGER)] == [True, False]  # as before


def test_a_filter_that_does_nothing_is_found_out(held: ServerPort) -> None:
    packet_filter.choose(held._holder, _ALWAYS_TENSORFLOW)
    with tensorflow(held):
        held.prove()
    assert held.why_open == "the kernel has taken the filter and does nothing with it"
    assert f"{HOST}, port {held.port}: any host may use" in held.judge(is_required=False)
    with pytest.raises(SettingsError, match="does nothing with it") as caught:
        held.judge(is_required=True)
    assert "--require_isolation" in caught.value.place


def test_a_stranger_who_cannot_send_proves_nothing(held: ServerPort, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a rule for loopback addresses, whatever the filter does."""

    def forbid(_: socket.socket, address: tuple[str, int]) -> None:
        raise PermissionError(13, "Permission denied")

    packet_filter.choose(held._holder, _ALWAYS_TENSORFLOW)
    with tensorflow(held):
        monkeypatch.setattr(socket.socket, "connect", forbid)
        monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: 13)
        held.prove()
    assert held.why_open == "it cannot be proved: no connection from another loopback address (Permission denied)"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_holder_is_of_the_family_that_tensorflow_listens_on(
    family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets of two families share a port and no group: the one of IPv4 gets what comes by IPv4, unfiltered."""
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    monkeypatch.setattr(server_port, "_family", lambda: family)
    with server_port.hold(HOST) as held, socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("", held.port))
        server.listen(1)
        held.prove()
        assert bool(held.why_open) == (family == socket.AF_INET6)


def test_a_port_that_the_kernel_does_not_guard_is_held_and_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(92, "Protocol not available")

    monkeypatch.setattr(packet_filter, "choose", refuse)
    with server_port.hold(HOST) as held:
        assert held.why_open == "the kernel takes no filter for it: Protocol not available"
        assert held.environment == {"TF_GRPC_REUSE_PORT": "0"}
        assert held.fd_to_release == held.fd_to_keep
        held.admit([HOST])
        port = held.port
        assert answers(port, STRANGER)
        held.release()
        socket.create_server(("", port)).close()


def test_a_port_is_held_once_though_others_of_the_same_user_want_it(held: ServerPort) -> None:
    only = (held.port, held.port)
    with tensorflow(held), pytest.raises(ResourceError, match="no port of"):
        server_port.hold(HOST, only)
    with pytest.raises(OSError, match="in use"):
        socket.create_server((HOST, held.port))


def test_a_host_tries_out_whether_its_kernel_guards_ports(held: ServerPort, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_port.try_out() == held.why_open
    monkeypatch.setattr(packet_filter, "from_hosts", lambda *_, **__: _ALWAYS_TENSORFLOW)
    assert "does nothing" in server_port.try_out()


def test_of_those_who_want_a_port_at_the_same_time_one_gets_it() -> None:
    for _ in range(10):
        only, found = free_port_range(1), []
        together = threading.Barrier(4)

        def want() -> None:
            together.wait()  # noqa: B023 - the threads end within the round
            with contextlib.suppress(ResourceError):
                found.append(server_port.hold(HOST, only))  # noqa: B023

        threads = [threading.Thread(target=want) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) <= 1
        for port in found:
            port.close()


def test_the_addresses_of_a_host_are_those_of_its_interfaces() -> None:
    assert own_addresses(HOST) == [HOST]
    assert own_addresses("127.0.0.7") == ["127.0.0.7"]
    interfaces = psutil.net_if_addrs().values()
    known = {each.address for found in interfaces for each in found if each.family == socket.AF_INET}
    others = {address for address in known if not address.startswith("127.")}
    assert set(own_addresses("192.0.2.77")) == {"192.0.2.77", *others}
    assert set(own_addresses("driver.example")) == others
