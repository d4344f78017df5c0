"""Hosts of their own on this machine, with cables of known speed, and a Spark of one executor on each.

The hosts are those of `scripts/hadoop.sh up --hosts`: network namespaces behind a bridge. Spark is a standalone one,
whose master and driver are on the bridge's own address.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyspark
from pyspark import SparkContext

from scripts.hadoop.network import NAMESPACES_DIR, Host, Network, choose_subnet
from steps.sides import Cluster
from tfos_job.driver import local_spark, session
from tfos_job.errors import ResourceError
from tfos_job.host.child import end, module_path
from tfos_job.host.process_environment import VariableChange, applied
from tfos_job.protocol.topology import Topology

UNLIMITED = "off"
_TRIAL = "ip link set lo up && tc qdisc add dev lo root tbf rate 1gbit burst 256k latency 2s && ip link add type bridge"
_RECEIVER = """
import socket, sys, time
listening = socket.create_server((sys.argv[1], 0))
print(listening.getsockname()[1], flush=True)
connection, _ = listening.accept()
began_s, num_bytes = time.monotonic(), 0
while received := len(connection.recv(1 << 20)):
    num_bytes += received
print(num_bytes, time.monotonic() - began_s, flush=True)
"""
_SENDER = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
block, end_s = bytes(1 << 18), time.monotonic() + float(sys.argv[3])
while time.monotonic() < end_s:
    connection.sendall(block)
"""
_START_TIMEOUT_S = 300
_STOP_S = 10.0
_POLL_S = 0.05
_EXECUTOR_MB = 1024  # its Python processes, which TensorFlow runs in, are beside that
_JAVA = f"{local_spark.JAVA_OPTIONS} -XX:-UsePerfData"


