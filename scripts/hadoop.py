"""A real Hadoop on this machine alone: NameNode, two DataNodes, ResourceManager and NodeManager.

`scripts/hadoop.sh` calls this with the environment it needs (this package's Python, and JAVA_HOME). The daemons are
those of `hadoop-client-minicluster`, one jar beside those that pyspark brings. All addresses are 127.0.0.1; there is no
authentication, so every user of this machine can use it in your name. Everything lies in one FOLDER:

    hadoop.json       ports, and the process id and start time of each daemon
    conf/             HADOOP_CONF_DIR
    data/  logs/      what the daemons keep; their own logs; the containers' logs in logs/userlogs

TFOS_JOB_HADOOP_HIDE=PATH:PATH… gives the NodeManager, and so its containers, a view of this machine's files in which
these files and folders are empty, as on a node that has none of them. It needs root; FOLDER remembers it.

Exit codes: 0, 69 (something did not come up, or is not up), 78 (FOLDER is something else).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import getpass
import hashlib
import importlib.util
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HOST = "127.0.0.1"
NUM_DATANODES = 2
NUM_GPUS = 4  # counted by YARN; there need not be any

DOWNLOAD_TIMEOUT_S = 600
UP_TIMEOUT_S = 180  # far above the 10 to 20 s it takes: slow machines are no failure
TERM_TIMEOUT_S = 20
KILL_TIMEOUT_S = 10
LOG_TAIL_LINES = 25

# The heaps hold a laptop's file system and a handful of applications. One compiler tier and the serial collector save
# start-up time and memory, and nothing here runs long enough to miss the others.
JVM_FLAGS = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xss512k", "-Xshare:auto"]


@dataclass(frozen=True)
class Jar:
    """A file of Maven Central, with what it must weigh and hash to."""

    organisation: str
    module: str
    revision: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.module}-{self.revision}.jar"


# The ResourceManager does not start without BouncyCastle, which the minicluster's jar leaves to others.
JARS = (
    Jar(
        "org.apache.hadoop",
        "hadoop-client-minicluster",
        "3.5.0",
        56006450,
        "06772d24529e59939915979b3edba204d367750ef7dc5120411f35221dd4818c",
    ),
    Jar(
        "org.bouncycastle",
        "bcprov-jdk18on",
        "1.82",
        8451859,
        "14cde2fdfaa8890480a8e5b67aceef0c90f96682c1e23c133bafdc9e0b3255ce",
    ),
    Jar(
        "org.bouncycastle",
        "bcpkix-jdk18on",
        "1.82",
        1151390,
        "bdc723e20834832ac6af136cb5b5ff05e43b71d4fa151cc6510d9212ee086e63",
    ),
    Jar(
        "org.bouncycastle",
        "bcutil-jdk18on",
        "1.82",
        706248,
        "4420691958ad1c0ba275a6d6d8a6317adbdbdc9277055b6a72aa89c88cda8c7d",
    ),
)


@dataclass(frozen=True)
class Daemon:
    """One process: its main class, the largest heap, and the settings that are its own."""

    name: str
    main_class: str
    heap_mb: int
    ports: tuple[str, ...]


DAEMONS = (
    Daemon("namenode", "org.apache.hadoop.hdfs.server.namenode.NameNode", 160, ("rpc", "http")),
    *(
        Daemon(f"datanode{number}", "org.apache.hadoop.hdfs.server.datanode.DataNode", 96, ("data", "ipc", "http"))
        for number in range(1, NUM_DATANODES + 1)
    ),
    Daemon(
        "resourcemanager",
        "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager",
        192,
        ("client", "scheduler", "tracker", "admin", "http"),
    ),
    Daemon(
        "nodemanager",
        "org.apache.hadoop.yarn.server.nodemanager.NodeManager",
        160,
        ("rpc", "localizer", "collector", "http"),
    ),
)


class HadoopError(Exception):
    """What ends this program with `exit_code` and its text."""

    def __init__(self, text: str, exit_code: int = 69) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def say(text: str) -> None:
    print(f"hadoop: {text}", file=sys.stderr, flush=True)


# --- jars ------------------------------------------------------------------------------------------------------------


def spark_jars_dir() -> Path:
    spec = importlib.util.find_spec("pyspark")  # found, not imported: that takes a second
    if spec is None or spec.origin is None:
        raise HadoopError("no pyspark in this Python; call scripts/hadoop.sh, which sets up for it")
    return Path(spec.origin).parent / "jars"


def java() -> str:
    home = os.environ.get("JAVA_HOME")
    program = shutil.which(str(Path(home) / "bin" / "java") if home else "java")
    if program is None:
        raise HadoopError(
            f"no java ({f'JAVA_HOME={home}' if home else 'on PATH'}); call scripts/hadoop.sh, which finds it"
        )
    return program


def cache_dir() -> Path:
    own = os.environ.get("TFOS_JOB_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(own) if own else Path(shared) / "tfos_job") / "hadoop-jars"


def is_right(path: Path, jar: Jar) -> bool:
    if not path.is_file() or path.stat().st_size != jar.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256


def fetch_jars() -> list[Path]:
    """The jars in the cache, fetched where they are missing or not what they should be."""
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        missing = [jar for jar in JARS if not is_right(folder / jar.file_name, jar)]
        if missing:
            say(f"fetching {', '.join(jar.file_name for jar in missing)} into {folder}")
            with tempfile.TemporaryDirectory(dir=folder, prefix="fetch.") as aside:
                run_ivy(missing, Path(aside))
                for jar in missing:
                    fetched = Path(aside) / jar.file_name
                    if not is_right(fetched, jar):
                        raise HadoopError(
                            f"{jar.file_name} is not the file that scripts/hadoop.py knows (size or SHA-256 differ)"
                        )
                    os.replace(fetched, folder / jar.file_name)
    return [folder / jar.file_name for jar in JARS]


def run_ivy(jars: list[Jar], target: Path) -> None:
    """Fetches with the Ivy that pyspark brings. TFOS_JOB_IVY_SETTINGS names a settings file, for a mirror."""
    ivy = next(iter(spark_jars_dir().glob("ivy-*.jar")), None)
    if ivy is None:
        raise HadoopError(f"no ivy-*.jar in {spark_jars_dir()}")
    dependencies = "".join(
        f'<dependency org="{jar.organisation}" name="{jar.module}" rev="{jar.revision}" conf="default-&gt;master"/>'
        for jar in jars
    )
    (target / "ivy.xml").write_text(
        '<ivy-module version="2.0"><info organisation="tfos_job" module="hadoop"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )
    command = [java(), "-jar", str(ivy), "-warn", "-cache", str(target / "cache"), "-ivy", str(target / "ivy.xml")]
    command += ["-confs", "default", "-retrieve", f"{target}/[artifact]-[revision].[ext]"]
    if settings := os.environ.get("TFOS_JOB_IVY_SETTINGS"):
        command += ["-settings", settings]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise HadoopError(f"the download did not end within {DOWNLOAD_TIMEOUT_S} s") from error
    if done.returncode:
        raise HadoopError(f"Ivy could not fetch the jars:\n{tail_of((done.stdout + done.stderr).splitlines())}")


# --- configuration ---------------------------------------------------------------------------------------------------


def choose_ports() -> dict[str, int]:
    """A free port for each address, below the range from which the system takes those of outgoing connections."""
    with contextlib.ExitStack() as held:
        ports = {}
        for daemon in DAEMONS:
            for purpose in daemon.ports:
                listener = held.enter_context(socket.socket())
                for candidate in random.sample(range(15000, 32000), 200):
                    with contextlib.suppress(OSError):
                        listener.bind((HOST, candidate))
                        break
                else:
                    raise HadoopError("no free port between 15000 and 32000")
                ports[f"{daemon.name}.{purpose}"] = listener.getsockname()[1]
    return ports


def write_xml(path: Path, settings: dict[str, object]) -> None:
    lines = [
        f" <property><name>{escape(k)}</name><value>{escape(str(v))}</value></property>" for k, v in settings.items()
    ]
    path.write_text("\n".join(['<?xml version="1.0"?>', "<configuration>", *lines, "</configuration>", ""]), "utf-8")


def node_memory_mb() -> int:
    """Two thirds of the memory there is, for containers."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 2 // 3 >> 20


