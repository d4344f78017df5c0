"""The two names of a host: the address that its nodes call from, and the name that Spark has for it. Pure.

On YARN Spark has that of the NodeManager, which is seldom an address. A node tells its container, as Spark does of an
executor.
"""

from __future__ import annotations

from collections.abc import Iterable

from tfos_job.driver.scheduler_backend import Executor
from tfos_job.protocol.attempt_end import NodeRecord


class ExecutorNames:
    """What is known of both, over all attempts of a training."""

    def __init__(self) -> None:
        self._host_of: dict[str, str] = {}  # Spark's name by container
        self._name_of: dict[str, str] = {}  # Spark's name by address

    def learn_executors(self, executors: Iterable[Executor]) -> None:
        """Notes where containers are, which Spark tells only while they run."""
        self._host_of.update((each.container, each.host) for each in executors if each.container)

    def learn_nodes(self, nodes: Iterable[NodeRecord]) -> None:
        """Notes from which address the nodes of those containers call."""
        for node in nodes:
            if node.process.container in self._host_of and not node.process.on_driver_host:
                self._name_of[node.process.host] = self._host_of[node.process.container]

    def name(self, address: str) -> str:
        """Spark's name of the host with this address; the address itself if it is not known."""
        return self._name_of.get(address, address)

    def addresses(self, executors: Iterable[Executor]) -> tuple[str, ...]:
        """The address of each executor's host; none at all if one of them is not known."""
        address_of = {name: address for address, name in self._name_of.items()}
        found = [address_of.get(each.host, each.host if not each.container else "") for each in executors]
        return tuple(found) if all(found) else ()
