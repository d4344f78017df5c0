"""TFoS's rendezvous as `nodes/tfos.py` leaves it: its real server, honest nodes and strangers on the same port."""

from __future__ import annotations

import os
import pickle
import queue
import socket
import struct
import subprocess
import sys
from typing import Any

import pytest

from tests.unit.waits import PATIENCE_S
from tfos_job.driver import launch
from tfos_job.protocol.topology import Topology

# TFoS is patched for good in the process that launches a cluster, so this happens in one of its own.
PROGRAM = """
import sys, threading
from tfos_job.nodes.tfos import import_tfos, secure_reservations
tfos = import_tfos()
assert "tensorflow" not in sys.modules
key = b"k" * 32
secure_reservations(tfos, key, "127.0.0.1")
tfos.util.get_ip_address = lambda: "127.0.0.1"
server = tfos.reservation.Server(1)
host, port = server.start()
print(port, flush=True)
sys.stdin.readline()
client = tfos.reservation.Client((host, port))
client.register({"host": "a", "executor_id": 0})
print(client.get_reservations(), flush=True)
"""


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os._exit(99)",)


@pytest.fixture
def server() -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.timeout(60)
def test_a_stranger_neither_runs_code_nor_stalls_the_start(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    assert server.stdin is not None
    port = int(server.stdout.readline())
    bomb = pickle.dumps(Bomb())
    with (
        socket.create_connection(("127.0.0.1", port)) as attacker,
        socket.create_connection(("127.0.0.1", port)) as staller,
    ):
        attacker.sendall(struct.pack(">I", len(bomb)) + bomb)  # TFoS's own protocol: it would unpickle this
        staller.sendall(b"\0\0")
        server.stdin.write("\n")
        server.stdin.flush()
        assert "'executor_id': 0" in server.stdout.readline()


def test_the_rendezvous_listens_on_one_address(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    port = int(server.stdout.readline())
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.2", port)):
        pass


def test_a_launch_that_fails_before_tfos_runs_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise ModuleNotFoundError("no pkg_resources")

    monkeypatch.setattr(launch, "import_tfos", fail)
    events: queue.Queue[Any] = queue.Queue()
    job = launch.NodeJob(None, Topology(1, 1), None, events, 600)  # type: ignore[arg-type]
    job.start()
    failure = events.get(timeout=PATIENCE_S)
    assert failure.exit_code == 69
    assert "TFCluster did not start: ModuleNotFoundError: no pkg_resources" in failure.cause
