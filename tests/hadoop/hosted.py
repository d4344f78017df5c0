"""A Hadoop on hosts that can be cut off, and where a training's processes are on them; for tests and campaigns."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from scripts.hadoop.network import Network, require_rights
from scripts.hadoop.problem import HadoopError
from tests.command import is_alive, role_of
from tests.hadoop.conftest import Hadoop

NUM_HOSTS = 3


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

    @staticmethod
    def network_of(folder: Path) -> Network:
        """For the names of its links and namespaces; it need not be there."""
        return Network(folder, "", NUM_HOSTS)

    def daemons(self) -> list[str]:
        """The daemons that were started."""
        return list(self.state["daemons"]) if (self.folder / "hadoop.json").is_file() else []

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

    def places(self, hosts: Sequence[str] = ()) -> dict[str, str]:
        """The host of each role that a process has now, on these hosts or on all: driver, coordinator, ps, worker …"""
        return {
            role: host
            for host in hosts or self.hosts
            for process in self.processes_on(host)
            if (role := _role_of(process))
        }

    def cut(self, host: str) -> None:
        self.run("cut", host)

    def heal(self, host: str) -> None:
        self.run("heal", host)

    def rate(self, host: str, rate: str) -> None:
        self.run("rate", host, rate)

    def find(self, role: str) -> psutil.Process:
        """The process of a role, wherever it is."""
        for host in self.hosts:
            for process in self.processes_on(host):
                if _role_of(process) == role:
                    return process
        raise AssertionError(f"no process is {role}: {self.places()}")

    def reset(self, process: psutil.Process) -> str:
        """Resets one TCP connection that a process has to another host; says which."""
        enter = ["nsenter", f"--net=/proc/{process.pid}/ns/net", "ss", "-H", "-t", "-n"]
        listed = subprocess.run([*enter, "-p", "state", "established"], capture_output=True, text=True, check=True)
        for line in listed.stdout.splitlines():
            _, _, here, there, *users = line.split()
            (source, port), (target, target_port) = here.rsplit(":", 1), there.rsplit(":", 1)
            if source != target and f"pid={process.pid}," in " ".join(users):
                one = ["src", source, "sport", "=", port, "dst", target, "dport", "=", target_port]
                subprocess.run([*enter, "-K", *one], capture_output=True, text=True, check=True)
                return f"{here} - {there}"
        raise AssertionError(f"{process.cmdline()} has no connection to another host: {listed.stdout}")

    def left_behind(self, timeout_s: float) -> str:
        """The processes that containers have left on the hosts, once there was time for their end; in words."""
        deadline_s = time.monotonic() + timeout_s
        while left := [process for host in self.hosts for process in self.processes_on(host) if is_alive(process)]:
            if time.monotonic() > deadline_s:
                return f"left behind: {', '.join(map(str, left))}"
            time.sleep(0.5)
        return ""

    @property
    def node_memory_mb(self) -> int:
        nodes = self.rest("/ws/v1/cluster/nodes")["nodes"]["node"]
        return min(node["availMemoryMB"] + node["usedMemoryMB"] for node in nodes)


def _role_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return role_of(process)
    return ""  # it has ended
