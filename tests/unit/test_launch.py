"""The launch of nodes and their rendezvous: TFoS's clients, and strangers on its port; several in one process."""

from __future__ import annotations

import ast
import contextlib
import os
import pickle
import queue
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.ports import free_port_range
from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.driver import launch
from tfos_job.driver.launch import NodeJob
from tfos_job.driver.reservations import ReservationServer
from tfos_job.errors import ResourceError
from tfos_job.nodes.node import NodeArgs
from tfos_job.nodes.tfos import import_tfos, own_run
from tfos_job.protocol.events import ExecutorAlive, LossExplained
from tfos_job.protocol.failures import Failure
from tfos_job.protocol.topology import Topology

HOST = "127.0.0.1"
KEY = b"k" * 32

# TFoS is patched for good in the process of a node, so this happens in one of its own.
NODE = """
import sys
from tfos_job.nodes.tfos import import_tfos, secure_reservations
tfos = import_tfos()
assert "tensorflow" not in sys.modules
secure_reservations(tfos, b"k" * 32, 2)
client = tfos.reservation.Client(("127.0.0.1", int(sys.argv[1])))
assert client.get_reservations() == []
node = {"executor_id": 0, "host": "a", "job_name": "worker", "task_index": 0, "port": 4, "tb_pid": 0, "tb_port": 0}
client.register({**node, "addr": "/tmp/x", "authkey": b"secret"})
print(client.await_reservations(), flush=True)
"""


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os._exit(99)",)


@pytest.fixture
def server() -> Iterator[ReservationServer]:
    server = ReservationServer(KEY, HOST, None, attempt=2).expect(1)
    server.start()
    yield server
    server.stop()


def node_job(events: queue.Queue[Any], port_range: tuple[int, int] | None = None, sc: Any = None) -> NodeJob:
    args = NodeArgs(
        driver=(HOST, 1),
        key=KEY,
        attempt=2,
        driver_host_tasks={},
        inputs=(),
        num_gpus=0,
        local=True,
        start_timeout=600,
        port_range=port_range,
    )
    return NodeJob(sc, Topology(1, 1), args, events)


@pytest.mark.timeout(60)
def test_a_stranger_neither_runs_code_nor_stalls_the_start(server: ReservationServer) -> None:
    bomb = pickle.dumps(Bomb())
    with socket.create_connection(server.address) as attacker, socket.create_connection(server.address) as staller:
        attacker.sendall(struct.pack(">I", len(bomb)) + bomb)  # TFoS's own protocol: it would unpickle this
        staller.sendall(b"\0\0")
        command = [sys.executable, "-c", NODE, str(server.address[1])]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        assert done.returncode == 0, done.stderr
    (node,) = server.await_reservations(None, None, 600)
    assert node == {"executor_id": 0, "host": "a", "job_name": "worker", "task_index": 0, "port": 4, "tb_port": 0}
    assert ast.literal_eval(done.stdout) == [node]


def test_the_rendezvous_listens_on_one_address(server: ReservationServer) -> None:
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.2", server.address[1])):
        pass


def test_a_closed_rendezvous_gives_its_port_to_the_next_one_at_once() -> None:
    port_range = free_port_range(1)
    for _ in range(3):
        server = ReservationServer(KEY, HOST, port_range).expect(2)
        server.start()
        ended: list[str] = []

        def wait(server: ReservationServer = server, ended: list[str] = ended) -> None:
            with pytest.raises(ResourceError, match="closed before all nodes had come"):
                server.await_reservations(None, None, 600)
            ended.append("in good order")

        waiting = threading.Thread(target=wait)
        waiting.start()
        with socket.create_connection(server.address) as node:
            node.settimeout(PATIENCE_S)
            server.stop()
            with contextlib.suppress(ConnectionResetError):
                assert node.recv(1) == b""  # a node that waits is not left waiting
        waiting.join(PATIENCE_S)
        assert ended
    closed_before = ReservationServer(KEY, HOST, port_range).expect(1)
    closed_before.stop()
    with pytest.raises(ResourceError, match="closed"):
        closed_before.start()


def test_clusters_of_one_process_know_nothing_of_each_other() -> None:
    tfos = import_tfos()
    made: list[int] = []
    first, second = (own_run(tfos, made.append) for _ in range(2))
    first.__globals__["tf_status"]["error"] = "it died"
    assert second.__globals__["tf_status"] == tfos.TFCluster.tf_status == {}
    second.__globals__["reservation"].Server(3)
    assert made == [3]
    assert tfos.TFCluster.run.__globals__["reservation"] is tfos.reservation


def test_a_launch_that_fails_before_tfos_runs_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise ModuleNotFoundError("no pkg_resources")

    monkeypatch.setattr(launch, "import_tfos", fail)
    events: queue.Queue[Any] = queue.Queue()
    job = node_job(events)
    job.start()
    failure = events.get(timeout=PATIENCE_S)
    assert failure.exit_code == 69
    assert "TFCluster did not start: ModuleNotFoundError: no pkg_resources" in failure.cause
    job.close(0)


