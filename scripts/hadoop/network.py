"""Hosts on this machine: network namespaces, each with an address of its own, behind one bridge. It takes root.

    this machine ── bridge 10.x.y.1 ┬── veth ── host1: eth0 10.x.y.11
                                    ├── veth ── host2: eth0 10.x.y.12
                                    └── …

All names come from FOLDER's path, so that what a killed `up` has left is found, and nothing else is ever touched. Files
and processes are this machine's: only the network is cut off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from .problem import HadoopError

NAMESPACES_DIR = Path("/run/netns")
MAX_HOSTS = 9
COMMAND_TIMEOUT_S = 30
LOCK_TIMEOUT_S = 60
_PROGRAMS = ("ip", "tc", "nsenter", "unshare")
_SUBNETS = [f"10.{second}.{third}" for second in range(64, 128) for third in range(256)]
# A burst is what may pass at once: at 1 Gbit/s some 2 ms of it. More than `latency` worth of waiting packets is lost.
_SHAPE = ("burst", "256k", "latency", "2s")


@dataclass(frozen=True)
class Host:
    """One host: its name, its address, its namespace, and the bridge's end of its cable."""

    name: str
    address: str
    namespace: str
    link: str


class Network:
    """The bridge and the hosts of a folder.

    Args:
      folder: FOLDER, resolved.
      subnet: the first three numbers of all addresses.
      num_hosts: number of hosts.
    """

    def __init__(self, folder: Path, subnet: str, num_hosts: int) -> None:
        tag = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
        self.subnet = subnet
        self.bridge = f"tfh{tag}"  # a link's name has at most 15 characters
        self._namespace_prefix = f"tfos_job-{tag}-"
        self.gateway = f"{subnet}.1"
        self.hosts = [self._host(number) for number in range(1, num_hosts + 1)]

    def _host(self, number: int) -> Host:
        address = f"{self.subnet}.{10 + number}"
        return Host(f"host{number}", address, f"{self._namespace_prefix}{number}", f"{self.bridge}-{number}")

    def find(self, name: str) -> Host:
        """The host of a name or an address.

        Raises:
          HadoopError: there is none.
        """
        for host in self.hosts:
            if name in (host.name, host.address):
                return host
        known = ", ".join(f"{host.name} ({host.address})" for host in self.hosts)
        raise HadoopError(f"no host {name!r}; there are {known}", 2)

    # --- making and removing ---

    @property
    def is_whole(self) -> bool:
        links = [self.bridge, *(host.link for host in self.hosts)]
        return all(map(_is_link, links)) and all((NAMESPACES_DIR / host.namespace).exists() for host in self.hosts)

    def create(self) -> None:
        """Makes the bridge and the hosts; what was left of them is removed before.

        Raises:
          HadoopError: the system does not allow it; nothing of it is left.
        """
        self.remove()
        try:
            with _one_at_a_time():
                if not _is_free(self.subnet):
                    raise HadoopError(f"the addresses {self.subnet}.0/24 are in use on this machine")
                _ip("link", "add", self.bridge, "type", "bridge")
                _ip("addr", "add", f"{self.gateway}/24", "dev", self.bridge)
                _ip("link", "set", self.bridge, "up")
            for host in self.hosts:
                self._create_host(host)
        except BaseException:
            self.remove()
            raise

    def _create_host(self, host: Host) -> None:
        _ip("netns", "add", host.namespace)
        _ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        _ip("link", "set", host.link, "master", self.bridge, "up")
        _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host.namespace, "link", "set", "eth0", "up")
        _ip("-n", host.namespace, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Removes all links and namespaces of this folder's names, however many there are."""
        for link in sorted(self._links(), reverse=True):  # the bridge, whose name begins theirs, comes last
            _ip("link", "del", link, check=False)  # it may go with its other end
        for namespace in self.namespaces():
            _ip("netns", "del", namespace)
        if left := self._links():
            raise HadoopError(f"cannot remove {', '.join(left)}")

    def _links(self) -> list[str]:
        return [name for _, name in socket.if_nameindex() if name == self.bridge or name.startswith(f"{self.bridge}-")]

    def namespaces(self) -> list[str]:
        if not NAMESPACES_DIR.is_dir():
            return []
        return sorted(entry.name for entry in NAMESPACES_DIR.iterdir() if entry.name.startswith(self._namespace_prefix))

    def process_ids(self) -> list[int]:
        """Processes whose network is one of the hosts'."""
        found = []
        for namespace in self.namespaces():
            done = _ip("netns", "pids", namespace, check=False)  # it may be half removed
            found += [int(word) for word in done.stdout.split()]
        return found

    # --- cables ---

    def cut(self, host: Host) -> None:
        """At the bridge's end: the host's own interface stays up, and has no carrier."""
        _ip("link", "set", host.link, "down")

    def heal(self, host: Host) -> None:
        _ip("link", "set", host.link, "up")

    def is_cut(self, host: Host) -> bool:
        (link,) = _json("ip", "-j", "link", "show", "dev", host.link)
        return "UP" not in link["flags"]

    def limit(self, host: Host, rate: str) -> None:
        """Limits both directions of a host's cable to a rate that `tc` understands, such as 100mbit; `off` ends it."""
        for place in ([host.link], [host.namespace, "eth0"]):
            *namespace, device = place
            command = ["tc", *(word for name in namespace for word in ("-n", name)), "qdisc"]
            if rate == "off":
                _run([*command, "del", "dev", device, "root"], check=False)  # there may be none
            else:
                _run([*command, "replace", "dev", device, "root", "tbf", "rate", rate, *_SHAPE])

    def mbit_per_second(self, host: Host) -> float | None:
        """The limit of a host's cable; None where there is none."""
        for found in _json("tc", "-j", "qdisc", "show", "dev", host.link):
            if found["kind"] == "tbf":
                return found["options"]["rate"] * 8 / 1e6
        return None


def require_rights(num_hosts: int) -> None:
    """Raises:
    HadoopError: hosts cannot be made here.
    """
    if not 1 <= num_hosts <= MAX_HOSTS:
        raise HadoopError(f"--hosts {num_hosts} is not from 1 to {MAX_HOSTS}", 2)
    if os.geteuid() != 0:
        raise HadoopError("--hosts needs root, which alone may make network namespaces; without it leave out --hosts")
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise HadoopError(f"--hosts needs {', '.join(missing)} (packages iproute2 and util-linux); nothing was made")


def choose_subnet() -> str:
    for subnet in random.sample(_SUBNETS, 200):
        if _is_free(subnet):
            return subnet
    raise HadoopError("no free addresses between 10.64.0.0 and 10.127.255.255")


def _is_free(subnet: str) -> bool:
    """Whether no route but the default one leads there; an interface's own addresses are routes, too."""
    wanted = IPv4Network(f"{subnet}.0/24")
    routes = (route["dst"] for route in _json("ip", "-j", "-4", "route", "show", "table", "all"))
    return not any(route != "default" and IPv4Network(route, strict=False).overlaps(wanted) for route in routes)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Who holds this name may take addresses. It belongs to this network, and goes with its process."""
    deadline_s = time.monotonic() + LOCK_TIMEOUT_S
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                lock.bind("\0tfos_job-hadoop-network")
                break
            except OSError as error:
                if time.monotonic() > deadline_s:
                    raise HadoopError("another `scripts/hadoop.sh up --hosts` does not end") from error
                time.sleep(0.05)
        yield


def _is_link(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return _run(["ip", *words], check=check)


def _json(*words: str) -> Any:
    return json.loads(_run(list(words)).stdout or "[]")


def _run(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if check and done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise HadoopError(f"`{' '.join(command)}` fails: {said}")
    return done
