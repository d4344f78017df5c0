"""A node with its supervisor and its TensorFlow process, which die, stop or lose their driver; real ones, no Spark."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command import is_alive
from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.host import proc, server_port, stacks
from tfos_job.host.child import child_environment
from tfos_job.nodes.driver_host import ParameterServer
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import new_key
from tfos_job.protocol.line import DRIVER, Line
from tfos_job.protocol.messages import Admit, DumpStacks, Hello, Ready, Stacks, Vitals
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import PS, Task

HOST = "127.0.0.1"
KEY = new_key()

# As TFoS does it: Spark's Python worker forks a parameter server's supervisor, and a manager that outlives both.
WORKER = """
import json, multiprocessing, queue, subprocess, sys, time, types
from tfos_job.host import server_port
from tfos_job.nodes import node, supervisor as supervision
from tfos_job.protocol import line

orders = json.loads(sys.argv[1])
line.SILENCE_S = orders.get("silence_s", line.SILENCE_S)
supervision.SILENCE_S = orders.get("process_silence_s", line.SILENCE_S)
held = server_port.hold("127.0.0.1")
manager = subprocess.Popen(["sleep", "3600"])
node.context = node.NodeContext(held, (orders["scratch"],))
args = node.NodeArgs(
    driver=tuple(orders["driver"]), key=bytes.fromhex(orders["key"]), attempt=1, driver_host_tasks={}, inputs=(),
    num_gpus=0, local=True, start_timeout=600,
)
mgr = types.SimpleNamespace(_process=manager, get_queue=lambda _: queue.SimpleQueue())
ctx = types.SimpleNamespace(job_name="ps", task_index=0, cluster_spec={"ps": [held.address]}, mgr=mgr)
context = multiprocessing.get_context("fork")
supervisor = context.Process(target=node.main, args=(args, ctx), daemon=True)
supervisor.start()
supervisor.join()
print(supervisor.exitcode, flush=True)
time.sleep(3600)
"""


class SparkWorker:
    """A Python worker of Spark with a parameter server in it; `silences` of its line and of its TensorFlow process."""

    def __init__(self, driver: tuple[str, int], scratch: Path, **silences: float) -> None:
        scratch.mkdir()
        self.scratch = scratch
        orders = {"driver": driver, "key": KEY.hex(), "scratch": str(scratch), **silences}
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
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


StartWorker = Callable[..., SparkWorker]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    started: list[SparkWorker] = []

    def start(driver: tuple[str, int], **settings: float) -> SparkWorker:
        started.append(SparkWorker(driver, tmp_path / "scratch", **settings))
        return started[-1]

    yield start
    for worker in started:
        below = psutil.Process(worker.process.pid).children(recursive=True) if worker.process.poll() is None else []
        worker.kill()
        for process in below:  # the manager, which Spark's task would end
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    board = Switchboard(HOST, KEY, attempt=1)
    yield board
    board.close()


def heard(switchboard: Switchboard) -> list[Any]:
    """All that the parameter server says until its line ends."""
    messages = []
    while isinstance(event := switchboard.events.get(timeout=PATIENCE_S), Said):
        assert event.task == Task(PS, 0)
        messages.append(event.message)
    assert isinstance(event, Lost)
    return messages


@contextlib.contextmanager
def beating(line: Line[Any, Any]) -> Iterator[None]:
    """Sends beats, for the length of a `with`."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(0.2):
            line.beat()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def joined(switchboard: Switchboard) -> Hello:
    event = switchboard.events.get(timeout=PATIENCE_S)
    assert isinstance(event, Joined)
    return event.hello


def tensorflow_process(worker: SparkWorker, hello: Hello) -> psutil.Process:
    (found,) = (each for each in worker.node_processes(hello.pid) if "server_process" in "".join(each.cmdline()))
    return found


def test_a_supervisor_that_is_stopped_sees_that_sparks_worker_is_gone(
    switchboard: Switchboard, start_worker: StartWorker
) -> None:
    """Spark kills its worker where the job is cancelled; nobody would ever kill what was forked from that."""
    worker = start_worker(switchboard.address)
    hello = joined(switchboard)
    processes = worker.node_processes(hello.pid)
    psutil.Process(hello.pid).suspend()
    wait_until(lambda: psutil.Process(hello.pid).status() == psutil.STATUS_STOPPED)
    worker.kill()
    (failure,) = (said for said in heard(switchboard) if not isinstance(said, Vitals))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.cause) == (Kind.LOST, "Spark's Python worker of this node is gone")
    wait_until(lambda: not any(map(is_alive, processes)))
    assert not worker.scratch.exists()
    wait_until(lambda: is_free(hello.port))  # its threads end one by one, the last one with the port


