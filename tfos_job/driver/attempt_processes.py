"""An attempt's processes on the driver's host: the coordinator, and the parameter servers with --ps_place driver."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import BinaryIO

from tfos_job.host import container, server_port, stacks
from tfos_job.host.child import Child, child_environment
from tfos_job.host.memory import Meter
from tfos_job.host.ports import PortRange
from tfos_job.nodes.account import MemoryAccount
from tfos_job.nodes.driver_host import ParameterServer
from tfos_job.protocol import failures
from tfos_job.protocol.events import ChildEnded, Said
from tfos_job.protocol.topology import CHIEF, COORDINATOR, PS, Task, Topology
from tfos_job.run.assignment import Assignment, RunAssignment
from tfos_job.run.json_values import to_json

log = logging.getLogger(__name__)

_SERVER_STOP_S = 1.0


class AttemptProcesses:
    """The children of the driver for one attempt, and the ports that are held for them.

    Attributes:
      addresses: `host:port` of each, by role.
      coordinator: None before the start.
    """

    def __init__(
        self,
        topology: Topology,
        driver_host: str,
        port_range: PortRange | None,
        attempt: int,
        *,
        require_isolation: bool = False,
    ) -> None:
        """Takes the ports; starts nothing yet.

        Each port is held until its process takes it: the nodes must know the addresses before these processes serve.

        Raises:
          ResourceError: there is no free port.
          SettingsError: the kernel does not guard one, and `require_isolation`.
        """
        self._attempt = attempt
        self._require_isolation = require_isolation
        with contextlib.ExitStack() as taken:
            held = [
                taken.enter_context(server_port.hold(driver_host, port_range))
                for _ in range(1 + topology.num_driver_ps_tasks)
            ]
            if warning := held[0].judge(is_required=require_isolation):
                log.warning("%s", warning)
            taken.pop_all()
        self._chief_port, *self._ps_ports = held
        self.addresses = {CHIEF: [self._chief_port.address]}
        if self._ps_ports:
            self.addresses[PS] = [held.address for held in self._ps_ports]
        self._servers: list[ParameterServer] = []
        self.coordinator: Child | None = None
        self._coordinator_log = _open_log()
        self._log_start = container.begin_log(self._coordinator_log, attempt)
        # TensorFlow leaves the source of every function it has traced in the folder for temporary files.
        self._scratch = container.make_scratch(attempt)
        self._noticed: set[Task] = set()
        self._memory: MemoryAccount | None = None  # the coordinator's

    def start(self, driver: tuple[str, int], key: bytes, start_timeout: int) -> None:
        """Spawns the processes. They import TensorFlow while Spark starts the nodes, which also takes seconds.

        Args:
          driver: address of the driver's switchboard.
          key: of the lines to it.
          start_timeout: seconds for a server to answer.
        """
        for index, held in enumerate(self._ps_ports):
            server = ParameterServer(
                index,
                held,
                driver=driver,
                key=key,
                attempt=self._attempt,
                driver_host_tasks=self.addresses,
                start_timeout=start_timeout,
                require_isolation=self._require_isolation,
            )
            self._servers.append(server)
        self.coordinator = Child(
            "tfos_job.training.coordinator",
            name="the coordinator",
            # A GPU that the coordinator opened would be missing to a worker.
            env={**child_environment(""), "TMPDIR": self._scratch, **self._chief_port.environment},
            output=self._coordinator_log,
            pass_fds=(self._chief_port.fd_to_keep,),
        )
        self._memory = MemoryAccount(Meter([self.coordinator.pid]))

    def admit(self, hosts: Collection[str]) -> None:
        """Lets these hosts, by their addresses, connect to the coordinator, from which workers ask for values."""
        self._chief_port.admit(hosts)

    def assign_coordinator(
        self, run: RunAssignment, *, driver: tuple[str, int], key: bytes, nodes: Mapping[str, Sequence[str]]
    ) -> None:
        """Gives the coordinator its assignment, and its port.

        Args:
          run: the part that is about the run.
          driver: address of the driver's switchboard.
          key: of the lines to it.
          nodes: `host:port` of each node, by role.
        """
        assert self.coordinator is not None
        if self._chief_port.fd_to_release is not None:
            self._chief_port.release()
        cluster = {**self.addresses, **nodes}
        assignment = Assignment(
            run=run, driver=driver, key=key.hex(), attempt=self._attempt, cluster=cluster, scratch=self._scratch
        )
        self.coordinator.tell(to_json(assignment))

    def newly_ended(self) -> Iterator[ChildEnded | Said]:
        """Those that have ended since the last call."""
        children = [(server.task, server.process, "its supervisor") for server in self._servers]
        if self.coordinator is not None:
            children.append((COORDINATOR, self.coordinator, "the coordinator"))
        for task, process, name in children:
            code = process.poll()
            if code is not None and task not in self._noticed:
                self._noticed.add(task)
                if task == COORDINATOR:
                    yield from self._vitals(process.pid)
                yield ChildEnded(task, name, code, self.log_tail(task))

    def vitals(self) -> Iterator[Said]:
        """The coordinator's memory, every ten seconds, if it has changed: it does not measure itself."""
        yield from self._vitals()

    def _vitals(self, ended: int | None = None) -> Iterator[Said]:
        if self._memory is not None:
            found = self._memory.due() if ended is None else self._memory.news(ended)
            if found is not None:
                yield Said(COORDINATOR, found)

    def log_tail(self, task: Task) -> str:
        """The last lines of the coordinator's log; empty for others, which write into the driver's."""
        if task != COORDINATOR:
            return ""
        # The child writes at the offset that the two share: read without moving it.
        num_bytes = os.fstat(self._coordinator_log.fileno()).st_size - self._log_start
        text = os.pread(self._coordinator_log.fileno(), num_bytes, self._log_start).decode(errors="replace")
        return failures.log_tail(text.splitlines(keepends=True))

    def coordinator_stacks(self) -> str:
        """The Python stacks of the coordinator, or why there are none; takes seconds if it does not answer."""
        if self.coordinator is None:
            return "The coordinator was not started."
        return stacks.of_child(self.coordinator.pid, self._coordinator_log.fileno())

    def end_coordinator(self, grace_s: float) -> None:
        if self.coordinator is not None:
            self.coordinator.end(grace_s)

    def close(self) -> None:
        """Ends the parameter servers, which have been told to stop, and frees what was held."""
        for server in self._servers:
            server.close(_SERVER_STOP_S)
        for held in (self._chief_port, *self._ps_ports):
            held.close()
        self._coordinator_log.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _open_log() -> BinaryIO:
    """The coordinator's log: where YARN keeps it, else a file without a name that ends with the attempt."""
    path = container.log_file("coordinator.log")
    return open(path, "ab+") if path else tempfile.TemporaryFile()
