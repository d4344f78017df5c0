"""Which daemons there are, and at which addresses. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
NUM_DATANODES = 2  # without hosts of their own

# The heaps hold a laptop's file system and a handful of applications. One compiler tier and the serial collector save
# start-up time and memory, and nothing here runs long enough to miss the others.
# Without Hadoop's native library a NodeManager starts a `chmod` for each of 11,000 files of an environment; by vfork
# each of them takes two thirds of the time.
_FAST_FORKS = "-Djdk.lang.Process.launchMechanism=VFORK"
JVM_FLAGS = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xss512k", "-Xshare:auto", _FAST_FORKS]


@dataclass(frozen=True)
class Daemon:
    """One process: its main class, the largest heap, and the settings that are its own.

    Attributes:
      ports: what it listens for.
      host: number of the host that it runs on; 0 is this machine itself.
    """

    name: str
    main_class: str
    heap_mb: int
    ports: tuple[str, ...]
    host: int = 0

    @property
    def is_nodemanager(self) -> bool:
        return self.name.startswith("nodemanager")

    @property
    def is_datanode(self) -> bool:
        return self.name.startswith("datanode")


_NAMENODE = Daemon("namenode", "org.apache.hadoop.hdfs.server.namenode.NameNode", 160, ("rpc", "http"))
_RESOURCEMANAGER = Daemon(
    "resourcemanager",
    "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager",
    192,
    ("client", "scheduler", "tracker", "admin", "http"),
)


def _datanode(number: int, host: int) -> Daemon:
    main_class = "org.apache.hadoop.hdfs.server.datanode.DataNode"
    return Daemon(f"datanode{number}", main_class, 96, ("data", "ipc", "http"), host)


def _nodemanager(name: str, host: int) -> Daemon:
    main_class = "org.apache.hadoop.yarn.server.nodemanager.NodeManager"
    return Daemon(name, main_class, 160, ("rpc", "localizer", "collector", "http"), host)


def daemons_of(num_hosts: int) -> tuple[Daemon, ...]:
    """All of them on this machine; or a NodeManager and a DataNode on each host, and the two others here."""
    numbers = range(1, (num_hosts or NUM_DATANODES) + 1)
    datanodes = [_datanode(number, number if num_hosts else 0) for number in numbers]
    nodemanagers = [_nodemanager(f"nodemanager{number}", number) for number in numbers if num_hosts]
    return (_NAMENODE, *datanodes, _RESOURCEMANAGER, *(nodemanagers or [_nodemanager("nodemanager", 0)]))


@dataclass(frozen=True)
class Layout:
    """The daemons and their addresses.

    Attributes:
      ports: by daemon and purpose, such as `namenode.rpc`.
      here: address of this machine's daemons.
      hosts: the hosts' addresses; empty where there are none.
    """

    daemons: tuple[Daemon, ...]
    ports: Mapping[str, int]
    here: str
    hosts: Sequence[str] = ()

    def address(self, daemon: str) -> str:
        (host,) = (each.host for each in self.daemons if each.name == daemon)
        return self.hosts[host - 1] if host else self.here

    def at(self, name: str) -> str:
        """HOST:PORT of a name in `ports`."""
        return f"{self.address(name.partition('.')[0])}:{self.ports[name]}"

    @property
    def datanodes(self) -> list[Daemon]:
        return [daemon for daemon in self.daemons if daemon.is_datanode]

    @property
    def nodemanagers(self) -> list[Daemon]:
        return [daemon for daemon in self.daemons if daemon.is_nodemanager]
