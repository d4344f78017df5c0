"""What the processes of a job listen on, as the kernel tells it, and who each of them is."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from tests.command import role_of

LISTENS, ESTABLISHED, UNCONNECTED = "0A", "01", "07"
ACCEPTS = 0x10000
"""The flag of a Unix socket that listens, in /proc/net/unix."""

DRIVER, JVM, EXECUTOR_JVM = "driver", "Spark's JVM of the driver", "Spark's JVM of an executor"
DAEMON, SUPERVISOR, FORKED = "Spark's Python daemon", "supervisor", "process of TFoS"
WORKER, PS, COORDINATOR = "worker", "parameter server", "coordinator"
_ROLES = {"worker": WORKER, "ps": PS, "coordinator": COORDINATOR, "executor": EXECUTOR_JVM, "driver": JVM}
_SERVERS = (WORKER, PS, COORDINATOR)

TENSORFLOW, HELD, LINE, RENDEZVOUS = "TensorFlow's gRPC", "held for TensorFlow", "control line", "rendezvous"
PY4J, SPARK, PAGE, PYTHONS = "py4j", "Spark's network", "Spark's page", "Spark's Python workers"
ACCUMULATORS, LOCAL = "Spark's accumulators", "Unix socket"
PROCESSES = (DRIVER, COORDINATOR, WORKER, PS, SUPERVISOR, FORKED, JVM, EXECUTOR_JVM, DAEMON)
NAMES = (TENSORFLOW, HELD, LINE, RENDEZVOUS, SPARK, PAGE, PY4J, ACCUMULATORS, PYTHONS, LOCAL)
"""Of ports, in the order of tables."""


@dataclass(frozen=True)
class Listener:
    """A socket that other processes can reach.

    Attributes:
      pid: of a process that has it open.
      process: what that process is.
      kind: `tcp`, `tcp6`, `udp`, `udp6` or `unix`.
      address: of an interface, or the path of a Unix socket.
      port: 0 for a Unix socket.
      port_name: what it is for.
    """

    pid: int
    process: str
    kind: str
    address: str
    port: int
    port_name: str = ""

    @property
    def is_for_all(self) -> bool:
        return self.kind != "unix" and ipaddress.ip_address(self.address).is_unspecified

    @property
    def is_loopback(self) -> bool:
        return self.kind != "unix" and _plain(self.address).is_loopback


@dataclass(frozen=True)
class _Entry:
    """A line of /proc/PID/net/{tcp,udp}*."""

    kind: str
    address: str
    port: int
    peer: tuple[str, int]
    state: str
    inode: str


def kind_of(process: psutil.Process) -> str:
    """What a process of a job is; empty if it has gone."""
    try:
        if role := role_of(process):
            return _ROLES[role]
        words = process.cmdline()
        if process.name() == "java":
            return JVM
        if "tfos_job.nodes.driver_host" in words:
            return SUPERVISOR
        if "pyspark.daemon" not in words:
            return DRIVER
        if (parent := process.parent()) is not None and parent.name() == "java":
            return DAEMON
        is_supervisor = any(role_of(child) in ("worker", "ps") for child in process.children())
        return SUPERVISOR if is_supervisor else FORKED
    except psutil.Error:
        return ""


def listeners(
    processes: Iterable[psutil.Process], known: Mapping[int, str] | None = None, *, with_unix: bool = True
) -> list[Listener]:
    """Each socket once, though several processes may have it open.

    Args:
      processes: of one job, on any hosts of this machine.
      known: the names of ports that their owner has told.
      with_unix: also sockets in the file system.
    """
    found: dict[tuple[str, str], Listener] = {}
    peers: dict[tuple[str, int], str] = {}
    talks: dict[int, set[tuple[str, int]]] = {}
    for process in processes:
        if not (kind := kind_of(process)):
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            network = os.readlink(f"/proc/{process.pid}/ns/net")
            inodes = set(_sockets_of(process.pid))
            for entry in _entries(process.pid, inodes):
                if entry.state == ESTABLISHED:
                    peers[entry.address, entry.port] = kind
                    talks.setdefault(entry.port, set()).add(entry.peer)
                elif entry.state == (LISTENS if entry.kind.startswith("tcp") else UNCONNECTED):
                    socket = Listener(process.pid, kind, entry.kind, entry.address, entry.port)
                    found.setdefault((network, entry.inode), socket)
            for path, inode in _unix(process.pid) if with_unix else ():
                if inode in inodes:
                    found.setdefault((network, inode), Listener(process.pid, kind, "unix", path, 0))
    # What holds a port for TensorFlow shares it: packets cannot be sent to one of the two.
    served = {(network, each.port) for (network, _), each in found.items() if each.process in _SERVERS}
    found = {key: each for key, each in found.items() if each.process in _SERVERS or (key[0], each.port) not in served}
    callers = {port: {peers.get(peer, "") for peer in ends} for port, ends in talks.items()}
    return [replace(each, port_name=_name(each, callers.get(each.port, set()), known or {})) for each in found.values()]


def _name(listener: Listener, callers: set[str], known: Mapping[int, str]) -> str:
    """What a port is for, by its owner and by who is connected."""
    if listener.port in known and listener.process in (DRIVER, JVM):
        return known[listener.port]
    if listener.kind == "unix":
        return LOCAL
    match listener.process:
        case kind if kind in _SERVERS:
            return TENSORFLOW
        case kind if kind == DAEMON:
            return PYTHONS
        case kind if kind == JVM:
            return PY4J if DRIVER in callers and listener.is_loopback else SPARK
        case kind if kind == EXECUTOR_JVM:
            return SPARK
        case kind if kind == DRIVER:
            return LINE if callers & {SUPERVISOR, COORDINATOR} else ACCUMULATORS
    return HELD


def _sockets_of(pid: int) -> Iterator[str]:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(entry)
            if target.startswith("socket:["):
                yield target[len("socket:[") : -1]


def _entries(pid: int, inodes: Collection[str]) -> Iterator[_Entry]:
    """Of these sockets: those of connections that have ended can be very many."""
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
                words = line.split(maxsplit=10)
                if words[9] in inodes:
                    address, port = _end(words[1])
                    yield _Entry(kind, address, port, _end(words[2]), words[3], words[9])


def _end(text: str) -> tuple[str, int]:
    """`0100007F:1F90` is 127.0.0.1 and 8080; IPv4 in IPv6 is told as IPv4."""
    address, port = text.split(":")
    packed = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
    return str(_plain(str(ipaddress.ip_address(packed)))), int(port, 16)


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _unix(pid: int) -> Iterator[tuple[str, str]]:
    """Path and inode of those that listen; an abstract one begins with @."""
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        if len(words) == 8 and int(words[3], 16) & ACCEPTS:
            yield words[7], words[6]


def num_kept(listener: Listener, callers: Collection[tuple[str, int]]) -> int:
    """How many connections of these callers a listener's process has open, or a child to which it has given one.

    Of this listener alone: a caller may have the port that one had before, of another port of the process or its child.
    """
    pid = listener.pid
    inodes: set[str] = set()
    for each in (pid, *_children(pid)):
        with contextlib.suppress(OSError):
            inodes |= set(_sockets_of(each))
    with contextlib.suppress(OSError):
        return sum(entry.peer in callers and entry.port == listener.port for entry in _entries(pid, inodes))
    return 0


def _children(pid: int) -> list[int]:
    with contextlib.suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children()]
    return []
