"""A node that has lost its driver or its parent, at whatever moment: real processes and sockets, no Spark."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.command import is_alive
from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.host import ports
from tfos_job.host.child import child_environment
from tfos_job.nodes.driver_host import ParameterServer
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import new_key
from tfos_job.protocol.line import DRIVER, Line
from tfos_job.protocol.messages import Hello
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import PS, Task

HOST = "127.0.0.1"
KEY = new_key()

# As TFoS does it: Spark's Python worker forks a parameter server's supervisor, and a manager that outlives both.
WORKER = """
import json, multiprocessing, queue, subprocess, sys, time, types
from tfos_job.host import ports
from tfos_job.nodes import node
from tfos_job.protocol import line

orders = json.loads(sys.argv[1])
line.SILENCE_S = orders["silence_s"]
held = ports.listen("127.0.0.1")
address = "%s:%d" % held.getsockname()[:2]
manager = subprocess.Popen(["sleep", "3600"])
node.context = node.NodeContext(held, (orders["scratch"],))
args = node.NodeArgs(
    driver=tuple(orders["driver"]), key=bytes.fromhex(orders["key"]), attempt=1, driver_host_tasks={}, inputs=(),
    num_gpus=0, local=True, start_timeout=600,
)
mgr = types.SimpleNamespace(_process=manager, get_queue=lambda _: queue.SimpleQueue())
ctx = types.SimpleNamespace(job_name="ps", task_index=0, cluster_spec={"ps": [address]}, mgr=mgr)
context = multiprocessing.get_context("fork")
supervisor = context.Process(target=node.main, args=(args, ctx), daemon=True)
supervisor.start()
supervisor.join()
print(supervisor.exitcode, flush=True)
time.sleep(3600)
"""


class SparkWorker:
    """A Python worker of Spark with a parameter server in it."""

    def __init__(self, driver: tuple[str, int], scratch: Path, silence_s: float = 20.0) -> None:
        scratch.mkdir()
        self.scratch = scratch
        orders = {"driver": driver, "key": KEY.hex(), "scratch": str(scratch), "silence_s": silence_s}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(orders)], env=child_environment(""), stdout=subprocess.PIPE
        )

    def node_processes(self, supervisor: int) -> list[psutil.Process]:
        """The supervisor, its TensorFlow process and the manager."""
        found = psutil.Process(supervisor)
        wait_until(found.children)
        below = psutil.Process(self.process.pid).children(recursive=True)
        assert len(below) == 3, below
        return below

    def supervisors_exit_code(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    board = Switchboard(HOST, KEY, attempt=1)
    yield board
    board.close()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def test_a_supervisor_that_is_stopped_sees_that_sparks_worker_is_gone(switchboard: Switchboard, tmp_path: Path) -> None:
    """Spark kills its worker where the job is cancelled; nobody would ever kill what was forked from that."""
    worker = SparkWorker(switchboard.address, tmp_path / "scratch")
    try:
        joined = switchboard.events.get(timeout=PATIENCE_S)
        assert isinstance(joined, Joined)
        processes = worker.node_processes(joined.hello.pid)
        os.kill(joined.hello.pid, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(joined.hello.pid).status() == psutil.STATUS_STOPPED)
    finally:
        worker.kill()
    said, lost = (switchboard.events.get(timeout=PATIENCE_S) for _ in range(2))
    assert isinstance(said, Said)
    assert isinstance(said.message, Failure)
    assert (said.message.kind, said.message.cause) == (Kind.LOST, "Spark's Python worker of this node is gone")
    assert isinstance(lost, Lost)
    assert lost.task == Task(PS, 0)
    wait_until(lambda: not any(map(is_alive, processes)))
    assert not worker.scratch.exists()
    assert is_free(joined.hello.port)


def test_a_node_whose_driver_falls_silent_ends_all_of_itself(tmp_path: Path) -> None:
    """As on a host that is cut off: its connection stays open, and the next attempt has begun when the host is back."""
    with socket.create_server((HOST, 0)) as server:
        worker = SparkWorker(server.getsockname(), tmp_path / "scratch", silence_s=1.0)
        try:
            sock, _ = server.accept()
            line = Line(sock, KEY, DRIVER, 1)
            hello = line.receive_first()
            assert isinstance(hello, Hello)
            line.beat()  # the only one
            processes = worker.node_processes(hello.pid)
            assert worker.supervisors_exit_code() != 0  # and so Spark's task has failed
            wait_until(lambda: not any(map(is_alive, processes)))
            assert not worker.scratch.exists()
            line.close()
        finally:
            worker.kill()


def test_a_parameter_server_on_this_host_is_ended_though_it_is_stopped(switchboard: Switchboard) -> None:
    with ports.listen(HOST) as held:
        address = f"{HOST}:{held.getsockname()[1]}"
        server = ParameterServer(
            0,
            held,
            driver=switchboard.address,
            key=KEY,
            attempt=1,
            driver_host_tasks={PS: [address]},
            start_timeout=600,
        )
        joined = switchboard.events.get(timeout=PATIENCE_S)
        assert isinstance(joined, Joined)
        supervisor = psutil.Process(server.process.pid)
        wait_until(supervisor.children)
        processes = [supervisor, *supervisor.children()]
        supervisor.suspend()
        server.close(0.0)
    wait_until(lambda: not any(map(is_alive, processes)))
    assert isinstance(switchboard.events.get(timeout=PATIENCE_S), Lost)