def write_conf(folder: Path, ports: dict[str, int]) -> None:
    conf, data, logs = folder / "conf", folder / "data", folder / "logs"
    for each in (conf, data, logs):
        each.mkdir(parents=True)

    def at(name: str) -> str:
        return f"{HOST}:{ports[name]}"

    write_xml(
        conf / "core-site.xml",
        {
            "fs.defaultFS": f"hdfs://{at('namenode.rpc')}",
            "hadoop.tmp.dir": data / "tmp",
            # DataNodes are told to come back within seconds after the NameNode was away.
            "ipc.client.connect.max.retries": 60,
            "ipc.client.connect.retry.interval": 500,
        },
    )
    write_xml(
        conf / "hdfs-site.xml",
        {
            "dfs.replication": NUM_DATANODES,
            "dfs.namenode.rpc-address": at("namenode.rpc"),
            "dfs.namenode.http-address": at("namenode.http"),
            "dfs.namenode.name.dir": f"file://{data}/namenode",
            "dfs.namenode.safemode.extension": 500,
            "dfs.namenode.safemode.min.datanodes": 1,
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.namenode.fs-limits.min-block-size": 65536,  # so that a test can fill several blocks quickly
            "dfs.namenode.delegation.token.always-use": "true",  # it gives tokens, and asks nobody for one
            "dfs.namenode.handler.count": 4,
            "dfs.datanode.handler.count": 3,
            # As everywhere, the NameNode takes ten minutes to believe that a DataNode is dead.
            "dfs.heartbeat.interval": 1,
            "dfs.client.use.datanode.hostname": "false",
        },
    )
    write_xml(
        conf / "yarn-site.xml",
        {
            "yarn.resourcemanager.hostname": HOST,
            "yarn.resourcemanager.address": at("resourcemanager.client"),
            "yarn.resourcemanager.scheduler.address": at("resourcemanager.scheduler"),
            "yarn.resourcemanager.resource-tracker.address": at("resourcemanager.tracker"),
            "yarn.resourcemanager.admin.address": at("resourcemanager.admin"),
            "yarn.resourcemanager.webapp.address": at("resourcemanager.http"),
            "yarn.resourcemanager.scheduler.class": (
                "org.apache.hadoop.yarn.server.resourcemanager.scheduler.capacity.CapacityScheduler"
            ),
            "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": 250,
            # As on most clusters: applications outlive a ResourceManager that is started again.
            "yarn.resourcemanager.recovery.enabled": "true",
            "yarn.resourcemanager.store.class": (
                "org.apache.hadoop.yarn.server.resourcemanager.recovery.FileSystemRMStateStore"
            ),
            "yarn.resourcemanager.fs.state-store.uri": f"file://{data}/resourcemanager",
            "yarn.nodemanager.hostname": HOST,
            "yarn.nodemanager.address": at("nodemanager.rpc"),
            "yarn.nodemanager.localizer.address": at("nodemanager.localizer"),
            "yarn.nodemanager.collector-service.address": at("nodemanager.collector"),
            "yarn.nodemanager.webapp.address": at("nodemanager.http"),
            "yarn.nodemanager.local-dirs": data / "nodemanager",
            # Absolute, else containers die with "Stdout path must be absolute".
            "yarn.nodemanager.log-dirs": logs / "userlogs",
            # After its end an application's logs are on HDFS, for `yarn logs`.
            "yarn.log-aggregation-enable": "true",
            "yarn.nodemanager.remote-app-log-dir": "/tmp/logs",
            "yarn.nodemanager.resource.memory-mb": node_memory_mb(),
            "yarn.nodemanager.resource.cpu-vcores": 16,  # accounting, not cores
            "yarn.nodemanager.vmem-check-enabled": "false",
            "yarn.nodemanager.pmem-check-enabled": "true",
            # By default YARN leaves the limit to cgroups, whether or not it uses them, and then nobody enforces it.
            "yarn.nodemanager.resource.memory.enforced": "false",
            # A disk that is 90 % full is no reason for a node of a single machine to be UNHEALTHY.
            "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 99.5,
            "yarn.scheduler.minimum-allocation-mb": 128,
            "yarn.scheduler.maximum-allocation-mb": node_memory_mb(),
            "yarn.scheduler.maximum-allocation-vcores": 16,
        },
    )
    write_xml(
        conf / "capacity-scheduler.xml",
        {
            "yarn.scheduler.capacity.root.queues": "default,gpu",
            "yarn.scheduler.capacity.root.default.capacity": 50,
            "yarn.scheduler.capacity.root.default.maximum-capacity": 100,
            "yarn.scheduler.capacity.root.gpu.capacity": 50,
            "yarn.scheduler.capacity.root.gpu.maximum-capacity": 100,
            "yarn.scheduler.capacity.root.default.user-limit-factor": 2,
            "yarn.scheduler.capacity.root.gpu.user-limit-factor": 2,
            # Drivers hold parameter servers and coordinators: most of a small job is its ApplicationMaster.
            "yarn.scheduler.capacity.maximum-am-resource-percent": 1.0,
            "yarn.scheduler.capacity.resource-calculator": (
                "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator"
            ),
        },
    )
    write_xml(conf / "resource-types.xml", {"yarn.resource-types": "yarn.io/gpu"})
    write_xml(conf / "node-resources.xml", {"yarn.nodemanager.resource-type.yarn.io/gpu": NUM_GPUS})
    for number in range(1, NUM_DATANODES + 1):
        # On a DataNode's class path this folder comes before conf/: what differs between the two of them.
        own = folder / "conf" / f"datanode{number}"
        own.mkdir()
        shared = (conf / "hdfs-site.xml").read_text("utf-8")
        write_xml(
            own / "hdfs-site.xml",
            {
                "dfs.datanode.address": at(f"datanode{number}.data"),
                "dfs.datanode.ipc.address": at(f"datanode{number}.ipc"),
                "dfs.datanode.http.address": at(f"datanode{number}.http"),
                "dfs.datanode.data.dir": f"file://{data}/datanode{number}",
            },
        )
        of_this_one = (own / "hdfs-site.xml").read_text("utf-8").partition("<configuration>\n")[2]
        (own / "hdfs-site.xml").write_text(shared.replace("</configuration>\n", of_this_one), "utf-8")
    # Not in conf/: Spark would take it for its own, since HADOOP_CONF_DIR is on its class path.
    (folder / "log4j2.properties").write_text(
        "appender.console.type=Console\nappender.console.name=console\nappender.console.layout.type=PatternLayout\n"
        "appender.console.layout.pattern=%d{ISO8601} %p %c{1}: %m%n\n"
        "rootLogger.level=info\nrootLogger.appenderRef.console.ref=console\n"
    )