class Summary:
    """What Spark says of an executor."""

    def __init__(self, executor: str, container: str, why: str) -> None:
        self._executor, self._container, self._why = executor, container, why

    def id(self) -> str:
        return self._executor

    def attributes(self) -> Any:
        return {"CONTAINER_ID": Option(self._container)}

    def removeReason(self) -> Any:
        return Option(self._why)


class Option:
    """A Scala Option."""

    def __init__(self, value: str) -> None:
        self._value = value

    def isDefined(self) -> bool:
        return bool(self._value)

    def get(self) -> str:
        return self._value


class Context:
    """A SparkContext: its executors, the groups it cancels, and jobs that wait for their end."""

    def __init__(self) -> None:
        self.executors = [Summary("1", "container_1", "of another attempt"), Summary("2", "container_2", "")]
        self.active = {"2"}
        self.cancelled: list[str] = []
        self.groups: list[str] = []
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self._jsc = self
        self.cancelJobGroupAndFutureJobs = self.cancelled.append

    def sc(self) -> Context:
        return self

    statusStore = schedulerBackend = sc  # noqa: N815 - Spark's name

    def isExecutorActive(self, executor: str) -> bool:
        return executor in self.active

    def executorList(self, active_only: bool) -> Any:
        assert not active_only
        found = self.executors

        class List:
            def size(self) -> int:
                return len(found)

            def apply(self, i: int) -> Summary:
                return found[i]

        return List()

    def setJobGroup(self, group: str, description: str, **interrupt_on_cancel: bool) -> None:
        assert interrupt_on_cancel == {"interruptOnCancel": True}
        assert description == "Attempt 2: TFCluster of 2 nodes"
        self.groups.append(group)

    def foreachPartition(self, _: Callable[..., None]) -> None:
        self.begun.set()
        assert self.goes_on.wait(PATIENCE_S)
        raise RuntimeError("cancelled part of job group")


def test_what_ends_after_the_close_of_a_cluster_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context()
    events: queue.Queue[Any] = queue.Queue()

    def run_until_closed(_: Any, expect: Callable[[int], ReservationServer]) -> Callable[..., None]:
        def run(*_: Any, num_executors: int, **__: Any) -> None:
            server = expect(num_executors)
            server.start()
            threading.Thread(target=spark_job, daemon=True).start()
            server.await_reservations(None, {}, 600)

        return run

    monkeypatch.setattr(launch, "own_run", run_until_closed)
    port_range = free_port_range(1)
    first, second = node_job(events, port_range, context), None
    ended: list[Exception] = []

    def spark_job() -> None:
        try:
            first.run_spark_job(context, lambda _: None)
        except RuntimeError as error:
            ended.append(error)

    first.start()
    assert context.begun.wait(PATIENCE_S)
    first.close(0)
    second = node_job(events, port_range, context)  # the port is free at once
    context.goes_on.set()
    wait_until(lambda: bool(ended))
    assert context.cancelled == context.groups
    assert second._group != context.groups[0]
    assert events.empty()
    second.close(0)


def test_the_loss_of_an_executor_before_the_attempt_explains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context()
    monkeypatch.setattr(launch, "own_run", lambda *_: lambda *_, **__: None)
    job = node_job(queue.Queue(), sc=context)
    job.start()
    wait_until(lambda: bool(job._lost_before))
    assert job.ask("") is None
    assert job.ask("container_2") == ExecutorAlive()
    context.active.clear()  # its connection is gone, and YARN has not told why
    assert job.ask("container_2") is None
    context.executors[1] = Summary("2", "container_2", "it was killed")
    assert job.ask("") == job.ask("container_2") == LossExplained("it was killed")
    assert job.ask("container_3") is None
    job.close(0)


def test_a_failure_of_spark_is_told_once() -> None:
    context = Context()
    context.goes_on.set()
    events: queue.Queue[Any] = queue.Queue()
    job = node_job(events, sc=context)
    with pytest.raises(RuntimeError):
        job.run_spark_job(context, lambda _: None)
    assert isinstance(events.get_nowait(), Failure)
    assert events.empty()
    assert job.wait(0)
    job.close(0)
    assert context.cancelled == []


PAGE = """Task 1 in stage 0.0 failed 1 times, most recent failure: Lost task 1.0 in stage 0.0 (TID 1) (host executor 2):
Traceback (most recent call last):
  File "/tfos_job/nodes/node.py", line 85, in main
{}
"""


@pytest.mark.parametrize(
    ("raised", "exit_code"),
    [
        ("tfos_job.protocol.frames.LineClosed: cannot reach the driver at 10.0.0.1:4000: timed out", 71),
        ("tfos_job.nodes.account.NodeFailed: the line to the driver is gone: silent for 20 s", 71),
        ("ConnectionRefusedError: [Errno 111] Connection refused", 71),
        ("TimeoutError: timed out", 71),
        ("OSError: [Errno 28] No space left on device: '/tmp/ps-0'", 74),
        ("ModuleNotFoundError: No module named 'mine'", 70),
    ],
)
def test_a_node_that_could_not_tell_the_driver_why_it_failed_may_be_started_again(raised: str, exit_code: int) -> None:
    """A cut cable during the start: nothing but Spark's exception tells of it."""
    assert launch._spark_cause(RuntimeError(PAGE.format(raised))) == (raised, exit_code)