def require_rights() -> None:
    """Raises:
    ResourceError: this process may make no namespaces, or cannot shape their cables.
    """
    fact = ""
    try:
        trial = ["unshare", "--net", "sh", "-c", _TRIAL]
        done = subprocess.run(trial, capture_output=True, text=True, timeout=30, check=False)
        fact = "" if done.returncode == 0 else " ".join(done.stderr.split())
        subprocess.run(["nsenter", "--version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        fact = str(error)
    if fact:
        raise ResourceError(
            f"network namespaces with tbf queues cannot be made here ({fact})",
            next_step="Run it as root, where iproute2 and util-linux are installed",
        )


def processor_s() -> float:
    """Processor time of all that has run on this machine, the kernel's work included."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Hosts:
    """The hosts, and what their cables have carried."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def limit(self, gbit: float | None) -> None:
        """Limits each direction of each cable to so many Gbit/s; None for no limit."""
        for host in self._network.hosts:
            self._network.limit(host, UNLIMITED if gbit is None else f"{round(gbit * 1000)}mbit")

    def carried(self, cluster: Cluster) -> dict[str, tuple[int, int]]:
        """Bytes to and from the host of each task, such as `ps:0`, since it was made, by its interface's counters."""
        return {
            f"{role}:{index}": self._counters(self._network.find(address.rpartition(":")[0]))
            for role, addresses in cluster.items()
            for index, address in enumerate(addresses)
            if not address.startswith(f"{self._network.gateway}:")
        }

    def _counters(self, host: Host) -> tuple[int, int]:
        # At the bridge's end of the cable: what leaves there comes to the host.
        files = Path("/sys/class/net", host.link, "statistics")
        return int((files / "tx_bytes").read_text()), int((files / "rx_bytes").read_text())

    def tcp_gbit(self, seconds: float) -> float:
        """Gbit/s of one TCP connection from the first host to the second: what the limit leaves, or these cores."""
        sender, receiver = self._network.hosts[:2]
        command = [*_entering(receiver), sys.executable, "-c", _RECEIVER, receiver.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as listener:
            try:
                port = listener.stdout.readline().strip()
                command = [*_entering(sender), sys.executable, "-c", _SENDER, receiver.address, port, str(seconds)]
                subprocess.run(command, check=True, start_new_session=True)
                num_bytes, took_s = listener.stdout.readline().split()
                return int(num_bytes) * 8e-9 / float(took_s)
            finally:
                listener.kill()


@contextlib.contextmanager
def made(folder: Path, num_hosts: int) -> Iterator[tuple[Hosts, Network]]:
    """So many hosts for the length of a `with`; then they are removed, and all processes on them are killed.

    Args:
      folder: the names of links and namespaces come from its path.
      num_hosts: at least 2.

    Raises:
      HadoopError: they cannot be made.
    """
    network = Network(folder.resolve(), choose_subnet(), num_hosts)
    network.create()
    try:
        yield Hosts(network), network
    finally:
        for pid in network.process_ids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        network.remove()


@contextlib.contextmanager
def spark_on(network: Network, folder: Path, topology: Topology) -> Iterator[SparkContext]:
    """A SparkContext with an executor of one core on each host.

    Raises:
      ResourceError: Spark does not start.
    """
    with socket.create_server((network.gateway, 0)) as held:
        port = held.getsockname()[1]
    url = f"spark://{network.gateway}:{port}"
    changes = [
        VariableChange(name, os.environ.get(name), value, "all of this Spark is on this machine")
        for name, value in (
            ("SPARK_HOME", str(Path(pyspark.__file__).parent)),
            ("SPARK_LOCAL_IP", network.gateway),
            ("SPARK_LOCAL_DIRS", str(folder / "local")),
            ("PYSPARK_PYTHON", sys.executable),
            ("PYTHONPATH", module_path()),
        )
    ]
    quiet = f"-Dlog4j2.configurationFile=file:{Path(session.__file__).with_name('log4j2.properties')} {_JAVA}"
    settings = {
        **session.training_settings(topology, url, max_restarts=0),
        "spark.driver.host": network.gateway,
        "spark.driver.bindAddress": network.gateway,
        "spark.driver.extraJavaOptions": quiet,
        "spark.executor.extraJavaOptions": quiet,
        "spark.executor.memory": f"{_EXECUTOR_MB}m",
        "spark.ui.enabled": "false",
    }
    with applied(os.environ, changes), contextlib.ExitStack() as stack:
        where = ["--host", network.gateway, "--port", str(port)]
        stack.enter_context(_daemon("master", [], network.gateway, [*where, "--webui-port", "0"], folder))
        _wait_for_port(network.gateway, port)
        for host in network.hosts:
            offered = ["--cores", "1", "--memory", f"{_EXECUTOR_MB}m", "--work-dir", str(folder / host.name)]
            place = ["--host", host.address, "--webui-port", "0"]
            words = [*offered, *place, url]
            stack.enter_context(_daemon("worker", _entering(host), host.address, words, folder))
        opened = session.open_session("tfos_job benchmark", url, settings, start_timeout=_START_TIMEOUT_S)
        yield stack.enter_context(opened).sparkContext


def _entering(host: Host) -> list[str]:
    return ["nsenter", f"--net={NAMESPACES_DIR / host.namespace}"]


@contextlib.contextmanager
def _daemon(kind: str, prefix: Sequence[str], address: str, words: Sequence[str], folder: Path) -> Iterator[None]:
    """One of Spark's daemons for the length of a `with`; its log is in the folder."""
    home = Path(os.environ["SPARK_HOME"])
    (core,) = home.glob("jars/spark-core_*.jar")
    scala_version = core.name.split("-")[1].removeprefix("core_")
    java_home = os.environ.get("JAVA_HOME")
    java = str(Path(java_home, "bin", "java")) if java_home else "java"
    opens = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in ("java.lang", "java.nio", "sun.nio.ch")]
    main = f"org.apache.spark.deploy.{kind}.{kind.capitalize()}"
    command = [*prefix, java, "-Xmx512m", *_JAVA.split(), *opens, "-cp", f"{home}/jars/*", main, *words]
    with open(folder / f"{kind}-{address}.log", "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Spark's own scripts would set the second.
            env={**os.environ, "SPARK_LOCAL_IP": address, "SPARK_SCALA_VERSION": scala_version},
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        end(process, f"Spark's {kind} on {address}", _STOP_S)


def _wait_for_port(host: str, port: int) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(_POLL_S)
    raise ResourceError(f"Spark's master does not answer within {_START_TIMEOUT_S} s", place=f"{host}:{port}")