# --- processes -------------------------------------------------------------------------------------------------------


def started_at(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None where it runs no more. Tells a reused pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def resident_mb(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) >> 10
    return 0


class Cluster:
    """What lies in FOLDER."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.processes: dict[str, dict[str, Any]] = {}
        self.hidden = [path for path in os.environ.get("TFOS_JOB_HADOOP_HIDE", "").split(":") if path]
        if self.state_file.is_file():
            state = json.loads(self.state_file.read_text("utf-8"))
            self.ports, self.processes, self.hidden = state["ports"], state["daemons"], state["hidden"]

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
        state = {"ports": self.ports, "daemons": self.processes, "hidden": self.hidden}
        aside.write_text(json.dumps(state, indent=1) + "\n", "utf-8")
        os.replace(aside, self.state_file)

    def pid(self, name: str) -> int | None:
        """The process of a daemon, where it still runs."""
        record = self.processes.get(name)
        return record["pid"] if record and started_at(record["pid"]) == record["started"] else None

    def command(self, daemon: Daemon, jars: list[Path], *arguments: str) -> list[str]:
        if daemon.name == "nodemanager" and self.hidden:
            return self.hiding(self.java_command(daemon, jars, self.folder / "data" / "spark-jars", *arguments))
        return self.java_command(daemon, jars, spark_jars_dir(), *arguments)

    def hiding(self, command: list[str]) -> list[str]:
        """The same command in a mount namespace of its own. Spark's jars, which may be hidden too, are kept aside."""
        kept = self.folder / "data" / "spark-jars"
        lines = ["set -e", shlex.join(["mkdir", "-p", str(kept)])]
        lines.append(shlex.join(["mount", "--bind", str(spark_jars_dir()), str(kept)]))
        for path in map(shlex.quote, self.hidden):
            empty_folder, empty_file = (
                f"mount -t tmpfs -o size=64k,mode=755 none {path}",
                f"mount --bind /dev/null {path}",
            )
            lines.append(f"if [ -d {path} ]; then {empty_folder}; elif [ -e {path} ]; then {empty_file}; fi")
        lines.append(f"exec {shlex.join(command)}")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]

    def java_command(self, daemon: Daemon, jars: list[Path], spark_jars: Path, *arguments: str) -> list[str]:
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
                self.command(DAEMONS[0], jars, "-format", "-nonInteractive"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                timeout=UP_TIMEOUT_S,
                check=False,
            )
        if done.returncode:
            raise HadoopError(f"the NameNode could not be formatted:\n{self.log_tail('namenode')}")

    def log_tail(self, name: str) -> str:
        try:
            lines = self.log_file(name).read_text("utf-8", "replace").splitlines()
        except OSError as error:
            return f"  (no log: {error})"
        return f"  the end of {self.log_file(name)}:\n{tail_of(lines)}"

    # --- what the daemons say of themselves ---

    def http(self, daemon: str, query: str, method: str = "GET") -> Any:
        url = f"http://{HOST}:{self.ports[f'{daemon}.http']}{query}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
        with opener.open(urllib.request.Request(url, method=method), timeout=5) as response:
            return json.load(response)

    def hdfs_missing(self) -> str:
        """What HDFS still lacks; empty where it is ready."""
        (state,) = self.http("namenode", "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState")["beans"]
        (info,) = self.http("namenode", "/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo")["beans"]
        if (live := state["NumLiveDataNodes"]) < NUM_DATANODES:
            return f"{live} of {NUM_DATANODES} DataNodes live"
        # The NameNode takes a dead DataNode for a live one for a while: ask those as well.
        for number in range(1, NUM_DATANODES + 1):
            (node,) = self.http(f"datanode{number}", "/jmx?qry=Hadoop:service=DataNode,name=DataNodeInfo")["beans"]
            if any(actor["ActorState"] != "RUNNING" for actor in json.loads(node["BPServiceActorInfo"])):
                return f"datanode{number} is not registered"
        return "safe mode" if info["Safemode"] else ""

    def yarn_missing(self) -> str:
        nodes = (self.http("resourcemanager", "/ws/v1/cluster/nodes")["nodes"] or {}).get("node", [])
        mine = f":{self.ports['nodemanager.rpc']}"  # behind the name that this machine has for 127.0.0.1
        states = [node["state"] for node in nodes if node["id"].endswith(mine)]
        if "RUNNING" not in states:
            return f"NodeManager {states[0] if states else 'not registered'}"
        return (
            "" if self.http("nodemanager", "/ws/v1/node/info")["nodeInfo"]["nodeHealthy"] else "NodeManager unhealthy"
        )


