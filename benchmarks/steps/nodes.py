"""The nodes of a training, on Spark and TensorFlowOnSpark as `tfos-job train` starts them, without its coordinator."""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Iterator

from pyspark import SparkContext

from steps.sides import Cluster
from tfos_job.driver.launch import NodeJob
from tfos_job.errors import JobError, ResourceError
from tfos_job.host.addresses import own_addresses
from tfos_job.nodes.node import NodeArgs
from tfos_job.protocol import messages
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure, to_error
from tfos_job.protocol.frames import new_key
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import CHIEF, Task, Topology, WorkerInput

_START_TIMEOUT_S = 300
_STOP_S = 6.0


@contextlib.contextmanager
def nodes_up(sc: SparkContext, topology: Topology, inputs: tuple[WorkerInput, ...]) -> Iterator[Cluster]:
    """A TFCluster whose servers answer, for the length of a `with`; yields all addresses, the coordinator's too."""
    host = sc.getConf().get("spark.driver.host") or ""
    key = new_key()
    switchboard = Switchboard(host, key)
    # Held until the servers answer: they must know the coordinator's address before it is there.
    with socket.create_server((host, 0)) as chief_port:
        chief = "{}:{}".format(*chief_port.getsockname()[:2])
        args = NodeArgs(
            driver=switchboard.address,
            key=key,
            attempt=0,
            driver_host_tasks={CHIEF: [chief]},
            inputs=inputs,
            num_gpus=0,
            local=True,
            start_timeout=_START_TIMEOUT_S,
        )
        job = NodeJob(sc, topology, args, switchboard.events)
        job.start()
        try:
            addresses = _wait_for_servers(switchboard, topology, own_addresses(host))
        except BaseException:
            _take_down(job, topology, switchboard)
            raise
    try:
        job.close_registration()
        cluster: Cluster = {CHIEF: [chief]}
        for task in topology.nodes:
            cluster.setdefault(task.role, []).append(addresses[task])
        yield cluster
    finally:
        _take_down(job, topology, switchboard)


def _wait_for_servers(switchboard: Switchboard, topology: Topology, callers: list[str]) -> dict[Task, str]:
    """The servers' addresses, which answer each other's hosts and `callers`."""
    addresses: dict[Task, str] = {}
    admitted = set(callers)
    ready: set[Task] = set()
    deadline = time.monotonic() + _START_TIMEOUT_S
    while ready != set(topology.nodes):
        try:
            event = switchboard.events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ResourceError(f"the cluster was not up within {_START_TIMEOUT_S} s") from None
        if isinstance(event, Failure):
            raise to_error([event])
        if isinstance(event, Joined):
            addresses[event.task] = f"{event.hello.host}:{event.hello.port}"
            admitted.update(event.hello.addresses)
            if len(addresses) == len(topology.nodes):
                for task in topology.nodes:
                    switchboard.send(task, messages.Admit(tuple(sorted(admitted))))
        elif isinstance(event, Said) and isinstance(event.message, messages.Ready):
            ready.add(event.task)
        elif isinstance(event, Lost) or (isinstance(event, Said) and not isinstance(event.message, messages.Vitals)):
            raise JobError(f"while the cluster was starting: {event}")
    return addresses


def _take_down(job: NodeJob, topology: Topology, switchboard: Switchboard) -> None:
    for task in topology.nodes:
        switchboard.send(task, messages.Stop())
    job.wait(_STOP_S)
    job.close(_STOP_S)
    switchboard.close()
