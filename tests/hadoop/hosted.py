"""A Hadoop on hosts that can be cut off, and where a training's processes are on them; for tests and campaigns."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from scripts.hadoop.network import require_rights
from scripts.hadoop.problem import HadoopError
from tests.command import role_of
from tests.hadoop.conftest import Hadoop

NUM_HOSTS = 3
SHARE = 0.6
"""Of a host's memory: the driver's container has so much of it that no executor finds room beside it."""


def obstacle() -> str:
    """Why there can be no hosts here, in words; empty where there can."""
    try:
        require_rights(NUM_HOSTS)
    except HadoopError as error:
        return str(error)
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "ip", "link", "add", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if tried.returncode == 0 else f"network namespaces or bridges may not be made: {tried.stderr.strip()}"


class HostedHadoop(Hadoop):
    """NodeManager and DataNode on each of three hosts; the two others, and a driver in client mode, are on none."""

    num_hosts = NUM_HOSTS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.hidden = []  # containers take this host's Python by its path: nothing is packed, sent and unpacked

    @property
    def hosts(self) -> list[str]:
        return [f"{self.state['subnet']}.{10 + number}" for number in range(1, NUM_HOSTS + 1)]

    def processes_on(self, host: str) -> list[psutil.Process]:
        """The processes whose network is a host's, but for its daemons."""
        daemons = {self.pid(f"{kind}{self.hosts.index(host) + 1}") for kind in ("nodemanager", "datanode")}
        daemon = psutil.Process(max(daemons))
        network = os.readlink(f"/proc/{daemon.pid}/ns/net")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/net") == network and process.pid not in daemons:
                    found.append(process)
        return found

    def places(self) -> dict[str, str]:
        """The host of each role that a process has somewhere now: driver, coordinator, ps, worker, executor."""
        return {role: host for host in self.hosts for process in self.processes_on(host) for role in _roles(process)}

    def cut(self, host: str) -> None:
        self.run("cut", host)

    def heal(self, host: str) -> None:
        self.run("heal", host)

    def rate(self, host: str, rate: str) -> None:
        self.run("rate", host, rate)

    def reset(self, host: str, other: str) -> int:
        """Resets the established TCP connections between two hosts, at one of them; returns how many there were."""
        (pid, *_) = [self.pid(f"nodemanager{self.hosts.index(host) + 1}")]
        command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ss", "-K", "-H", "-t", "dst", other]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return len(done.stdout.splitlines())

    @property
    def node_memory_mb(self) -> int:
        nodes = self.rest("/ws/v1/cluster/nodes")["nodes"]["node"]
        return min(node["availMemoryMB"] + node["usedMemoryMB"] for node in nodes)


def _roles(process: psutil.Process) -> Iterator[str]:
    with contextlib.suppress(psutil.Error):
        if role := role_of(process):
            yield role
        elif "org.apache.spark.deploy.yarn.ApplicationMaster" in process.cmdline():
            yield "driver"