def tail_of(lines: list[str]) -> str:
    return "\n".join(f"  | {line}" for line in lines[-LOG_TAIL_LINES:])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- commands --------------------------------------------------------------------------------------------------------


def up(folder: Path) -> None:
    begun = time.monotonic()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "hadoop.json").is_file():
        raise HadoopError(f"{folder} holds something else; name another folder, or an empty one", 78)
    java()  # before anything is made
    jars = fetch_jars()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        cluster = Cluster(folder)
        is_new = not cluster.ports
        to_start = [daemon for daemon in DAEMONS if cluster.pid(daemon.name) is None]
        try:
            if is_new:
                cluster.ports = choose_ports()
                write_conf(folder, cluster.ports)
                (folder / "data" / "tmp").mkdir()
                cluster.save()
            for daemon in reversed(to_start):  # the NameNode is formatted while the others load their classes
                if daemon.name == "namenode" and is_new:
                    cluster.format(jars)
                cluster.start(daemon, jars)
            wait_until_ready(cluster)
            make_home(cluster)
        except BaseException:
            if is_new:
                end_all(cluster)
                say(f"nothing runs; the logs are in {folder}/logs, and `scripts/hadoop.sh down` removes them")
            raise
        if to_start:
            started = ", ".join(daemon.name for daemon in reversed(to_start))
            say(f"up after {time.monotonic() - begun:.1f} s (started: {started})")
        else:
            say("up already")