def test_a_node_whose_driver_falls_silent_ends_all_of_itself(start_worker: StartWorker) -> None:
    """As on a host that is cut off: its connection stays open, and the next attempt has begun when the host is back."""
    with socket.create_server((HOST, 0)) as server:
        worker = start_worker(server.getsockname(), silence_s=3.0, process_silence_s=PATIENCE_S)
        sock, _ = server.accept()
        line = Line(sock, KEY, DRIVER, 1)
        hello = line.receive_any()
        assert isinstance(hello, Hello)
        with beating(line):  # until the TensorFlow process can clean up: before, it is killed after 2 s
            processes = worker.node_processes(hello.pid)
            line.send(Admit((HOST,)))
            while not isinstance(line.receive(), Ready):
                pass
        assert worker.supervisors_exit_code() != 0  # and so Spark's task has failed
        wait_until(lambda: not any(map(is_alive, processes)))
        assert not worker.scratch.exists()
        line.close()


def test_a_parameter_server_on_this_host_is_ended_though_all_of_it_is_stopped(switchboard: Switchboard) -> None:
    with server_port.hold(HOST) as held:
        server = ParameterServer(
            0,
            held,
            driver=switchboard.address,
            key=KEY,
            attempt=1,
            driver_host_tasks={PS: [held.address]},
            start_timeout=600,
        )
        joined(switchboard)
        supervisor = psutil.Process(server.process.pid)
        wait_until(supervisor.children)
        processes = [supervisor, *supervisor.children()]
        wait_until(lambda: proc.catches(processes[1].pid, stacks.SIGNAL))  # it has come to its own code
        for process in processes:
            process.suspend()
        server.close(0.0)
    wait_until(lambda: not any(map(is_alive, processes)))
    heard(switchboard)


def test_a_tensorflow_process_that_is_stopped_is_taken_for_dead_and_ended(
    switchboard: Switchboard, start_worker: StartWorker
) -> None:
    worker = start_worker(switchboard.address, process_silence_s=2.0)
    server = tensorflow_process(worker, joined(switchboard))
    switchboard.send(Task(PS, 0), Admit((HOST,)))
    while not isinstance(switchboard.events.get(timeout=PATIENCE_S).message, Ready):
        pass
    with contextlib.suppress(psutil.NoSuchProcess):  # a machine that stands still for 2 s has been faster
        server.suspend()
    (failure,) = (said for said in heard(switchboard) if not isinstance(said, Vitals))
    assert isinstance(failure, Failure)
    cause = f"its TensorFlow process {server.pid} has been silent for 2 s"
    assert (failure.kind, failure.cause) == (Kind.LOST, cause)
    wait_until(lambda: not is_alive(server))


def test_a_supervisor_tells_the_stacks_of_its_node_and_what_memory_it_had(
    switchboard: Switchboard, start_worker: StartWorker
) -> None:
    worker = start_worker(switchboard.address)
    hello = joined(switchboard)
    server = tensorflow_process(worker, hello)
    wait_until(lambda: proc.catches(server.pid, stacks.SIGNAL))
    for stopped in (False, True):
        if stopped:
            server.suspend()
            wait_until(lambda: server.status() == psutil.STATUS_STOPPED)
        switchboard.send(Task(PS, 0), DumpStacks())
        while not isinstance((told := switchboard.events.get(timeout=PATIENCE_S).message), Stacks):
            assert isinstance(told, Vitals)
        own, _, below = told.text.partition(f"\nTensorFlow, process {server.pid}:\n")
        assert own.startswith(f"Supervisor, process {hello.pid}:\nThread MainThread:\n")
        assert "supervisor.py" in own
        expected = f"Process {server.pid} is stopped: state T (stopped)." if stopped else "server_process.py"
        assert expected in below
    server.kill()
    said = heard(switchboard)
    (failure,) = (each for each in said if isinstance(each, Failure))
    cause = f"its TensorFlow process {server.pid} was killed by SIGKILL"
    assert (failure.kind, failure.cause) == (Kind.KILLED, cause)
    vitals = said[said.index(failure) - 1]  # before it: the driver knows then how much memory it had
    assert isinstance(vitals, Vitals)
    assert vitals.peak_bytes > 30 << 20  # three Pythons
    assert vitals.num_oom_kills == 0
