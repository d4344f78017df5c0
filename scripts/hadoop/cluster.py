"""What lies in FOLDER: the daemons, their processes and addresses, and the network of the hosts."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from .jars import java, spark_jars_dir
from .layout import JVM_FLAGS, LOOPBACK, Daemon, Layout, daemons_of
from .network import NAMESPACES_DIR, Network
from .problem import HadoopError, tail_of
from .processes import end, processes_in, started_at
from .view import View

UP_TIMEOUT_S = 180  # far above the 10 to 20 s it takes: slow machines are no failure


class Cluster:
    """What lies in FOLDER."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.processes: dict[str, dict[str, Any]] = {}
        self.hidden = [path for path in os.environ.get("TFOS_JOB_HADOOP_HIDE", "").split(":") if path]
        self.num_hosts = 0
        self.subnet = ""
        self.is_new = not self.state_file.is_file()
        if not self.is_new:
            state = json.loads(self.state_file.read_text("utf-8"))
            self.ports, self.processes, self.hidden = state["ports"], state["daemons"], state["hidden"]
            self.num_hosts, self.subnet = state.get("num_hosts", 0), state.get("subnet", "")

    @property
    def state_file(self) -> Path:
        return self.folder / "hadoop.json"

    @property
    def conf_dir(self) -> Path:
        return self.folder / "conf"

    def log_file(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def save(self) -> None:
        aside = self.folder / "hadoop.json.tmp"
        state = {
            "ports": self.ports,
            "daemons": self.processes,
            "hidden": self.hidden,
            "num_hosts": self.num_hosts,
            "subnet": self.subnet,
        }
        aside.write_text(json.dumps(state, indent=1) + "\n", "utf-8")
        os.replace(aside, self.state_file)

    @property
    def network(self) -> Network:
        return Network(self.folder, self.subnet, self.num_hosts)

    @property
    def layout(self) -> Layout:
        daemons = daemons_of(self.num_hosts)
        if not self.num_hosts:
            return Layout(daemons, self.ports, LOOPBACK)
        network = self.network
        return Layout(daemons, self.ports, network.gateway, [host.address for host in network.hosts])

    # --- processes ---

    def pid(self, name: str) -> int | None:
        """The process of a daemon, where it still runs."""
        record = self.processes.get(name)
        return record["pid"] if record and started_at(record["pid"]) == record["started"] else None

    def command(self, daemon: Daemon, jars: list[Path], *arguments: str) -> list[str]:
        kept, hides = self.folder / "data" / "spark-jars", bool(self.hidden) and daemon.is_nodemanager
        command = self._java_command(daemon, jars, kept if hides else spark_jars_dir(), *arguments)
        binds = {Path("/etc") / name: self.folder / "data" / name for name in self._names} if self.num_hosts else {}
        if hides:  # Spark's jars, which may be hidden too, are kept aside
            kept.mkdir(parents=True, exist_ok=True)
            binds[kept] = spark_jars_dir()
        host = self.network.hosts[daemon.host - 1] if daemon.host else None
        view = View(
            namespace=NAMESPACES_DIR / host.namespace if host else None,
            host_name=self.layout.address(daemon.name) if self.num_hosts else "",  # a name that all of them resolve
            binds=binds,
            hidden=self.hidden if hides else (),
        )
        return view.command(command)

    @property
    def _names(self) -> dict[str, str]:
        """Files in /etc by which hosts know each other: an address is its own name, and no other resolver is asked."""
        network = self.network
        addresses = [network.gateway, *(host.address for host in network.hosts)]
        lines = ["127.0.0.1 localhost", *(f"{address} {address}" for address in addresses)]
        files = {"hosts": "\n".join([*lines, ""]), "resolv.conf": "# no name server\n"}
        return {name: text for name, text in files.items() if Path("/etc", name).exists()}

    def write_names(self) -> None:
        for name, text in self._names.items() if self.num_hosts else ():
            (self.folder / "data" / name).write_text(text)

    def _java_command(self, daemon: Daemon, jars: list[Path], spark_jars: Path, *arguments: str) -> list[str]:
        own = self.conf_dir / daemon.name
        path = [*([own] if own.is_dir() else []), self.conf_dir, *jars, spark_jars / "*"]
        properties = [f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties", "-Djava.net.preferIPv4Stack=true"]
        properties.append(f"-Djava.io.tmpdir={self.folder}/data/tmp")
        return [
            *(java(), f"-Xmx{daemon.heap_mb}m", *JVM_FLAGS, *properties),
            *("-cp", ":".join(map(str, path)), daemon.main_class, *arguments),
        ]

    def environment(self) -> dict[str, str]:
        """What the daemons see. Foreign Hadoop settings would be stronger than conf/."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HADOOP_", "YARN_", "HDFS_", "SPARK_"))}
        for name in ("CLASSPATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS"):
            kept.pop(name, None)
        return {**kept, "HADOOP_CONF_DIR": str(self.conf_dir), "HADOOP_LOG_DIR": str(self.folder / "logs")}

    def start(self, daemon: Daemon, jars: list[Path]) -> None:
        with self.log_file(daemon.name).open("ab") as log:
            process = subprocess.Popen(
                self.command(daemon, jars),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder / "data",
                env=self.environment(),
                start_new_session=True,  # Ctrl-C in this shell is not for them
            )
        self.processes[daemon.name] = {"pid": process.pid, "started": started_at(process.pid)}
        self.save()

    def format(self, jars: list[Path]) -> None:
        with self.log_file("namenode").open("ab") as log:
            done = subprocess.run(
                self.command(self.layout.daemons[0], jars, "-format", "-nonInteractive"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                timeout=UP_TIMEOUT_S,
                check=False,
            )
        if done.returncode:
            raise HadoopError(f"the NameNode could not be formatted:\n{self.log_tail('namenode')}")

    def end_all(self) -> None:
        """Ends the daemons that `up` started, and containers that they left behind; removes the hosts."""
        daemons = self.layout.daemons
        nodemanagers = tuple(daemon.name for daemon in daemons if daemon.is_nodemanager)
        for names in (nodemanagers, tuple(daemon.name for daemon in daemons)):
            end({pid: self.processes[name]["started"] for name in names if (pid := self.pid(name))})
        end(processes_in(self.folder / "data"))
        network = self.network
        end({pid: at for pid in network.process_ids() if (at := started_at(pid))})
        network.remove()
        self.processes = {}

    def log_tail(self, name: str) -> str:
        try:
            lines = self.log_file(name).read_text("utf-8", "replace").splitlines()
        except OSError as error:
            return f"  (no log: {error})"
        return f"  the end of {self.log_file(name)}:\n{tail_of(lines)}"

    # --- what the daemons say of themselves ---

    def http(self, daemon: str, query: str, method: str = "GET") -> Any:
        url = f"http://{self.layout.at(f'{daemon}.http')}{query}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
        with opener.open(urllib.request.Request(url, method=method), timeout=5) as response:
            return json.load(response)