def wait_until_ready(cluster: Cluster) -> None:
    checks: list[tuple[tuple[str, ...], Callable[[], str]]] = [
        (("namenode", "datanode1", "datanode2"), cluster.hdfs_missing),
        (("resourcemanager", "nodemanager"), cluster.yarn_missing),
    ]
    deadline = time.monotonic() + UP_TIMEOUT_S
    for names, check in checks:
        missing = ""
        while True:
            for name in names:
                if cluster.pid(name) is None:
                    raise HadoopError(f"the {name} ended\n{cluster.log_tail(name)}")
            try:
                missing = check()
                if not missing:
                    break
            except (OSError, ValueError, KeyError) as error:  # not listening yet, or not all of it there yet
                missing = f"no answer from all of {', '.join(names)}: {error}"
            if time.monotonic() > deadline:
                tails = "\n".join(cluster.log_tail(name) for name in names)
                raise HadoopError(f"not ready after {UP_TIMEOUT_S} s: {missing}\n{tails}")
            time.sleep(0.2)


def make_home(cluster: Cluster) -> None:
    """`/tmp` for everybody and a home for the user, as a cluster's administrator makes them."""
    user = getpass.getuser()
    for path, permission in (("/tmp", "1777"), ("/user", "755"), (f"/user/{user}", "755")):
        cluster.http("namenode", f"/webhdfs/v1{path}?op=MKDIRS&permission={permission}&user.name={user}", method="PUT")


