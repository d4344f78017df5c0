"""Real sockets: a held port is nobody else's until it is released, whoever has inherited it."""

from __future__ import annotations

import random
import socket
import subprocess
import sys

import pytest

from tfos_job.errors import ResourceError
from tfos_job.host import ports

HOST = "127.0.0.1"


def free_range(size: int) -> tuple[int, int]:
    """Ports in a row that nobody has; not those that a system gives to whoever asks for any, nor another run's."""
    for low in random.sample(range(10_000, 32_000, size), 1000):
        try:
            for port in range(low, low + size):
                socket.create_server((HOST, port)).close()
        except OSError:
            continue
        return low, low + size - 1
    raise AssertionError("no free ports")


def test_two_jobs_of_one_range_share_it_until_it_is_used_up() -> None:
    port_range = free_range(4)
    held = [ports.listen(HOST, port_range) for _ in range(4)]
    assert {sock.getsockname()[1] for sock in held} == set(range(port_range[0], port_range[1] + 1))
    with pytest.raises(ResourceError, match=f"no port of {port_range[0]}-{port_range[1]} is free") as caught:
        ports.listen(HOST, port_range)
    assert "--port_range" in caught.value.place
    freed = held[-1].getsockname()[1]
    held.pop().close()
    again = ports.listen(HOST, port_range)
    assert again.getsockname()[1] == freed
    for sock in [*held, again]:
        sock.close()


def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(ResourceError, match="cannot listen"):
        ports.listen("192.0.2.1")


def test_a_release_holds_for_all_who_have_inherited_the_socket() -> None:
    held = ports.listen(HOST)
    port = held.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        socket.create_server((HOST, port))
    keeper = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True, pass_fds=(held.fileno(),)
    )
    ports.release(held)
    try:
        with socket.create_server((HOST, port)):
            pass
    finally:
        keeper.communicate("\n", timeout=30)