def end_all(cluster: Cluster) -> None:
    """Ends the daemons that `up` started, and containers that they left behind."""
    for names in (("nodemanager",), tuple(daemon.name for daemon in DAEMONS)):
        end({pid: cluster.processes[name]["started"] for name in names if (pid := cluster.pid(name))})
    end(processes_in(cluster.folder / "data"))
    cluster.processes = {}


def processes_in(folder: Path) -> dict[int, str]:
    """Processes that work in a folder: a NodeManager that was killed leaves its containers running."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                where = os.readlink(entry / "cwd")
                if (where == str(folder) or where.startswith(f"{folder}/")) and (at := started_at(int(entry.name))):
                    found[int(entry.name)] = at
    return found


def end(processes: dict[int, str]) -> None:
    """SIGTERM, and SIGKILL for those that do not listen; a pid that belongs to another process by now is left alone."""
    for number, timeout_s in ((signal.SIGTERM, TERM_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
        for pid, started in processes.items():
            if started_at(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        deadline = time.monotonic() + timeout_s
        while any(started_at(pid) == started for pid, started in processes.items()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return
    raise HadoopError(f"cannot end the processes {', '.join(map(str, processes))}")


def down(folder: Path) -> None:
    if not (folder / "hadoop.json").is_file():
        say(f"nothing in {folder}")
        return
    with locked(folder / "lock"):
        end_all(Cluster(folder))
        for name in ("conf", "data", "logs"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("log4j2.properties", "hadoop.json.tmp", "hadoop.json", "lock"):
            (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()  # unless somebody put something else there
    say(f"down, and {folder} removed" if not folder.exists() else f"down; {folder} holds other files")


def status(folder: Path) -> None:
    cluster = Cluster(folder)
    if not cluster.ports:
        raise HadoopError(f"nothing in {folder}")
    total_mb, dead = 0, []
    print(f"{'daemon':<16}{'pid':>8}{'MB':>6}  address")
    for daemon in DAEMONS:
        pid = cluster.pid(daemon.name)
        used_mb = resident_mb(pid) if pid else 0
        total_mb += used_mb
        if pid is None:
            dead.append(daemon.name)
        address = f"http://{HOST}:{cluster.ports[f'{daemon.name}.http']}"
        print(f"{daemon.name:<16}{pid or '-':>8}{used_mb or '-':>6}  {address if pid else 'not running'}")
    print(f"{'':<24}{total_mb:>6}")
    print(f"fs.defaultFS    hdfs://{HOST}:{cluster.ports['namenode.rpc']}")
    print(f"conf            {cluster.conf_dir}")
    if dead:
        raise HadoopError(f"not running: {', '.join(dead)}")
    try:
        missing = [text for text in (cluster.hdfs_missing(), cluster.yarn_missing()) if text]
    except (OSError, ValueError, KeyError) as error:
        missing = [f"no answer: {error}"]
    if missing:
        raise HadoopError("; ".join(missing))


def env(folder: Path) -> None:
    cluster = Cluster(folder)
    if not cluster.ports:
        raise HadoopError(f"nothing in {folder}; `scripts/hadoop.sh up` first")
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        print(f"export {name}={shlex.quote(str(cluster.conf_dir))}")


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    commands = {"up": up, "down": down, "status": status, "env": env}
    parser = argparse.ArgumentParser(prog="scripts/hadoop.sh", description="A real Hadoop on this machine alone.")
    parser.add_argument("command", choices=commands)
    parser.add_argument("folder", nargs="?", type=Path, default=root / ".hadoop", help="default: .hadoop here")
    arguments = parser.parse_args()
    try:
        commands[arguments.command](arguments.folder.resolve())
    except HadoopError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    # As Ctrl-C: what was started so far is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
